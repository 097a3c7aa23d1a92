"""The diagnosis of an implementation: which bugs of the catalogue, alone or two together, explain all its failures."""

from collections.abc import Callable, Container, Sequence
from itertools import combinations
from typing import NamedTuple

from moespec_conformance.cases import all_cases
from moespec_conformance.diagnosis.evidence import Evidence, evidence
from moespec_conformance.diagnosis.matching import Match, candidates, match, matches, nearest, weight
from moespec_conformance.mutants.killers import RECORDED
from moespec_conformance.protocol import Result
from moespec_conformance.runner import Runner

ENOUGH = 30  # failures looked into: of each op and stage in turn, the smallest inputs first
PAIRS = 8  # mutants that come nearest, tried two by two
KNOWN = 3  # suspects of other failures, each tried together with everybody
TRIES = 2  # failures for which pairs are tried
WHOLE = ("fail", "error")


class Suspect(NamedTuple):
    """A mutant, or two together, and the failures it explains; alike are others that explain the same ones."""

    mutant: str
    match: str
    alike: tuple[str, ...]
    explains: tuple[str, ...]


class Diagnosis(NamedTuple):
    """Suspects, the best first; the failures looked into; those nobody explains, with who comes nearest."""

    suspects: tuple[Suspect, ...]
    cases: tuple[str, ...]
    unexplained: dict[str, Match | None]


def diagnose(
    runner: Runner,
    results: Sequence[Result],
    on_case: Callable[[], None] | None = None,
    *,
    most: int = ENOUGH,
    pairs: bool = True,
) -> Diagnosis:
    """Look into failures of a run, `most` of them, and name who explains them, alone or two together."""
    found: dict[str, list[Match]] = {}
    held: dict[str, Evidence] = {}
    for name in chosen(results, most):
        held[name] = evidence(all_cases()[name], runner)
        found[name] = matches(held[name], candidates(held[name]))
        if on_case:
            on_case()
    sure = {name: {m.mutant: m for m in made if m.sure} for name, made in found.items()}
    sure = without_refuted(sure, {result.case for result in results if result.status == "pass"})
    if pairs:
        add_pairs(sure, held)
    suspects = covering(sure)
    open_cases = [name for name, made in sure.items() if not made]
    return Diagnosis(suspects, tuple(held), {name: next(iter(found[name]), None) for name in open_cases})


def chosen(results: Sequence[Result], most: int) -> list[str]:
    """Failures to look into: of every op and first wrong stage in turn, the smallest inputs first."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for result in sorted((r for r in results if r.status in WHOLE), key=lambda r: size(r.case)):
        groups.setdefault((result.op, result.stage), []).append(result.case)
    turns = [names[turn] for turn in range(most) for names in groups.values() if turn < len(names)]
    return turns[:most]


def size(case: str) -> int:
    """How many numbers go into a case."""
    return sum(tensor.size for tensor in all_cases()[case].inputs.values())


Sure = dict[str, dict[str, Match]]


def without_refuted(sure: Sure, passed: Container[str]) -> Sure:
    """Without mutants that are killed by cases which the implementation passes; of no failure the last one."""
    kept = {name: {m: made[m] for m in made if not refuted(m, passed)} for name, made in sure.items()}
    return {name: made or sure[name] for name, made in kept.items()}


def refuted(mutant: str, passed: Container[str]) -> bool:
    """Whether any recorded killer of a mutant is among these."""
    return mutant in RECORDED and any(case in passed for case in RECORDED[mutant].killers)


def add_pairs(sure: Sure, held: dict[str, Evidence]) -> None:
    """For failures that no mutant explains alone: two together. A pair that explains one is tried on all."""
    known = list(dict.fromkeys(mutant for made in sure.values() for mutant in made))[:KNOWN]
    hard = [name for name, made in sure.items() if not made]
    for name in hard[:TRIES]:
        if sure[name]:
            continue
        names = candidates(held[name])
        pairs = [(one, other) for one in known for other in names if one != other]
        pairs += combinations(nearest(held[name], names)[:PAIRS], 2)
        found = next((pair for pair in pairs if certain(held[name], "+".join(pair))), None)
        if found:
            for case, seen in held.items():
                if made := certain(seen, "+".join(found)):
                    sure[case]["+".join(found)] = made


def certain(seen: Evidence, pair: str) -> Match | None:
    """How two mutants at once explain a failure, if more than nearly; two that edit the same words are none."""
    try:
        made = match(seen, pair)
    except ValueError:
        return None
    return made if made and made.sure else None


def covering(sure: Sure) -> tuple[Suspect, ...]:
    """The fewest suspects that explain all that can be explained: each time, who explains most of the rest."""
    rest, suspects = {name: made for name, made in sure.items() if made}, list[Suspect]()
    while rest:
        explained: dict[str, list[str]] = {}
        for name, made in rest.items():
            for mutant in made:
                explained.setdefault(mutant, []).append(name)
        matched = {mutant: [rest[name][mutant] for name in cases] for mutant, cases in explained.items()}
        best = min(matched, key=lambda mutant: weight(matched[mutant]))
        alike = tuple(m for m, cases in explained.items() if m != best and cases == explained[best])
        how = max(matched[best], key=lambda made: made.rank).match
        suspects.append(Suspect(best, how, alike, tuple(explained[best])))
        rest = {name: made for name, made in rest.items() if best not in made}
    return tuple(suspects)
