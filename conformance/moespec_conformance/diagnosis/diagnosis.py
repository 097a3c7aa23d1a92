"""The diagnosis of an implementation: which bugs of the catalogue, alone or two together, explain all its failures."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from moespec_conformance.cases import all_cases
from moespec_conformance.checking import judged
from moespec_conformance.diagnosis.evidence import Evidence, evidence
from moespec_conformance.diagnosis.matching import Match, candidates, loaded, match, matches, nearest
from moespec_conformance.protocol import BAD, Result
from moespec_conformance.runner import Runner

ENOUGH = 30  # failures looked into: of each op and stage in turn, the smallest inputs first
PASSED = 24  # cases without a failure that a suspect must pass, too
PAIRS = 8  # mutants that come nearest, tried two by two
TRIES = 4  # failures for which pairs are tried
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


def diagnose(runner: Runner, results: Sequence[Result], on_case: Callable[[], None] | None = None) -> Diagnosis:
    """Look into failures of a run, and name who explains them."""
    found: dict[str, list[Match]] = {}
    held: dict[str, Evidence] = {}
    for name in chosen(results):
        held[name] = evidence(all_cases()[name], runner)
        found[name] = matches(held[name], candidates(held[name]))
        if on_case:
            on_case()
    sure = {name: {m.mutant: m for m in made if m.match != "near"} for name, made in found.items()}
    sure = without_refuted(sure, results)
    add_pairs(sure, held)
    suspects = covering(sure)
    open_cases = [name for name, made in sure.items() if not made]
    return Diagnosis(suspects, tuple(held), {name: next(iter(found[name]), None) for name in open_cases})


def chosen(results: Sequence[Result]) -> list[str]:
    """Failures to look into: of every op and first wrong stage in turn, the smallest inputs first."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for result in sorted((r for r in results if r.status in WHOLE), key=lambda r: size(r.case)):
        groups.setdefault((result.op, result.stage), []).append(result.case)
    turns = [names[turn] for turn in range(ENOUGH) for names in groups.values() if turn < len(names)]
    return turns[:ENOUGH]


def size(case: str) -> int:
    """How many numbers go into a case."""
    return sum(tensor.size for tensor in all_cases()[case].inputs.values())


Sure = dict[str, dict[str, Match]]


def without_refuted(sure: Sure, results: Sequence[Result]) -> Sure:
    """Without mutants that fail where the implementation passes."""
    passed = sorted((r.case for r in results if r.status == "pass"), key=size)
    suspected = {mutant for made in sure.values() for mutant in made}
    refuted = {mutant for mutant in suspected if fails_among(mutant, relevant(passed, results))}
    kept = {name: {m: made[m] for m in made if m not in refuted} for name, made in sure.items()}
    return {name: made or sure[name] for name, made in kept.items()}


def relevant(passed: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Cases without a failure, of the ops that have failures, spread over their sizes."""
    ops = {r.op for r in results if r.status in WHOLE}
    same = [name for name in passed if all_cases()[name].op in ops]
    return same[:: max(1, len(same) // PASSED)]


def fails_among(mutant: str, cases: Iterable[str]) -> bool:
    """Whether a mutant fails any of these cases."""
    return any(judged(all_cases()[name], loaded(mutant)).status in BAD for name in cases)


def add_pairs(sure: Sure, held: dict[str, Evidence]) -> None:
    """For failures that no mutant explains alone: two together. A pair that explains one is tried on all."""
    known = list(dict.fromkeys(mutant for made in sure.values() for mutant in made))[:PAIRS]
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
    return made if made and made.match != "near" else None


def covering(sure: Sure) -> tuple[Suspect, ...]:
    """The fewest suspects that explain all that can be explained: each time, who explains most of the rest."""
    rest, suspects = {name: made for name, made in sure.items() if made}, []
    while rest:
        counts: dict[str, list[Match]] = {}
        for made in rest.values():
            for mutant, how in made.items():
                counts.setdefault(mutant, []).append(how)
        best = min(
            counts,
            key=lambda m: (-len(counts[m]), sum(how.rank[0] for how in counts[m]), sum(h.left for h in counts[m])),
        )
        explained = tuple(name for name, made in rest.items() if best in made)
        alike = tuple(m for m in counts if m != best and tuple(n for n, made in rest.items() if m in made) == explained)
        how = max((rest[name][best] for name in explained), key=lambda made: made.rank)
        suspects.append(Suspect(best, how.match, alike, explained))
        rest = {name: made for name, made in rest.items() if best not in made}
    return tuple(suspects)


def order(explained: Sequence[Match]) -> tuple[float, ...]:
    """The most failures first, then the most of them exactly, then the least left over."""
    return -len(explained), sum(how.rank[0] for how in explained), sum(how.left for how in explained)
