"""Whether an implementation answers as a mutant does: bit for bit, within the mutant's own bounds, or nearly.

A mutant is code, so it has a float32 answer, and by the `Bounded` reading an answer with bounds, as the reference has:
what is within them may be that mutant, computed in another order.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from moespec_conformance.diagnosis.evidence import Evidence, beyond, comparable, distance, legible
from moespec_conformance.judging import ask, judged
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.adapter import Adapter
from moespec_conformance.mutants.reach import shows
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import BAD, Tensors
from moespec_conformance.runner import InProcess

NEAR = 0.3  # of the error left: more, and a mutant explains too little to be named
SURE = 0.01  # of the error left: no more, and a mutant explains the failure, though no bound says so
WORTH = 0.7  # of the error left: more, and no bound can make it a match
LOADED = 2048  # mutants and pairs of them kept at a time
RANKS = ("exact", "bounded", "near")


class Match(NamedTuple):
    """A mutant ("slug", or "slug+slug") that answers like the implementation, and what share of the error it leaves."""

    mutant: str
    match: str  # exact | bounded | near
    left: float

    @property
    def sure(self) -> bool:
        """Whether it explains the failure."""
        return self.match != "near" or self.left <= SURE

    @property
    def rank(self) -> tuple[int, float]:
        """The better match first."""
        return RANKS.index(self.match), self.left


def weight(found: Sequence[Match]) -> tuple[float, ...]:
    """To sort by: who explains most first, then who does it exactly, who was seen oftenest, and who leaves least."""
    ranks, left = sum(made.rank[0] for made in found), sum(made.left for made in found)
    return -len(found), ranks, -seen_in(found[0].mutant), left


def seen_in(mutant: str) -> int:
    """In how many places a bug was seen; of two together, the one that was seen less."""
    return min(MUTANTS[slug].cite.count(";") for slug in mutant.split("+"))


@lru_cache(LOADED)
def loaded(name: str) -> InProcess:
    """A mutant, or several together, ready to be asked."""
    return InProcess(Adapter(name))


def candidates(seen: Evidence) -> list[str]:
    """The mutants that can show in this case at all."""
    return [slug for slug, mutant in MUTANTS.items() if shows(mutant, seen.functions, seen.case)]


def matches(seen: Evidence, names: Iterable[str]) -> list[Match]:
    """Those of these mutants that answer like the implementation, best first."""
    found = [made for name in names if (made := match(seen, name))]
    return sorted(found, key=lambda made: made.rank)


def match(seen: Evidence, name: str) -> Match | None:
    """How well one mutant explains what was seen; nothing if it does not."""
    if seen.case.kind in ("reject", "relation"):
        return same_failure(seen, name)
    reply = ask(seen.case, loaded(name), seen.case.inputs)
    if reply.happened != seen.happened:
        return None
    if seen.happened != "answered":
        return Match(name, "exact", 0.0)
    return likeness(seen, name, legible(seen.case, reply))


def likeness(seen: Evidence, name: str, theirs: Tensors) -> Match | None:
    """How much an answer is like the mutant's."""
    left = unexplained(seen, theirs)
    if left > WORTH:
        return None
    if all(n in theirs and distance(a, theirs[n]) == 0 for n, a in seen.given.items()):
        return Match(name, "exact", 0.0)
    if within(seen, name):
        return Match(name, "bounded", left)
    return Match(name, "near", left) if left <= NEAR else None


def nearest(seen: Evidence, names: Iterable[str]) -> list[str]:
    """These mutants by how much of the error they leave, the least first; those that leave all of it are left out."""
    left: dict[str, float] = {}
    for name in names:
        reply = ask(seen.case, loaded(name), seen.case.inputs)
        if reply.happened == "answered" == seen.happened:
            left[name] = unexplained(seen, legible(seen.case, reply))
    return sorted((name for name in left if left[name] < 1), key=lambda name: left[name])


def same_failure(seen: Evidence, name: str) -> Match | None:
    """A mutant that fails a case of another kind in the same way: it computes what must be refused, and alike."""
    if judged(seen.case, loaded(name)).status not in BAD:
        return None
    reply = ask(seen.case, loaded(name), seen.case.inputs)
    theirs = legible(seen.case, reply)
    alike = reply.happened == seen.happened and seen.given.keys() == theirs.keys()
    alike = alike and all(distance(a, theirs[n]) == 0 for n, a in seen.given.items())
    return Match(name, "exact" if alike else "bounded", 0.0) if reply.happened == seen.happened else None


def unexplained(seen: Evidence, theirs: Tensors) -> float:
    """The share of the error that is still there beside the mutant's answer, of the output it explains least."""
    shares: list[float] = []
    for name, error in seen.error.items():
        rest = distance(seen.given[name], theirs[name]) if name in theirs else np.inf
        shares.append(float(error == 0) if rest == 0 else 1.0 if np.isinf(error) or not error else rest / error)
    return max(shares, default=1.0)


def within(seen: Evidence, name: str) -> bool:
    """Whether the answer lies within the mutant's bounds; a mutant that no bound can follow has none."""
    case, source = seen.case, loaded(name).adapter.source
    try:
        known = answer(case, source=source)
    except (TypeError, ValueError):
        return False
    theirs = comparable(case, known.values)
    return all(n in theirs and not beyond(n, a, theirs, known, case) for n, a in seen.given.items())
