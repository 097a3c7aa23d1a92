"""The golden corpus: the same bytes on every machine, readable by strangers, and refused when damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from stranger import Run, element, judge

from moespec.signatures import OPS
from moespec_conformance import golden, tensors
from moespec_conformance.adapters.plain import Adapter as Plain
from moespec_conformance.adapters.reference import compute
from moespec_conformance.cases import PROFILES, all_cases
from moespec_conformance.checking import Damaged
from moespec_conformance.corpora import corpus_in, said
from moespec_conformance.generator import generate, named
from moespec_conformance.members import FLOOR, history, member_ids
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.adapter import Adapter as Mutated
from moespec_conformance.spec import clauses, home

ROOT = home("golden")
FLAGS = json.loads((ROOT / "flags.json").read_text())["flags"]
FOLDERS = sorted(path.parent for path in ROOT.glob("*/*/prompt.json"))


def test_a_fresh_build_has_the_same_bytes() -> None:
    """Every file, the manifest included."""
    assert golden.differences(ROOT) == []


@pytest.mark.parametrize("damage", ["flip", "missing", "extra"])
def test_damage_is_found(damage: str, tmp_path: Path) -> None:
    """A flipped bit, a missing file, a file too many."""
    copy = tmp_path / "golden"
    shutil.copytree(ROOT, copy)
    target = next(copy.glob("gate/*/out.safetensors"))
    if damage == "flip":
        data = bytearray(target.read_bytes())
        data[-1] ^= 1
        target.write_bytes(bytes(data))
    elif damage == "missing":
        target.unlink()
    else:
        (target.parent / "notes.txt").write_text("mine")
    assert len(golden.differences(copy)) == 1


def test_what_hardware_gave_is_no_part_of_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no difference, and a rebuild leaves it alone; but a link in that folder's place is a difference."""
    monkeypatch.setattr(golden, "build", lambda made, _=None: (made / "MANIFEST.json").write_text("{}"))
    monkeypatch.setattr(golden, "thin", list)
    held = tmp_path / "golden" / "hardware" / "h100"
    held.mkdir(parents=True)
    (held / "vectors.safetensors").write_bytes(b"kept")
    root = held.parents[1]
    (root / "gate").mkdir()
    golden.rebuild(root)
    assert not (root / "gate").exists()
    assert (held / "vectors.safetensors").read_bytes() == b"kept"
    assert golden.differences(root) == []
    held.parent.rename(tmp_path / "elsewhere")
    (root / "hardware").symlink_to(tmp_path / "elsewhere")
    assert golden.differences(root) == ["not of the corpus: hardware"]


def test_the_corpus_keeps_its_budget() -> None:
    """10 MB in all, and no file over 1 MB."""
    files = [path for path in ROOT.rglob("*") if path.is_file() and golden.HARDWARE not in path.parts]
    sizes = [path.stat().st_size for path in files]
    assert sum(sizes) <= 10_000_000
    assert max(sizes) <= 1_000_000
    assert len(FOLDERS) == json.loads((ROOT / "MANIFEST.json").read_text())["cases"] == len(member_ids())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_stranger_can_judge_by_the_files_alone(folder: Path) -> None:
    """Read the question, run the reference, compare by expected.json: what any reader of the format would do."""
    prompt, told = (json.loads((folder / f"{name}.json").read_text()) for name in ("prompt", "expected"))
    assert set(prompt["clauses"]) <= set(clauses())
    assert "outputs" not in prompt
    assert set(told["flags"]) <= set(FLAGS)
    with np.errstate(all="ignore"):
        assert judge(folder, in_any_batch if told["kind"] == "relation" else reference) == []


