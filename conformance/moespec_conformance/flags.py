"""flags.json: what each case of the corpus would show, bug by bug, out of the catalogue of mutants."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.killers import RECORDED
from moespec_conformance.mutants.mutant import Mutant
from moespec_conformance.report.words import linked

EFFECT = {
    "forward": "wrong outputs, in training and in use",
    "backward": "wrong gradients; outputs stay right",
    "training": "wrong updates between steps",
    "config": "bad input is computed with instead of refused",
}
PAGE = re.compile(r"https?://[^\s;,)]+")


@cache
def by_case() -> dict[str, list[str]]:
    """Mutants by the cases that are recorded to kill them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for slug, record in RECORDED.items():
        for name in record.killers:
            found[name].append(slug)
    return found


def flags_of(case: str) -> list[str]:
    """The bugs that a case shows for certain."""
    return sorted(by_case().get(case, []))


def all_flags(cases: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Every flag that any of these cases has, in words."""
    return {slug: told(MUTANTS[slug]) for slug in sorted({slug for case in cases for slug in flags_of(case)})}


def told(mutant: Mutant) -> dict[str, Any]:
    """One flag: what the bug is, when it shows, what it spoils, where it was seen."""
    return {
        "bugType": mutant.clause,
        "description": mutant.symptom,
        "shownBy": mutant.trigger,
        "effect": EFFECT[mutant.direction],
        "seenIn": mutant.cite,
        "links": links(mutant.cite),
    }


def links(cite: str) -> list[str]:
    """Addresses of the threads and pages that a citation names."""
    return [address for _, address in linked(cite) if address] + PAGE.findall(cite)
