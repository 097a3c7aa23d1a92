"""What the tests of planted bugs share: asking an implementation, which cases kill a bug, and bounds made wider."""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from planted import BUGS, OTHER_OPS, V3
from planted.honest import Honest

from moespec_conformance import Report, Result, check
from moespec_conformance.cases import all_cases
from moespec_conformance.judge import near, verdict
from moespec_conformance.judging import judged
from moespec_conformance.runner import InProcess

Bug = type[Honest]
KILLS = ("fail", "error")


class Aim(NamedTuple):
    """A bug, and a profile whose cases must kill it."""

    bug: Bug
    profile: str


AIMS = [Aim(bug, profile) for bug, profiles in BUGS.items() for profile in profiles]
OWN = [aim for aim in AIMS if aim.profile == V3]
FAMILY = [aim for aim in AIMS if aim.profile != V3 and aim.profile not in OTHER_OPS]
AROUND = [aim for aim in AIMS if aim.profile in OTHER_OPS]


def reported(made: Bug, profile: str, ops: tuple[str, ...] | None = None, *, quick: bool = False) -> Report:
    """The suite's report; overflow on the way to a right result is no warning of ours."""
    with np.errstate(all="ignore"):
        return check(made(), profile, ops, quick)


def unjust(made: Bug, profile: str) -> list[tuple[str, str]]:
    """What is held against an honest implementation: nothing, if the suite is right."""
    results = reported(made, profile, quick=True).results
    assert results or made.arithmetic != "float32"
    return [(r.case, r.message) for r in results if r.status != "pass"]


@cache
def killers(aim: Aim) -> tuple[Result, ...]:
    """The profile's cases that a bug fails, of the ops where it can show."""
    results = reported(*aim, BUGS[aim.bug][aim.profile], quick=True).results
    return tuple(result for result in results if result.status in KILLS)


def far(result: Result) -> float:
    """How far beyond its bound a result was: error / bound, infinitely for what has no bound."""
    return math.inf if result.error_over_bound is None else result.error_over_bound


def margins(aims: list[Aim]) -> dict[Aim, float]:
    """For every bug that a bound catches: at how many times the bound, in the case that catches it best."""
    bounded = {aim: [far(r) for r in killers(aim) if r.kind == "bounded"] for aim in aims}
    return {aim: max(ratios) for aim, ratios in bounded.items() if ratios}


def kinds(aims: list[Aim]) -> set[str]:
    """What catches the bugs that no bound does."""
    return {result.kind for aim in set(aims) - set(margins(aims)) for result in killers(aim)}


def still_killed(aim: Aim) -> bool:
    """Ask the cases that killed a bug once more, the surest first, under whatever was patched since."""
    asked, runner = sorted(killers(aim), key=far, reverse=True), InProcess(aim.bug)
    with np.errstate(all="ignore"):
        return any(judged(all_cases()[result.case], runner).status in KILLS for result in asked)


def living(aims: list[Aim], monkeypatch: pytest.MonkeyPatch, factor: float, *, spread: bool = True) -> set[Bug]:
    """The bugs that live when every bound has some factor of room, and perhaps without the spread check."""
    worst, choices = near.worst, verdict.choices
    assert all(killers(aim) for aim in aims)  # found and kept before anything is patched

    def wide(bounded: Any) -> Any:
        return None if bounded is None else SimpleNamespace(v=bounded.v, e=bounded.e * factor)

    def patched(case: Any) -> tuple[Any, ...]:
        return tuple(wide(bounded) for bounded in choices(case))

    def looser(got: Any, want: Any, bound: Any) -> Any:
        return worst(got, want, bound * factor)

    monkeypatch.setattr(near, "worst", looser)
    monkeypatch.setattr(verdict, "choices", patched)
    if not spread:
        monkeypatch.setattr(near, "spread", lambda *_: (0.0, 0.0))
    return {aim.bug for aim in aims if not still_killed(aim)}