def in_any_batch(op: str, config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The second implementation, whose bits do not depend on the batch, as BLAS's do."""
    return dict(getattr(Plain(), op)(config, **inputs))


def reference(op: str, config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The reference, on float32 where tensors are bfloat16."""
    return compute(op, config, **in_float32(inputs))


def in_float32(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the reference takes."""
    return {name: t.astype(np.float32) if t.dtype == ml_dtypes.bfloat16 else t for name, t in inputs.items()}


@pytest.mark.parametrize("slug", sorted(FLAGS)[::12])
def test_a_stranger_finds_bugs_by_the_files_alone(slug: str) -> None:
    """Some case that is flagged with a bug fails for whoever has it."""
    flagged = [f for f in FOLDERS if slug in json.loads((f / "expected.json").read_text())["flags"]]
    mutant = Mutated(slug)

    def run(op: str, config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(getattr(mutant, op)(config, **in_float32(inputs)))

    assert [folder.name for folder in flagged if fails(folder, run)]


def fails(folder: Path, run: Run) -> bool:
    """Whether a case goes wrong: judged so, or by a crash."""
    try:
        with np.errstate(all="ignore"):
            return bool(judge(folder, run))
    except (IndexError, TypeError, KeyError, ZeroDivisionError):
        return True


def test_flags_speak_of_the_catalogue() -> None:
    """Every flag is a mutant, with words and a clause; every one is on some case."""
    used = {flag for folder in FOLDERS for flag in json.loads((folder / "expected.json").read_text())["flags"]}
    assert used == set(FLAGS) <= set(MUTANTS)
    for flag in FLAGS.values():
        assert flag["bugType"] in clauses()
        assert all(flag[key] for key in ("description", "effect", "seenIn"))


def test_every_op_and_every_profile_is_there_and_ids_are_used_once() -> None:
    """And a corpus that shrinks is noticed."""
    assert {case.op for case in golden.members()} == set(OPS)
    assert set(golden.sizes()) == set(PROFILES) == set(FLOOR)
    assert golden.thin() == []
    ids = [name for names in history().values() for name in names]
    assert len(ids) == len(set(ids))
    assert set(ids) <= set(all_cases())


def test_a_corpus_that_shrinks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the floor of one profile, --check says so."""
    monkeypatch.setattr(golden, "member_ids", lambda: tuple(n for n in member_ids() if not n.startswith("ties")))
    assert golden.thin() == ["profile ties: 0 cases, fewer than 1"]


def test_generated_inputs_are_what_ten_lines_make() -> None:
    """The generator of the readme, in plain whole numbers, and the first numbers that it names."""
    one = named("gate_proj", 3, 5, 7)
    assert generate(one).reshape(-1).tolist() == [element(one.seed, i, one.shift) for i in range(105)]
    numbers = [f"{int(element(0, i, 0) * 32768)}/32768" for i in range(4)]
    assert ", ".join(numbers) in (ROOT / "README.md").read_text()
    assert any("generated" in json.loads((folder / "prompt.json").read_text()) for folder in FOLDERS)


def copied(tmp_path: Path, version: str) -> Path:
    """The manifest alone, of another version."""
    told = json.loads((ROOT / "MANIFEST.json").read_text())
    (tmp_path / version).mkdir()
    (tmp_path / version / "MANIFEST.json").write_text(json.dumps({**told, "version": version}))
    return tmp_path / version


def test_versions_say_what_changed(tmp_path: Path) -> None:
    """New cases need a MINOR step, other answers a PATCH, another question under an old id a MAJOR one."""
    new = corpus_in(ROOT)
    name, files = next(iter(new.cases.items()))
    older = {"came": {n: f for n, f in new.cases.items() if n != name}}
    older["answered otherwise"] = {**new.cases, name: {**files, "expected.json": "0"}}
    older["asked otherwise"] = {**new.cases, name: {**files, "prompt.json": "0"}}
    for (word, cases), (needs, version) in zip(
        older.items(), (("MINOR", "1.9.9"), ("PATCH", "2.0.0"), ("MAJOR", "1.0.0")), strict=True
    ):
        lines, _ = said(new._replace(cases=cases, version=version), new)
        assert f"{word}: {name}" in lines
        assert f"needs a step of {needs}" in lines[-1]
    assert not said(new._replace(cases=older["came"]), new)[1]
    assert said(new._replace(cases=older["came"], version="1.9.9"), new)[1]
    with pytest.raises(Damaged):
        corpus_in(copied(tmp_path, "two"))


def test_tensors_of_every_kind_survive_a_file(tmp_path: Path) -> None:
    """Empty, zero-dimensional, transposed, bfloat16, with NaN payloads: the same bits come back."""
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    odd = {
        "transposed": base.T,
        "strided": base[:, ::2],
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3, np.int64),
        "payload": np.array([0x7FC01234, 0x80000000], np.uint32).view(np.float32),
    }
    tensors.write(tmp_path / "t.safetensors", odd)
    back = tensors.read(tmp_path / "t.safetensors")
    for name, tensor in odd.items():
        assert back[name].shape == tensor.shape
        assert back[name].dtype == tensor.dtype
        assert back[name].tobytes() == np.ascontiguousarray(tensor).tobytes(), name
    tensors.write(tmp_path / "again", dict(reversed(odd.items())))
    assert (tmp_path / "t.safetensors").read_bytes() == (tmp_path / "again").read_bytes()
