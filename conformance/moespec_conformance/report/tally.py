"""What results say together: a verdict and its sentence, by op, by clause, and which bugs are suspected."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moespec_conformance.checking import JUDGED, Report
from moespec_conformance.judge.verdict import STAGES
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.mutant import Mutant
from moespec_conformance.protocol import BAD, GOOD, Result
from moespec_conformance.spec import clauses

MOST = 4  # profiles named one by one
STATUSES = (*GOOD, "not_supported", *BAD)
WRONG = (*BAD, "xfail", "waived")
ELSEWHERE = "elsewhere"  # a case that went wrong at a stage which is not this clause's


def verdict(report: Report) -> str:
    """What came out, in capitals where it is certain."""
    if not report.results:
        return "NOTHING SELECTED"
    if report.ok:
        return "CONFORMANT" if report.claimed else "no failure found"
    if report.counts["fail"]:
        return "NOT CONFORMANT"
    return "NOT JUDGED" if report.counts["error"] + report.counts["timeout"] else "NOTHING PASSED"


def sentence(report: Report) -> str:
    """Who was checked for what, how many cases are as they should be, of how many, and what became of the rest."""
    good = sum(report.counts[status] for status in JUDGED)
    profiles = ", ".join(report.profiles) if len(report.profiles) <= MOST else f"{len(report.profiles)} profiles"
    what = f"{report.name} {report.version} ({', '.join(report.arithmetic)}), {profiles}: "
    said = ("not_supported", "quality_warning", "xfail", "waived", "xpass", *BAD)
    rest = [f"{report.counts[s]} {s}" for s in said if report.counts[s]]
    return f"{what}{good} of {len(report.results)} as it should be" + (f", {', '.join(rest)}" if rest else "")


class Row(NamedTuple):
    """An op or a clause: how many cases have each status, and the largest error/bound of those that are right."""

    name: str
    counts: Counter[str]
    worst: float | None = None

    @property
    def wrong(self) -> bool:
        """Whether one of its cases is a failure."""
        return any(self.counts[status] for status in BAD)


def by_op(results: Sequence[Result]) -> list[Row]:
    """One row an op, in the order they were asked."""
    return [_op(name, [r for r in results if r.op == name]) for name in dict.fromkeys(r.op for r in results)]


def _op(name: str, results: list[Result]) -> Row:
    ratios = [r.error_over_bound for r in results if r.error_over_bound is not None and r.status in JUDGED]
    return Row(name, Counter(r.status for r in results), max(ratios, default=None))


def by_clause(results: Iterable[Result]) -> list[Row]:
    """One row a clause of SPEC.md, in its order, those included that no case asked about."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in clauses()}
    for result in results:
        meant = suspected(result)
        for name in result.clauses:
            counts[name][result.status if name in meant else ELSEWHERE] += 1
    return [Row(name, found) for name, found in counts.items()]


def suspected(result: Result) -> tuple[str, ...]:
    """The clauses a wrong stage speaks of, among those of the case; all of them if nothing is wrong."""
    if result.status not in WRONG:
        return result.clauses
    stage = STAGES.get(result.stage or "", result.clauses)
    return tuple(clause for clause in result.clauses if clause in stage) or result.clauses


class Suspect(NamedTuple):
    """A bug, or several at once ("a+b"), and how many failing cases it explains: to the bit, or within bounds."""

    slug: str
    exact: int
    bounded: int


def suspects(results: Iterable[Result]) -> list[Suspect]:
    """The bugs that failures look like, those first that explain most."""
    matches: dict[str, Counter[str]] = {}
    for result in results:
        for found in result.suspects if result.status in BAD else ():
            matches.setdefault(found["mutant"], Counter())[found["match"]] += 1
    made = [Suspect(slug, counts["exact"], counts["bounded"]) for slug, counts in matches.items()]
    return sorted(made, key=lambda s: (-s.exact - s.bounded, -s.exact))


def parts(slug: str) -> list[Mutant]:
    """The mutants that a suspect's name stands for; none that this version does not know."""
    return [MUTANTS[name] for name in slug.split("+") if name in MUTANTS]
