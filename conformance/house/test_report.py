"""What a run leaves behind: files that agree with each other, survive hostile names, and never speak of another run."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from moespec_conformance import Result
from moespec_conformance.address import Usage
from moespec_conformance.cases import all_cases
from moespec_conformance.cli import main
from moespec_conformance.expectations import apply, stale
from moespec_conformance.expectations import read as read_known
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import BAD, GOOD, Array
from moespec_conformance.report.heat import SIDE, Heat, heat, hottest, layout
from moespec_conformance.report.histogram import axis_of, histograms, place
from moespec_conformance.report.jsonl import Log, Writer, read
from moespec_conformance.report.page import levels, page, strips
from moespec_conformance.report.tally import ELSEWHERE, by_clause, suspects
from moespec_conformance.report.writing import FILES, prepare, publish
from moespec_conformance.runner import InProcess
from moespec_conformance.spec import home

HERE = Path(__file__).parent
BUGGY = str(HERE.parents[1] / "examples" / "buggy_gate.py")
ODD = HERE / "odd_adapters.py"
PINS = ("moespec", "spec", "golden", "python", "numpy", "ml_dtypes", "blas", "platform")
TIES = ("--profile", "ties", "--op", "gate")
ASKED = ("address", "adapter", "version", "profiles", "arithmetic", "ops", "cases", "quick")


def moespec(*arguments: str) -> tuple[int, str]:
    """The command, in this process: its exit code, and what it said."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0), said.getvalue()


def result(case: str, status: str = "pass", **more: Any) -> Result:
    """A made-up result of a real case."""
    found = all_cases()[case]
    return Result(case, found.op, found.clauses, status, found.kind, **more)


def log_of(*results: Result, **more: Any) -> Log:
    """A made-up run."""
    header = {"address": "my.py", "adapter": "mine", "version": "1", "profiles": ["ties"], "arithmetic": ["float32"]}
    footer = {"exit_code": int(any(r.status in BAD for r in results)), "verdict": "?", "sentence": "?", "whole": True}
    made = {
        "header": {**header, "spec": "0"},
        "footer": {**footer, "looked_into": [], "unexplained": [], "stale": [], "strict": False},
    }
    for part, values in more.items():
        made[part] |= values
    return Log(made["header"], results, made["footer"])


class Seen(HTMLParser):
    """The tags of a page, and what they refer to."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.tags: list[str] = []
        self.references: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        self.tags.append(tag)
        self.references += [(tag, name, value or "") for name, value in attrs if name in ("href", "src", "srcset")]


@pytest.fixture(scope="module")
def buggy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of the gate with a bug, on the few cases of one profile."""
    folder = tmp_path_factory.mktemp("reports") / "of" / "gate"
    code, said = moespec("check", BUGGY, "--op", "gate", "--profile", "ties", "--report", str(folder))
    assert code == 1, said
    return folder


def test_a_run_leaves_every_report(buggy: Path) -> None:
    """And nothing else."""
    assert {path.name for path in buggy.iterdir()} == set(FILES)


def test_the_header_pins_what_the_run_stands_on(buggy: Path) -> None:
    """What was asked of whom; the suite, the libraries and the machine; the corpus by its root."""
    header = read(buggy).header
    assert set(header) >= {*PINS, *ASKED}
    assert header["golden"] == json.loads((home("golden") / "MANIFEST.json").read_text(encoding="utf-8"))["root"]
    assert home("SPEC.md").read_text(encoding="utf-8").count(f"Version {header['spec']}.") == 1
    assert header["numpy"] == np.__version__
    assert header["blas"] != "unknown"
    assert (header["profiles"], header["ops"]) == (["ties"], ["gate"])


def test_failures_name_the_bug_they_look_like(buggy: Path) -> None:
    """Best first, in results.jsonl and in every file that people read."""
    failed = [r for r in read(buggy).results if r.status == "fail"]
    assert failed
    for r in failed:
        assert "gate-bias-in-weights" in {found["mutant"] for found in r.suspects}
        assert all(set(found) == {"mutant", "match"} for found in r.suspects)
        assert {found["match"] for found in r.suspects} <= {"exact", "bounded"}
    for name in ("junit.xml", "report.html", "summary.md"):
        assert "gate-bias-in-weights" in (buggy / name).read_text(encoding="utf-8"), name
    assert "vllm-project/vllm#12002" in (buggy / "report.html").read_text(encoding="utf-8")


