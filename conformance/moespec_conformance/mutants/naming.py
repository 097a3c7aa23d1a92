"""Is a mutant called by its name? Its bug, in other arithmetic, is put before the diagnosis as if it were unknown."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from moespec.signatures import OPS
from moespec_conformance.cases import all_cases
from moespec_conformance.diagnosis.evidence import evidence
from moespec_conformance.diagnosis.matching import Match, candidates, matches, weight
from moespec_conformance.judging import judged
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants import arithmetics as how
from moespec_conformance.mutants.adapter import compute
from moespec_conformance.mutants.killers import RECORDED
from moespec_conformance.runner import InProcess
from moespec_conformance.source import load

OTHERWISE = how.instead(how.backwards, how.backwards_total)


class Stranger:
    """Somebody's implementation with this bug: every sum from its last term on, so its bits are not the mutant's."""

    name, version = "stranger", "0"

    def __init__(self, slug: str) -> None:
        """Load it."""
        self.source = load(MUTANTS[slug].edits, OTHERWISE)

    def __getattr__(self, op: str) -> Any:  # noqa: ANN401 - a method per op
        """One method per op."""
        if op not in OPS:
            raise AttributeError(op)
        return partial(compute, self.source, op)


def suspect(slug: str, cases: Sequence[str]) -> str | None:
    """Who is suspected first by these cases together, if anybody: who explains most, and is not refuted."""
    explained: dict[str, list[Match]] = defaultdict(list)
    for name in cases:
        seen = evidence(all_cases()[name], InProcess(Stranger(slug)))
        for made in matches(seen, candidates(seen)):
            if made.sure:
                explained[made.mutant].append(made)
    in_order = sorted(explained, key=lambda name: weight(explained[name]))
    return next((name for name in in_order if not passes_any(slug, name)), next(iter(in_order), None))


def passes_any(slug: str, suspected: str) -> bool:
    """Whether the stranger passes any case that kills whom it is taken for."""
    killers = RECORDED[suspected].killers if suspected in RECORDED else ()
    return any(judged(all_cases()[name], InProcess(Stranger(slug))).status == "pass" for name in killers)
