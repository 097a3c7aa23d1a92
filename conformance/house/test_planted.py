"""The suite, tested: it passes honest implementations, and kills every planted bug by a wide margin.

Here by DeepSeek-V3's own profile and those beside it; test_planted_family.py and test_planted_around.py have the rest.
"""

import re
import sys
from pathlib import Path

import planted
import planted_fp8
import pytest
from killing import OWN, Aim, Bug, killers, kinds, living, margins, reported, unjust
from planted import BUGS, HONEST, V3, rounding, variants
from planted.expert import NoTokenCrashes

FLOAT32 = [made for made in HONEST if made.arithmetic == "float32"]
FP8_OPS = {op for ops in planted_fp8.OPS.values() for op in ops}  # test_planted_fp8.py asks these
CRASHES = {NoTokenCrashes}  # these give no wrong number, only an exception: an error, not a fail


@pytest.mark.parametrize("made", [made for made in HONEST if V3 in HONEST[made]])
def test_honest_implementations_pass(made: Bug) -> None:
    """Nothing is held against what the clauses leave free."""
    assert unjust(made, V3) == []


@pytest.mark.parametrize("made", FLOAT32)
def test_honest_implementations_pass_other_profiles(made: Bug) -> None:
    """Given routings of any width, padding rows, malformed input, relations."""
    names = ("variable-routing", "reject", "relation")
    results = [r for name in names for r in reported(made, name).results if r.op not in FP8_OPS]
    assert [(r.case, r.message) for r in results if r.status not in ("pass", "rejected_ok")] == []


@pytest.mark.parametrize("made", FLOAT32)
def test_ties_tell_lowest_from_highest(made: Bug) -> None:
    """The profile `ties` fails who takes the highest of equal ids, in every case, and nobody else."""
    statuses = {r.status for r in reported(made, "ties").results}
    assert statuses == {"fail" if made is variants.HighestOfEqual else "pass"}


def test_batch_invariance_is_within_reach() -> None:
    """Sums in a fixed order give a token the same bits in any batch."""
    assert reported(variants.OneTermAtATime, "batch-invariant").claimed


@pytest.mark.parametrize("aim", OWN, ids=lambda aim: aim.bug.__name__)
def test_bugs_are_killed(aim: Aim) -> None:
    """By a wrong answer, not merely a crash."""
    assert {result.status for result in killers(aim)} == {"error" if aim.bug in CRASHES else "fail"}


def test_margins() -> None:
    """Every bug that a bound can catch is caught at 10 times the bound or more (the least: 14)."""
    assert len(margins(OWN)) >= 100
    assert {aim: ratio for aim, ratio in margins(OWN).items() if ratio < 10} == {}
    assert kinds(OWN) <= {"selection", "exact", "nan", "overwritten", "raised"}


def test_bounds_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times wider, and without the spread check, they kill every bug still."""
    assert living(OWN, monkeypatch, 10, spread=False) == set()


def test_bounds_are_what_catches_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 times wider (8 bits of 24) they let bugs of rounding through, and no others."""
    left = living(OWN, monkeypatch, 256, spread=False)
    assert {rounding.WeightGradientInBFloat16, rounding.LogitsInTf32, rounding.HiddenInBFloat16} < left
    assert len(left) == 9
    assert {bug.__module__ for bug in left} == {rounding.__name__}


def test_spread_catches_what_wide_bounds_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 times wider, but with the spread check, nothing gets through."""
    assert living(OWN, monkeypatch, 256) == set()


def test_inputs_matter_more_than_bounds() -> None:
    """With each op's ordinary random input alone, about half the bugs live, however tight the bounds."""
    killed = [aim for aim in OWN if any(result.case.endswith("-ordinary") for result in killers(aim))]
    assert len(killed) < 0.6 * len(OWN)


def test_strength() -> None:
    """Every bug is one of its own; README says how many there are."""
    assert len(BUGS) == len({bug.__doc__ for bug in BUGS} - {None}) >= 440
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"with {len(BUGS)} planted bugs" in text
    assert f"the {len(HONEST) - 1} honest variants" in text


def test_planted_code_is_independent() -> None:
    """It imports NumPy and ml_dtypes beside the standard library, nothing of ours; its files stay small."""
    for path in Path(planted.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = set(re.findall(r"^(?:from|import) ([a-z_]+)", text, re.MULTILINE))
        assert imported - sys.stdlib_module_names <= {"numpy", "ml_dtypes"}, path.name
        assert len(text.splitlines()) <= 200, path.name
