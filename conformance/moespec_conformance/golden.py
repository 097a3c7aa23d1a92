"""The golden corpus: cases as files, with answers and bounds that every machine computes to the same bytes."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moespec_conformance import tensors
from moespec_conformance.cases import all_cases
from moespec_conformance.judge.verdict import certain, nearest
from moespec_conformance.oracle import answer, choices
from moespec_conformance.protocol import Array, Case, Tensors
from moespec_conformance.readings.portable import plain

FORMAT = "1.0"
PROFILES = ("deepseek-v3", "ties")
LAYERS = ("ordinary", "corridor-bfloat16")  # a layer's weights are heavy
# the most numbers that the inputs of a case may hold together: the whole corpus stays within 10 MB
LARGEST = {
    "gate": 6000,
    "gate_backward": 9000,
    "expert": 9000,
    "expert_backward": 11500,
    "dispatch": 4400,
    "combine": 12500,
}
FLOOR = 100  # cases; fewer, and the corpus has been damaged


def members() -> list[Case]:
    """The cases of the corpus."""
    return [case for case in all_cases().values() if set(case.profiles) & set(PROFILES) and is_small(case)]


def is_small(case: Case) -> bool:
    """A layer that is listed, or anything else of moderate size; how an op is called does not show in files."""
    if case.manner != "plain":
        return False
    if case.op.startswith("moe"):
        return case.id.removeprefix(case.op.replace("_", "-") + "-") in LAYERS
    return sum(tensor.size for tensor in case.inputs.values()) <= LARGEST[case.op]


def up(bound: Array) -> Array:
    """Bounds as float32, rounded up."""
    single = bound.astype(np.float32)
    return np.where(single < bound, np.nextafter(single, np.float32(np.inf)), single)


def prompt(case: Case) -> dict[str, Any]:
    """What an implementer is told."""
    told = {"format": FORMAT, "id": case.id, "op": case.op, "config": dict(case.config), "arithmetic": case.arithmetic}
    return {**told, "clauses": list(case.clauses), "note": case.note}


def expected(case: Case, *, portable: bool = True) -> tuple[dict[str, Any], Tensors]:
    """How each output is judged, and with what numbers: the same on every machine, unless that does not matter."""
    right = answer(case, portable=portable)
    kinds: dict[str, str] = {}
    out: Tensors = {}
    for name, value in right.values.items():
        kinds[name], more = judged_by(case, name, value, right.bounds)
        out |= more
    if kinds.get("topk_idx") == "selection":
        out |= selection(case, portable=portable)
    return {"format": FORMAT, "id": case.id, "kind": case.kind, "outputs": kinds}, out


def judged_by(case: Case, name: str, value: Array, bounds: Tensors) -> tuple[str, Tensors]:
    """One output's kind of check, its answer and its bound."""
    if name == "topk_idx" and name not in case.inputs and not certain(case.cfg):
        return "selection", {name: value.astype(np.int64)}
    if value.dtype.kind in "iu":
        return "exact", {name: value.astype(np.int64)}
    if case.kind == "exact" or name not in bounds:
        return "exact", {name: nearest(case, name, value).astype(np.float32)}
    once = value.astype(np.float32)
    return "bounded", {name: once, f"{name}.bound": up(bounds[name] + np.abs(once.astype(np.float64) - value))}


def selection(case: Case, *, portable: bool) -> Tensors:
    """What the gate chooses by: scores with bias, and groups, each with bounds."""
    choice, groups = choices(case, portable=portable)
    pairs = {"choice": choice} | ({} if groups is None else {"group_scores": groups})
    made: Tensors = {}
    for name, pair in pairs.items():
        value, once = plain(pair.v), plain(pair.v).astype(np.float32)
        made |= {name: once, f"{name}.bound": up(plain(pair.e) + np.abs(once.astype(np.float64) - value))}
    return made


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, one way only."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_case(root: Path, case: Case) -> None:
    """One folder: prompt.json and in.safetensors; expected.json and out.safetensors."""
    folder = root / case.op / case.id
    folder.mkdir(parents=True)
    told, out = expected(case)
    write_json(folder / "prompt.json", prompt(case))
    write_json(folder / "expected.json", told)
    tensors.write(folder / "in.safetensors", case.inputs)
    tensors.write(folder / "out.safetensors", out)


def manifest(root: Path) -> dict[str, Any]:
    """SHA-256 of every file of the corpus, and one of them all."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.parent != root)
    hashes = {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    whole = hashlib.sha256("".join(f"{name} {value}\n" for name, value in hashes.items()).encode()).hexdigest()
    return {
        "format": FORMAT,
        "cases": sum(name.endswith("prompt.json") for name in hashes),
        "root": whole,
        "files": hashes,
    }


def build(root: Path, on_case: Callable[[Case], None] | None = None) -> int:
    """Write the whole corpus into an empty folder: the number of cases."""
    cases = members()
    for case in cases:
        write_case(root, case)
        if on_case:
            on_case(case)
    write_json(root / "MANIFEST.json", manifest(root))
    return len(cases)


def rebuild(root: Path, on_case: Callable[[Case], None] | None = None) -> int:
    """Replace the corpus in root by one built apart, so that a build that fails changes nothing; README.md stays."""
    with tempfile.TemporaryDirectory(dir=root.parent) as made:
        count = build(Path(made), on_case)
        for old in [p for p in root.iterdir() if p.is_dir()]:
            shutil.rmtree(old)
        for new in Path(made).iterdir():
            shutil.move(new, root / new.name)
    return count


def differences(root: Path, on_case: Callable[[Case], None] | None = None) -> list[str]:
    """What a fresh build has that root has not, or otherwise: one line a file."""
    with tempfile.TemporaryDirectory() as made:
        build(Path(made), on_case)
        fresh, held = contents(Path(made)), contents(root)
    found = [f"missing: {name}" for name in sorted(fresh.keys() - held.keys())]
    found += [f"not of the corpus: {name}" for name in sorted(held.keys() - fresh.keys())]
    found += [f"other bytes: {name}" for name in sorted(fresh.keys() & held.keys()) if fresh[name] != held[name]]
    return found + ([f"only {len(members())} cases"] if len(members()) < FLOOR else [])


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a corpus by its name, README.md apart."""
    files = (p for p in root.rglob("*") if p.is_file() and p.name != "README.md")
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}
