"""What the whole matrix last found: killers.json, which `moespec mutants --record` writes.

Asking a mutant's recorded killers only tells in a fraction of the time whether it is still killed.
"""

import json
from importlib.resources import as_file, files
from typing import Any, NamedTuple


class Record(NamedTuple):
    """Of one mutant: the cases that kill it, the surest first; by how much; the mutants that no case tells from it."""

    killers: tuple[str, ...]
    margin: float
    alike: tuple[str, ...]


FILE = files("moespec_conformance.mutants").joinpath("killers.json")
KEPT = 3  # killers of each


def recorded() -> dict[str, Record]:
    """By mutant; nothing before the first record."""
    held: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    return {slug: Record(tuple(one["killers"]), one["margin"], tuple(one["alike"])) for slug, one in held.items()}


def record(found: dict[str, Record]) -> None:
    """Keep what was found, one line a mutant."""
    lines = [f"{json.dumps(slug)}: {json.dumps(one._asdict())}" for slug, one in sorted(found.items())]
    with as_file(FILE) as path:
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


RECORDED = recorded()
