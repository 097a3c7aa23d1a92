"""`moespec diff`: what became worse between two runs, and what is no run at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moespec_conformance import Result
from moespec_conformance.address import Usage
from moespec_conformance.cli import app
from moespec_conformance.differing import TITLES, WORSE, differences
from moespec_conformance.report.jsonl import Writer, read
from moespec_conformance.report.writing import prepare

RIGHT = {"status": "pass", "kind": "bounded", "error_over_bound": 0.2}
FAR = {"status": "fail", "kind": "bounded", "stage": "y", "error_over_bound": 30.0}


def run(folder: Path, cases: dict[str, dict[str, Any]], **header: Any) -> Path:
    """A run's results, written."""
    prepare(folder)
    writer = Writer(folder, adapter="mine", **header)
    for case, told in cases.items():
        writer.result(Result(case, "gate", ("GATE-1",), **told))
    writer.close(0)
    return folder


def diff(*arguments: object) -> tuple[int, str]:
    """The command: its exit code, and what it said."""
    done = CliRunner().invoke(app, ["diff", *map(str, arguments)])
    if isinstance(done.exception, Usage):
        return 2, str(done.exception)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("before", "after", "kinds", "code"),
    [
        (RIGHT, RIGHT, [], 0),
        (FAR, FAR, [], 0),
        (RIGHT, FAR, ["regressed"], 1),
        (RIGHT, {**FAR, "status": "xfail"}, ["regressed"], 1),
        (RIGHT, {"status": "not_supported", "kind": "bounded"}, ["regressed"], 1),
        (RIGHT, {**RIGHT, "status": "quality_warning"}, ["regressed"], 1),
        ({"status": "not_supported", "kind": "bounded"}, FAR, ["regressed"], 1),
        (FAR, RIGHT, ["fixed"], 0),
        ({**FAR, "status": "error"}, {**RIGHT, "status": "quality_warning"}, ["fixed"], 0),
        (FAR, {"status": "not_supported", "kind": "bounded"}, ["changed"], 0),
        (FAR, {**FAR, "stage": "topk_idx"}, ["changed"], 0),
        (FAR, {**FAR, "kind": "exact", "error_over_bound": None}, ["changed"], 0),
        (FAR, {**FAR, "stage": "topk_idx", "error_over_bound": 70.0}, ["changed", "grown"], 1),
        (RIGHT, {**RIGHT, "error_over_bound": 0.39}, [], 0),
        (RIGHT, {**RIGHT, "error_over_bound": 0.41}, ["grown"], 1),
        (RIGHT, {**RIGHT, "error_over_bound": 0.01}, [], 0),
        ({**RIGHT, "status": "xpass"}, {**RIGHT, "status": "rejected_ok"}, [], 0),
        (RIGHT, None, ["lost"], 1),
        (FAR, None, ["only_before"], 0),
        (None, FAR, ["only_after"], 0),
    ],
)
def test_what_became_of_a_case(
    tmp_path: Path, before: dict[str, Any] | None, after: dict[str, Any] | None, kinds: list[str], code: int
) -> None:
    """The lists it is in, and what the command says by its exit code; other cases stay out of it."""
    old = run(tmp_path / "a", {"same": RIGHT, **({"it": before} if before else {})})
    new = run(tmp_path / "b", {"same": RIGHT, **({"it": after} if after else {})})
    found = differences(read(old), read(new))
    assert [name for name in TITLES if found[name]] == sorted(kinds, key=list(TITLES).index)
    assert {pair.case for pairs in found.values() for pair in pairs} <= {"it"}
    assert diff(old, new)[0] == code == int(bool({*kinds} & {*WORSE}))


def test_what_is_worse_is_said_first(tmp_path: Path) -> None:
    """Then what is fixed, with the stage and the distance; and what the two runs do not both stand on."""
    old = run(tmp_path / "a", {"x": RIGHT, "z": FAR}, numpy="2.1", seconds=1)
    new = run(tmp_path / "b", {"x": FAR, "z": RIGHT}, numpy="2.2", seconds=2)
    code, said = diff(old / "results.jsonl", new)
    assert code == 1
    lines = [line for line in said.splitlines() if line.strip()]
    assert lines[0] == "numpy  2.1 → 2.2"
    assert lines[1:5] == [
        "1 worse",
        "  x  pass, error/bound 0.2 → fail at y (bounded), error/bound 30",
        "1 fixed",
        "  z  fail at y (bounded), error/bound 30 → pass, error/bound 0.2",
    ]
    assert "seconds" not in said


def test_json_says_the_same(tmp_path: Path) -> None:
    """For programs: every list, and both results of a case."""
    old, new = run(tmp_path / "a", {"x": RIGHT}, numpy="2.1"), run(tmp_path / "b", {"x": FAR}, numpy="2.2")
    code, said = diff(old, new, "--json")
    told = json.loads(said)
    assert code == 1
    assert told["worse"] is True
    assert told["header"] == {"numpy": {"before": "2.1", "after": "2.2"}}
    assert set(told) == {"worse", "header", *TITLES}
    (pair,) = told["regressed"]
    assert (pair["case"], pair["before"]["status"], pair["after"]["stage"]) == ("x", "pass", "y")


def without_footer(lines: list[str]) -> list[str]:
    """Cut short."""
    return lines[:-1]


def without_header(lines: list[str]) -> list[str]:
    """Another file's end."""
    return lines[1:]


def with_one_lost(lines: list[str]) -> list[str]:
    """Its footer counts two."""
    return [lines[0], *lines[2:]]


def with_one_twice(lines: list[str]) -> list[str]:
    """A case has one result."""
    return [lines[0], lines[1], lines[1], lines[-1]]


def half_a_line(lines: list[str]) -> list[str]:
    """The disk was full."""
    return [*lines[:-1], lines[-1][:9]]


def other_json(_: list[str]) -> list[str]:
    """JSON, but not of a run."""
    return ["[]", "1"]


SPOILT = (without_footer, without_header, with_one_lost, with_one_twice, half_a_line, other_json)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_no_whole_run_is_not_compared(tmp_path: Path, spoil: Any) -> None:
    """Exit 2, before and after alike."""
    good = run(tmp_path / "good", {"x": RIGHT, "y": RIGHT})
    bad = run(tmp_path / "bad", {"x": RIGHT, "y": RIGHT}) / "results.jsonl"
    bad.write_text("\n".join(spoil(bad.read_text().splitlines())) + "\n")
    for pair in ((good, bad), (bad, good)):
        code, said = diff(*pair)
        assert code == 2
        assert str(bad) in said


def test_no_file_is_no_run(tmp_path: Path) -> None:
    """Neither is an empty folder."""
    good = run(tmp_path / "good", {"x": RIGHT})
    for nothing in (tmp_path / "none", tmp_path):
        assert diff(good, nothing)[0] == 2
