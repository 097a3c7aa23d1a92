"""Suspects for single cases as they fail, at little cost: who explained the last failure is asked first."""

from collections import Counter
from collections.abc import Sequence

from moespec_conformance.diagnosis.evidence import Evidence, evidence
from moespec_conformance.diagnosis.matching import Match, candidates, matches
from moespec_conformance.protocol import Case
from moespec_conformance.runner import Runner

SEARCHES = 24  # cases for which the whole catalogue is asked; from then on only who was suspected before
NAMED = 5  # suspects named of one case


class Detective:
    """Remembers who was suspected before."""

    def __init__(self, runner: Runner, searches: int = SEARCHES) -> None:
        """Ask this implementation; go through the whole catalogue for so many cases."""
        self.runner, self.searches = runner, searches
        self.known: Counter[str] = Counter()

    def suspects(self, case: Case) -> list[Match]:
        """The mutants that answer this case as the implementation does, bit for bit or within their bounds."""
        seen = evidence(case, self.runner)
        found = self.surely(seen, [name for name, _ in self.known.most_common()])
        if not found and self.searches > 0:
            self.searches -= 1
            found = self.surely(seen, candidates(seen))
        self.known.update(made.mutant for made in found)
        return found[:NAMED]

    def surely(self, seen: Evidence, names: Sequence[str]) -> list[Match]:
        """Of these mutants, those that do not merely come near; the oftener suspected first among equals."""
        found = [made for made in matches(seen, names) if made.match != "near"]
        return sorted(found, key=lambda made: (made.rank[0], -self.known[made.mutant], made.left))