def test_all_reports_count_alike(buggy: Path) -> None:
    """JUnit, the summary, the badge and the page agree with the footer."""
    log = read(buggy)
    suite = ET.parse(buggy / "junit.xml").getroot()[0]  # noqa: S314 - our own file
    cases = suite.findall("testcase")
    counts = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error", "skipped")}
    assert counts == {"failure": log.counts["fail"], "error": 0, "skipped": log.counts["not_supported"]}
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == [
        str(len(cases)),
        str(counts["failure"]),
        "0",
    ]
    assert {(case.get("classname"), case.get("name")) for case in cases} == {(r.op, r.case) for r in log.results}
    right, total = log.counts["pass"], len(log.results)
    badge = json.loads((buggy / "badge.json").read_text(encoding="utf-8"))
    assert badge == {"schemaVersion": 1, "label": "moespec", "message": f"part of ties {right}/{total}", "color": "red"}
    summary = (buggy / "summary.md").read_text(encoding="utf-8")
    assert f"{right} of {total} as it should be, {log.counts['fail']} fail" in summary
    assert f"| <code>gate</code> | {total} | {right} | {log.counts['fail']} |" in summary
    html = (buggy / "report.html").read_text(encoding="utf-8")
    assert f"<b>{right}</b> of <b>{total}</b> cases right" in html


def test_a_junit_failure_says_all_one_needs(buggy: Path) -> None:
    """The clause, the wrong stage, the message and the command that asks again; the pins as properties."""
    root = ET.parse(buggy / "junit.xml").getroot()  # noqa: S314 - our own file
    failure = root.find(".//failure")
    assert failure is not None
    text = failure.text or ""
    assert "GATE-5: " in text or "GATE-4: " in text
    assert "first wrong stage: topk_weight" in text
    assert f"moespec check {BUGGY} --case ties-" in text
    assert (failure.get("message") or "").startswith("topk_weight[")
    assert {p.get("name") for p in root.iter("property")} >= set(PINS)


