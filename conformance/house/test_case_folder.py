"""Cases in folders: what is written is read back the same, and what is damaged or hostile is refused in words."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_check import EXAMPLES, moespec

from moespec.signatures import OPS
from moespec_conformance import tensors
from moespec_conformance.address import Usage
from moespec_conformance.case_folder import case_from, prompt_of, write
from moespec_conformance.cases import all_cases

PLAIN = [case for case in all_cases().values() if case.kind not in ("reject", "relation")]
# one of every op: ids, tables, masks, packed bits, scales as bytes, scalars
SOME = [next(case.id for case in PLAIN if case.op == op) for op in OPS]
SOME += ["gate-bfloat16-bias-minus-one", "gate-expert-choice-ordinary"]


def written(folder: Path, name: str = "gate-one-token", **more: str) -> Path:
    """A folder of one of the suite's cases."""
    write(folder, all_cases()[name], **more)
    return folder


def changed(folder: Path, **words: Any) -> Path:
    """The same with other words in prompt.json."""
    told = json.loads((folder / "prompt.json").read_text())
    (folder / "prompt.json").write_text(json.dumps({**told, **words}))
    return folder


@pytest.mark.parametrize("name", SOME)
def test_a_folder_holds_the_whole_case(name: str, tmp_path: Path) -> None:
    """Config, inputs bit by bit, kind and arithmetic."""
    case, read = all_cases()[name], case_from(written(tmp_path, name))
    assert (read.id, read.op, read.cfg, read.arithmetic) == (case.id, case.op, case.cfg, case.arithmetic)
    assert (read.kind, read.manner, read.note) == (case.kind, case.manner, case.note)
    assert set(read.clauses) == set(case.clauses)
    assert {n: (t.dtype, t.shape, t.tobytes()) for n, t in read.inputs.items()} == {
        n: (t.dtype, t.shape, t.tobytes()) for n, t in case.inputs.items()
    }


def test_manner_and_property_stand_in_the_prompt(tmp_path: Path) -> None:
    """How an op is called, and which property a counterexample breaks."""
    name = next(case.id for case in all_cases().values() if case.manner == "again")
    told = prompt_of(written(tmp_path, name, property="gate: weights sum to the scale"))
    assert (told.manner, told.property) == ("again", "gate: weights sum to the scale")
    assert case_from(tmp_path).manner == "again"


@pytest.mark.parametrize(
    "words",
    [
        {"format": "1.0"},
        {"id": "[/bold]"},
        {"id": 7},
        {"op": "gates"},
        {"op": ["gate"]},
        {"arithmetic": "float64"},
        {"config": []},
        {"config": {}},
        {"clauses": "GATE-1"},
        {"manner": "twice"},
    ],
    ids=str,
)
def test_words_that_are_none_are_refused(words: dict[str, Any], tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(Usage, match=next(iter(words)) if words != {"config": {}} else "CFG-10"):
        case_from(changed(written(tmp_path), **words))


@pytest.mark.parametrize(
    ("field", "value", "clause"),
    [
        ("n_group", 3, "CFG-3"),
        ("hidden_size", 65, "ARR-5"),
        ("n_routed_experts", 2**40, "n_routed_experts"),
        ("scoring_func", {"a": 1}, "CFG-11"),
        ("block", "ab", "CFG-18"),
        ("hidden_size", None, "CFG-1"),
    ],
)
def test_configs_and_tensors_are_checked(field: str, value: Any, clause: str, tmp_path: Path) -> None:
    """By the reference's own checks, whose clause is named."""
    config = {**all_cases()["gate-one-token"].config, field: value}
    with pytest.raises(Usage, match=clause):
        case_from(changed(written(tmp_path), config=config))


def test_more_group_sets_than_can_be_looked_at_are_refused(tmp_path: Path) -> None:
    """The judge tries them all."""
    config = {**all_cases()["gate-one-token"].config, "n_routed_experts": 64, "n_group": 32, "topk_group": 16}
    tensors.write(written(tmp_path) / "in.safetensors", {"x": np.zeros((1, 64), np.float32)})
    with pytest.raises(Usage, match="ways to choose"):
        case_from(changed(tmp_path, config=config))


def test_damaged_files_are_refused_or_are_other_cases(tmp_path: Path) -> None:
    """Whatever bytes are flipped, cut off or doubled: a case, or a Usage error."""
    chance, refused = random.Random(1), 0  # noqa: S311 - reproducible
    whole = {name: (written(tmp_path) / name).read_bytes() for name in ("prompt.json", "in.safetensors")}
    for _ in range(200):
        name = chance.choice(list(whole))
        data = bytearray(whole[name])
        at = chance.randrange(len(data) if name == "prompt.json" else 400)
        data[at : at + chance.choice((0, 1, 50))] = chance.choice((b"", b"\xff", b"9", b"{", data[:at]))
        (tmp_path / name).write_bytes(bytes(data))
        try:
            case_from(tmp_path)
        except Usage:
            refused += 1
        (tmp_path / name).write_bytes(whole[name])
    assert refused > 100


def test_the_command_asks_and_explains_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path, which the panel names; a path without a case is a mistake of the caller."""
    monkeypatch.chdir(tmp_path)
    written(Path("mine"), "gate-bias-minus-one")
    assert moespec("check", "--case", "mine").returncode == 0
    buggy = moespec("check", str(EXAMPLES / "buggy_gate.py"), "--case", "./mine", "--report", "report")
    assert buggy.returncode == 1
    assert "--case mine" in buggy.stdout
    assert "gate-bias-minus-one" in moespec("explain", "./mine").stdout
    assert moespec("check", "--case", "./other").returncode == 2
    assert moespec("explain", "./other").returncode == 2
