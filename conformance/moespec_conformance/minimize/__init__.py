"""The smallest input on which an implementation still fails."""

from collections.abc import Callable
from dataclasses import replace

from moespec_conformance.address import Usage
from moespec_conformance.judging import judged
from moespec_conformance.minimize.drops import columns, experts, extras, letters, shared, slots
from moespec_conformance.minimize.search import Search
from moespec_conformance.minimize.simpler import numbers
from moespec_conformance.minimize.sound import failing, fit
from moespec_conformance.protocol import Case
from moespec_conformance.runner import Runner

PROMISED = ("exact", "selection")  # fewer tokens leave sums exact and equals equal; other numbers may not
DROPS = (letters, slots, experts, columns, shared, extras)


def minimized(case: Case, runner: Runner, on_tried: Callable[[Search], None] = lambda _: None) -> Search:
    """Search for the smallest case on which this implementation still fails at the same stage."""
    if case.kind in ("reject", "relation"):
        raise Usage(f"{case.id} is of kind {case.kind}: only cases with one answer can be made smaller")
    first = judged(case, runner)
    if first.status not in ("fail", "error"):
        raise Usage(f"{runner.name} does not fail {case.id}: {first.status}")
    search = Search(case, fit(case), failing(first, runner), on_tried)
    search.take([replace(case, manner="plain")] if case.manner != "plain" else [])
    search.take([replace(search.case, kind="bounded")] if case.kind in ("exact", "spread") else [])
    if search.case.kind in PROMISED:
        letters(search)
        return search
    until_still(search, DROPS)
    before = search.case
    numbers(search)
    if search.case is not before:
        until_still(search, DROPS)
    return search


def until_still(search: Search, moves: tuple[Callable[[Search], None], ...]) -> None:
    """Every move in turn, until none makes the case smaller."""
    before = None
    while search.case is not before:
        before = search.case
        for move in moves:
            move(search)