def test_the_page_needs_no_network(buggy: Path) -> None:
    """One file: nothing is loaded, and the browser is told not to."""
    text = (buggy / "report.html").read_text(encoding="utf-8")
    seen = Seen(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(seen.tags)
    assert {(tag, name) for tag, name, _ in seen.references} == {("a", "href")}
    assert "default-src 'none'" in text
    assert not [word for word in ("url(", "@import", "@font-face") if word in text]
    assert seen.tags.count("svg") == 2  # the heat map, and a histogram


def test_the_page_tells_every_status(tmp_path: Path) -> None:
    """Each has its column, and what was left out its reason."""
    names = [case.id for case in all_cases().values() if case.op == "gate"]
    statuses = (*GOOD, "not_supported", *BAD)
    results = [result(name, status, message=f"because {status}") for name, status in zip(names, statuses, strict=False)]
    publish(tmp_path, log_of(*results))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for status in statuses:
        assert f"<th>{status.replace('_', ' ')}</th>" in text
        assert status in ("pass", "rejected_ok") or f"because {status}" in text
    for clause in {name for r in results for name in r.clauses}:
        assert f"<summary>{clause} " in text
    sums = ET.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own file
    assert [sums.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["10", "1", "2", "3"]


HOSTILE = "<script>alert('x')</script> & \"`|\x00\x1b[31m\ud800"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """An adapter's name, its messages and a suspect's slug can hold anything."""
    bad = result("gate-ordinary", "fail", stage="topk_weight", message=f"{HOSTILE}\n</pre>{HOSTILE}")
    bad = replace(bad, suspects=({"mutant": HOSTILE, "match": "exact"},))
    log = log_of(bad, header={"adapter": HOSTILE, "address": HOSTILE}, footer={"sentence": HOSTILE, "stale": [HOSTILE]})
    publish(tmp_path, log)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "script" not in Seen(text).tags
    assert text.count("&lt;script&gt;") >= 4
    assert "<script" not in (tmp_path / "summary.md").read_text(encoding="utf-8")
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own file
    assert "<script>" in (suite.get("name") or "")
    assert not [name for name in FILES[1:] if "\x00" in (tmp_path / name).read_text(encoding="utf-8")]


def test_a_run_without_cases_has_reports_too(tmp_path: Path) -> None:
    """Nothing selected: exit 5, no failure, no claim."""
    code, _ = moespec("check", "reference", "--case", "no-such-case", "--report", str(tmp_path))
    assert code == 5
    assert json.loads((tmp_path / "badge.json").read_text(encoding="utf-8"))["color"] == "lightgrey"
    assert "NOTHING SELECTED" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_infinite_ratios_are_written_and_read(tmp_path: Path) -> None:
    """JSON has no infinity, and people are shown one."""
    writer = Writer(prepared(tmp_path), adapter="mine")
    writer.result(result("gate-ordinary", "fail", error_over_bound=float("inf"), margin=float("inf")))
    writer.close(1)
    log = read(tmp_path)
    assert log.results[0].error_over_bound == np.finfo(np.float64).max
    assert "error/bound ∞" in page(log_of(*log.results))


def prepared(folder: Path) -> Path:
    """A folder that is ready for a run."""
    prepare(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code"), [(("nothing",), 2), ((f"{ODD}:Broken",), 3), (("reference", "--profile", "gold"), 2)]
)
def test_a_run_that_never_began_leaves_no_older_report(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """Files of an older run would be mistaken for its own; what is not ours stays."""
    for name in (*FILES, "mine.txt"):
        (tmp_path / name).write_text("older")
    assert moespec("check", *arguments, "--report", str(tmp_path))[0] == code
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["mine.txt"]


def test_a_run_that_dies_leaves_results_without_a_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had is there, and counts as no run."""
    publish(tmp_path, log_of(result("gate-ordinary")))
    left = [KeyboardInterrupt(), result("ties-boundary"), result("ties-groups")]

    def judged(*_: Any, **__: Any) -> Result:
        if isinstance(found := left.pop(), KeyboardInterrupt):
            raise found
        return found

    monkeypatch.setattr("moespec_conformance.checking.judged", judged)
    assert moespec("check", "reference", *TIES, "--report", str(tmp_path))[0] == 130
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl"}
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
    with pytest.raises(Usage, match="cut short"):
        read(tmp_path)


def test_a_folder_that_cannot_be_written_is_usage(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "taken").write_text("")
    code, said = moespec("check", "reference", "--report", str(tmp_path / "taken"))
    assert code == 2
    assert "no reports can be written there" in said


def answered(case: str, stage: str, change: Any) -> dict[str, Array]:
    """The right outputs of a case, one of them changed."""
    right = {name: np.array(value) for name, value in answer(all_cases()[case]).values.items()}
    return {**right, stage: change(right[stage])}


def spoilt(index: tuple[int, ...], by: float) -> Any:
    """Add to one element."""

    def change(array: Array) -> Array:
        array[index] += by
        return array

    return change


def test_heat_is_hot_where_an_output_is_wrong() -> None:
    """One element: its cell alone is beyond the bound, at the error over the bound."""
    case = all_cases()["gate-ordinary"]
    bound = answer(case).bounds["topk_weight"][43, 2]
    cells = heat(case, answered(case.id, "topk_weight", spoilt((43, 2), 10 * bound)), "topk_weight")
    assert cells.shape == (64, 4)
    assert cells.max() == pytest.approx(10)
    rows, columns = np.nonzero(cells > 1)
    assert (rows.tolist(), columns.tolist()) == ([43 // 2], [2])  # 128 tokens, two to a cell


def test_heat_keeps_the_worst_of_a_block_and_folds_what_has_more_axes() -> None:
    """(E,F,H) becomes rows and columns; a cell shows its largest element."""
    case = all_cases()["moe-backward-ordinary"]
    stage = "dgate_proj"
    bound = answer(case).bounds[stage]
    cells = heat(case, answered(case.id, stage, spoilt((3, 5, 7), 4 * bound[3, 5, 7])), stage)
    assert max(cells.shape) <= SIDE
    assert (cells > 1).sum() == 1
    assert cells.max() == pytest.approx(4)
    (rows, columns), axes = layout(case, bound, stage)
    assert (rows * columns, axes) == (bound.size, ("experts by expert width", "hidden"))


def test_heat_of_ids_marks_strangers() -> None:
    """An expert that should not have been chosen, not the order of the slots."""
    case = all_cases()["gate-ordinary"]
    right = answer(case).values["topk_idx"]
    other = next(e for e in range(case.cfg.n_routed_experts) if e not in right[0])
    turned = answered(case.id, "topk_idx", lambda ids: ids[:, ::-1])
    assert heat(case, turned, "topk_idx").max() == 0
    cells = heat(case, answered(case.id, "topk_idx", spoilt((0, 1), other - right[0, 1])), "topk_idx")
    assert np.argwhere(np.isinf(cells)).tolist() == [[0, 1]]


def test_heat_of_what_must_be_exact_is_endless() -> None:
    """There is no bound to divide by."""
    case = all_cases()["combine-dyadic"]
    cells = heat(case, answered(case.id, "y", spoilt((0, 0), 1.0)), "y")
    assert np.isinf(cells).sum() == 1


def test_the_hottest_case_is_asked_again() -> None:
    """Of the failures, the one farthest out; none without failures, and none whose answer has become no answer."""

    class Doubled:
        name, version = "doubled", "1"

        def combine(self, config: dict[str, Any], **t: Any) -> dict[str, Array]:  # noqa: ARG002 - not of the config
            y = t["rows"] * 0 if t["rows"].size else t["rows"]
            return {"y": np.ones((t["topk_weight"].shape[0], t["rows"].shape[1]), np.float32) + y.sum()}

    failed = [result("combine-ordinary", "fail", stage="y", error_over_bound=ratio) for ratio in (5.0,)]
    failed += [result("combine-shuffled", "fail", stage="y", error_over_bound=9.0)]
    failed += [result("combine-holes", "pass", stage="y", error_over_bound=0.9)]
    found = hottest(failed, InProcess(Doubled()))
    assert found is not None
    assert (found.case, found.stage) == ("combine-shuffled", "y")
    assert found.cells.max() > 1
    assert found.cells.shape[0] <= found.cells.shape[1]
    assert hottest(failed[2:], InProcess(Doubled())) is None
    assert hottest(failed, InProcess(type("Silent", (), {}))) is None


def test_strips_cover_every_cell_once() -> None:
    """The picture's runs of one colour, put side by side, are its rows; colours rise with the error."""
    cells = np.array([[0, 0, 0.3, 0.9, 5.0, 5.0], [2.0, 1e9, np.inf, np.inf, 0, 0]])
    drawn = strips(cells)
    assert [sum(s.width for s in drawn if s.row == row) for row in (0, 1)] == [6, 6]
    edges = levels(cells)
    assert list(edges) == sorted(edges)
    colours = [[s.level for s in drawn if s.row == row for _ in range(s.width)] for row in (0, 1)]
    assert colours[0] == [0, 0, 1, 2, 3, 3]
    assert colours[1] == [3, len(edges), len(edges), len(edges), 0, 0]
    html = page(
        log_of(result("gate-ordinary", "fail")), Heat("gate-ordinary", "y", cells, (2, 6), ("tokens", "hidden"))
    )
    assert html.count('<rect class="h') == len(drawn)


def test_histograms_hold_every_measured_case() -> None:
    """Bars left of 1 are right, bars beyond it are not, and what lies off the axis is in the bar at its end."""
    ratios = [0.0, 1e-9, 0.3, 1.0, 1.5, 20.0, 1e30, float("inf")]
    names = [case.id for case in all_cases().values() if case.op == "gate"]
    results = [result(n, error_over_bound=r) for n, r in zip(names, ratios, strict=False)] + [result(names[-1])]
    (found,) = histograms(results)
    assert (found.measured, found.cases, sum(bar.cases for bar in found.bars)) == (8, 9, 8)
    assert sum(bar.cases for bar in found.bars if bar.beyond) == 4
    axis = axis_of(results)
    assert [place(r, axis) for r in (0.0, 1e-9, 1e30, float("inf"))] == [0, 0, axis.bars - 1, axis.bars - 1]
    one = next(at for at, name in axis.ticks if name == "1")
    assert place(0.999, axis) == one - 1
    assert place(1.001, axis) == one


def test_a_failure_counts_for_the_clauses_of_its_stage() -> None:
    """For its other clauses it stands elsewhere; a pass counts for all of them."""
    case = next(c for c in all_cases().values() if {"GATE-5", "GATE-6"} <= set(c.clauses))
    bad, good = result(case.id, "fail", stage="topk_weight"), result(case.id)
    rows = {row.name: row.counts for row in by_clause([bad, good])}
    assert (rows["GATE-6"]["fail"], rows["GATE-6"]["pass"]) == (1, 1)
    assert (rows["GATE-5"][ELSEWHERE], rows["GATE-5"]["fail"]) == (1, 0)


def test_who_explains_most_is_suspected_first() -> None:
    """Then who explains to the bit."""
    some = [("a", "exact"), ("b", "bounded")], [("b", "bounded")], [("c", "exact")], [("d", "bounded")]
    found = [{"suspects": tuple({"mutant": m, "match": how} for m, how in pairs)} for pairs in some]
    assert [s.slug for s in suspects([result("gate-ordinary", "fail", **more) for more in found])] == [
        "b",
        "a",
        "c",
        "d",
    ]
    assert suspects([result("gate-ordinary", "xfail", **found[0])]) == []


def known(folder: Path, text: str) -> str:
    """A file of known failures."""
    (folder / "known.txt").write_text(text)
    return str(folder / "known.txt")


@pytest.mark.parametrize(
    "line",
    [
        "xfail ties-groups",
        "xfail",
        "skip ties-groups because",
        "waive ties-groups because",
        "waive ties-groups https://example.org/1",
    ],
)
def test_a_malformed_line_of_known_failures_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    """Exit 2, before anything is run."""
    path = known(tmp_path, f"# ours\n\n{line}\n")
    code, said = moespec("check", "reference", "--profile", "ties", "--expected-failures", path)
    assert code == 2
    assert f"{path}:3: " in "".join(said.split("\n"))


def test_known_failures_that_cannot_be_read_are_usage(tmp_path: Path) -> None:
    """No file, or none of text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "bytes"):
        assert moespec("check", "reference", "--expected-failures", str(tmp_path / name))[0] == 2


def test_known_failures_excuse_and_their_reasons_are_kept(tmp_path: Path) -> None:
    """xfail and waive: exit 0, even when strict; the reason stands in every report, and no badge counts them."""
    path = known(tmp_path, "xfail ties-groups the bias leaks\nwaive ties-bound* https://example.org/1 agreed\n")
    code, said = moespec("check", BUGGY, *TIES, "--expected-failures", path, "--strict", "--report", str(tmp_path))
    assert code == 0, said
    assert read(tmp_path).counts == {"pass": 3, "xfail": 1, "waived": 1}
    for name in ("junit.xml", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "the bias leaks" in text
        assert "https://example.org/1 agreed" in text
    badge = json.loads((tmp_path / "badge.json").read_text(encoding="utf-8"))
    assert (badge["message"], badge["color"]) == ("part of ties 3/5", "green")


@pytest.mark.parametrize(
    ("lines", "stale_lines"),
    [
        ("xfail nothing-* gone", [1]),
        ("waive gate-* https://example.org/1 all of it passes", [1]),
        ("waive ties-* https://example.org/1 agreed\nxfail ties-groups hidden by the line above", [2]),
        ("# ours\nxfail ties-groups it leaks", []),
    ],
)
def test_a_line_that_excuses_nothing_is_stale(tmp_path: Path, lines: str, stale_lines: list[int]) -> None:
    """It matches nothing, or nothing that fails, or only what an earlier line speaks of."""
    path = known(tmp_path, lines)
    results = [result("gate-ordinary"), result("ties-groups", "fail")]
    found = stale(read_known(Path(path)), results)
    assert [line.rpartition(": ")[0] for line in found] == [f"{path}:{number}" for number in stale_lines]
    assert stale(read_known(Path(path)), [apply(r, read_known(Path(path))) for r in results]) == found


def test_what_is_stale_or_gone_fails_when_strict(tmp_path: Path) -> None:
    """Told either way; with --strict exit 1, and failures in JUnit."""
    path = known(tmp_path, "xfail ties-groups it leaks\nxfail nothing-* gone\n")
    asked = ("check", "reference", *TIES, "--expected-failures", path, "--report", str(tmp_path))
    code, said = moespec(*asked)
    assert (code, said.count("excuses nothing")) == (0, 2)
    assert read(tmp_path).counts["xpass"] == 1
    assert f"{path}:2" in (tmp_path / "summary.md").read_text(encoding="utf-8").replace("\\", "")
    assert not ET.parse(tmp_path / "junit.xml").getroot().findall(".//failure")  # noqa: S314 - our own file
    assert moespec(*asked, "--strict")[0] == 1
    failures = ET.parse(tmp_path / "junit.xml").getroot().findall(".//failure")  # noqa: S314 - our own file
    assert [failure.get("type") for failure in failures] == ["xpass", "stale", "stale"]
