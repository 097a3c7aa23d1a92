"""The suite, tested on what lies around the gate and the experts: routers, losses, capacity, layouts, ranks, norm."""

import planted_fp8
import pytest
from killing import AIMS, AROUND, Aim, Bug, killers, kinds, living, margins, unjust
from planted import HONEST, OTHER_OPS
from planted.honest import Honest

from moespec_conformance.cases import PROFILES
from moespec_conformance.cases.models import ALIASES

ASKED = [(made, profile) for made in HONEST for profile in HONEST[made] if profile in OTHER_OPS]


@pytest.mark.parametrize(("made", "profile"), ASKED)
def test_honest_implementations_pass(made: Bug, profile: str) -> None:
    """Nothing is held against what the clauses leave free."""
    assert unjust(made, profile) == []


def test_every_profile_is_passed_and_kills() -> None:
    """The independent implementation does all that the suite asks, and each profile has bugs to kill."""
    beside = {"ties", "variable-routing", "reject", "relation", "batch-invariant"}  # test_planted.py asks these
    beside |= set(planted_fp8.PROFILES)  # and test_planted_fp8.py these
    asked = set(PROFILES) - beside - {alias for names in ALIASES.values() for alias in names}
    assert asked == set(HONEST[Honest])
    assert asked == {aim.profile for aim in AIMS}


@pytest.mark.parametrize("aim", AROUND, ids=lambda aim: f"{aim.bug.__name__}-{aim.profile}")
def test_bugs_are_killed(aim: Aim) -> None:
    """By a wrong answer, in the profile's own cases."""
    assert {result.status for result in killers(aim)} == {"fail"}


def test_margins() -> None:
    """Every bug that a bound can catch is caught at 10 times the bound or more; of the others one answer is right."""
    assert len(margins(AROUND)) >= 0.5 * len(AROUND)
    assert {aim: ratio for aim, ratio in margins(AROUND).items() if ratio < 10} == {}
    assert kinds(AROUND) <= {"selection", "exact", "nan", "shape"}


def test_bounds_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times wider, and without the spread check, they kill every bug still."""
    assert living(AROUND, monkeypatch, 10, spread=False) == set()
