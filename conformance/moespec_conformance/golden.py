"""The golden corpus: cases as files, with answers and bounds that every machine computes to the same bytes."""

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moespec_conformance import tensors
from moespec_conformance.cases import all_cases
from moespec_conformance.expecting import expected
from moespec_conformance.flags import all_flags, flags_of
from moespec_conformance.generator import Generated, generate, named
from moespec_conformance.judge.relation import pairs
from moespec_conformance.members import FLOOR, VERSION, member_ids
from moespec_conformance.protocol import Array, Case, Tensors

FORMAT = "2.0"
HARDWARE = "hardware"  # what real tensor cores gave lies beside the corpus, and is none of it: nothing here rebuilds it


def members() -> list[Case]:
    """The cases of the corpus."""
    return [all_cases()[name] for name in member_ids()]


def prompt(case: Case) -> dict[str, Any]:
    """What an implementer is told."""
    told = {"format": FORMAT, "id": case.id, "op": case.op, "config": dict(case.config), "arithmetic": case.arithmetic}
    return {**told, "clauses": list(case.clauses), "note": case.note}


def generated(case: Case) -> dict[str, Generated]:
    """The inputs that the generator makes: whoever asks can make them too."""
    made = {name: named(name, *tensor.shape) for name, tensor in case.inputs.items() if name.endswith("_proj")}
    return {name: one for name, one in made.items() if np.array_equal(generate(one), case.inputs[name])}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, one way only."""
    path.write_bytes(as_json(content))


def as_json(content: dict[str, Any]) -> bytes:
    """JSON, one way only."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def write_case(root: Path, case: Case) -> None:
    """One folder: the question, what is expected, and what it is compared with."""
    folder = root / case.op / case.id
    write_question(folder, case, {})
    told, out = expected(case)
    write_json(folder / "expected.json", {"format": FORMAT, "id": case.id, "flags": flags_of(case.id), **told})
    if case.good:
        write_question(folder / "good", case.good, case.inputs)
    if case.kind == "relation":
        for index, inputs in enumerate(pairs(case)[0].calls[1:], 1):
            changed = {name: tensor for name, tensor in inputs.items() if tensor is not case.inputs[name]}
            tensors.write(folder / f"call-{index}.safetensors", changed)
    if out:
        tensors.write(folder / "out.safetensors", out)


def write_question(folder: Path, case: Case, known: Tensors) -> None:
    """prompt.json and in.safetensors, but for what the generator makes, and what is known already."""
    folder.mkdir(parents=True)
    made = generated(case)
    told = {"generated": {name: one.told() for name, one in made.items()}} if made else {}
    write_json(folder / "prompt.json", {**prompt(case), **told})
    same = {name for name, tensor in known.items() if alike(tensor, case.inputs.get(name))}
    tensors.write(folder / "in.safetensors", {n: t for n, t in case.inputs.items() if n not in made and n not in same})


def alike(a: Array, b: Array | None) -> bool:
    """The same dtype, shape and bytes."""
    return b is not None and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def manifest(root: Path) -> dict[str, Any]:
    """SHA-256 of every file of the corpus, and one of them all."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name not in ("MANIFEST.json", "README.md"))
    hashes = {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    whole = hashlib.sha256("".join(f"{name} {value}\n" for name, value in hashes.items()).encode()).hexdigest()
    told = {"format": FORMAT, "version": VERSION, "cases": len(member_ids()), "profiles": dict(sizes())}
    return {**told, "root": whole, "files": hashes}


def sizes() -> Counter[str]:
    """How many cases of each profile are in the corpus."""
    return Counter(profile for case in members() for profile in case.profiles)


def thin() -> list[str]:
    """Profiles with fewer cases than they must have: a corpus that shrinks must not pass."""
    held = sizes()
    return [f"profile {p}: {held[p]} cases, fewer than {least}" for p, least in FLOOR.items() if held[p] < least]


def build(root: Path, on_case: Callable[[Case], None] | None = None) -> int:
    """Write the whole corpus into an empty folder: the number of cases."""
    cases = members()
    for case in cases:
        write_case(root, case)
        if on_case:
            on_case(case)
    write_json(root / "flags.json", {"format": FORMAT, "flags": all_flags(member_ids())})
    write_json(root / "MANIFEST.json", manifest(root))
    return len(cases)


def rebuild(root: Path, on_case: Callable[[Case], None] | None = None) -> int:
    """Replace the corpus in root by one built apart, so that a failure changes nothing; README.md and hardware stay."""
    with tempfile.TemporaryDirectory(dir=root.parent) as made:
        count = build(Path(made), on_case)
        for old in [p for p in root.iterdir() if p.is_dir() and p.name != HARDWARE]:
            shutil.rmtree(old)
        for new in Path(made).iterdir():
            shutil.move(new, root / new.name)
    return count


def differences(root: Path, on_case: Callable[[Case], None] | None = None) -> list[str]:
    """What a fresh build has that root has not, or otherwise: one line a file."""
    with tempfile.TemporaryDirectory() as made:
        build(Path(made), on_case)
        return compared(Path(made), root) + thin()


def compared(fresh: Path, held: Path) -> list[str]:
    """One line for each file that is missing, too many, or other than in a fresh build. No link is followed."""
    ours, theirs = names(fresh), names(held)
    found = [f"missing: {name}" for name in sorted(ours - theirs)]
    found += [f"not of the corpus: {name}" for name in sorted(theirs - ours)]
    return found + [
        f"other bytes: {name}" for name in sorted(ours & theirs) if not same((fresh / name).read_bytes(), held / name)
    ]


def names(root: Path) -> set[str]:
    """Whatever is in a corpus, folders apart: files, links, pipes; but not what lies in a real folder `hardware`."""
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    return {name for name in found if name != "README.md" and not name.startswith(f"{HARDWARE}/")}


def same(content: bytes, held: Path) -> bool:
    """A regular file with these bytes, which can be read."""
    try:
        return tensors.bytes_of(held, len(content)) == content
    except (OSError, ValueError):
        return False
