"""Vectors in a folder, as golden/hardware/README.md describes it: written whole or not at all, read by every hash.

manifest.json says what was asked, of what device, and what came of it, with the hash of vectors.safetensors and one of
itself; vectors.safetensors has a, b, c and d of each group.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from problems import F32, Problems

from moespec_conformance import tensors

FORMAT = "1.0"
MANIFEST, VECTORS = "manifest.json", "vectors.safetensors"


class Recorded(NamedTuple):
    """Problems, and what the device answered."""

    problems: Problems
    d: F32  # (n, M, N)


class DamagedError(ValueError):
    """A folder that does not hold what was written."""


def write(folder: Path, told: dict[str, Any], recorded: list[Recorded]) -> None:
    """Write a folder, or replace it: beside it first, so that one that is not whole never stands there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        held = tensors.packed({f"{r.problems.name}/{k}": t for r in recorded for k, t in content(r).items()})
        (made / VECTORS).write_bytes(held)
        groups = [group(r.problems) for r in recorded]
        told = {**told, "format": FORMAT, "vectors": hashlib.sha256(held).hexdigest(), "groups": groups}
        (made / MANIFEST).write_bytes(as_json({**told, "manifest": digest(told)}))
        made.chmod(0o755)
        old = made / "old"
        if folder.exists():
            folder.rename(old)
        made.rename(folder)
        shutil.rmtree(folder / "old", ignore_errors=True)
    except BaseException:
        if (made / "old").exists():
            (made / "old").rename(folder)
        shutil.rmtree(made, ignore_errors=True)
        raise


def content(recorded: Recorded) -> dict[str, Any]:
    """A group's tensors."""
    p = recorded.problems
    return {"a": p.a, "b": p.b, "c": p.c, "d": recorded.d}


def group(p: Problems) -> dict[str, Any]:
    """A group's words."""
    return {"name": p.name, "fmt": p.fmt, "promote": p.promote, "said": list(p.said), "free": p.free}


def as_json(told: dict[str, Any]) -> bytes:
    """JSON, one way only."""
    return (json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def digest(told: dict[str, Any]) -> str:
    """The hash of a manifest, but for this very hash."""
    return hashlib.sha256(as_json({k: v for k, v in told.items() if k != "manifest"})).hexdigest()


def read(folder: Path) -> tuple[dict[str, Any], list[Recorded]]:
    """The manifest and all groups; DamagedError if a byte of either file is another."""
    try:
        text = tensors.bytes_of(folder / MANIFEST)
        told: dict[str, Any] = json.loads(text)
        if as_json(told) != text or told["manifest"] != digest(told) or told["format"] != FORMAT:
            raise DamagedError(f"{folder / MANIFEST} is not as it was written")
        if hashlib.sha256(tensors.bytes_of(folder / VECTORS)).hexdigest() != told["vectors"]:
            raise DamagedError(f"{folder / VECTORS} is not as it was written")
        held = tensors.read(folder / VECTORS)
        return told, [regrouped(g, held) for g in told["groups"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{folder}: {error}") from error


def regrouped(told: dict[str, Any], held: dict[str, Any]) -> Recorded:
    """A group by its words and tensors."""
    a, b, c, d = (held[f"{told['name']}/{key}"] for key in "abcd")
    said = tuple(told["said"])
    return Recorded(Problems(told["name"], told["fmt"], told["promote"], a, b, c, said, None, told["free"]), d)
