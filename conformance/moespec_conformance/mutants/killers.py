"""Who killed each mutant when the whole matrix was last run: killers.json, which `moespec mutants --record` writes.

Asking only these tells in a fraction of the time whether every mutant is still killed.
"""

import json
from importlib.resources import files

RECORD = "killers.json"
KEPT = 3  # killers of each


def recorded() -> dict[str, list[str]]:
    """By mutant: the cases that kill it, the surest first."""
    path = files("moespec_conformance.mutants").joinpath(RECORD)
    held: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return held


KILLERS = recorded()
