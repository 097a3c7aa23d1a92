"""The suite, tested on FP8 and FP4: it passes honest implementations, and kills every planted bug by far."""

import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import planted_fp8
import pytest
from planted_fp8 import BUGS, CLAUSES, HONEST, OPS, PROFILES
from planted_fp8.honest import Fp8

from moespec_conformance import Result
from moespec_conformance.cases import PROFILES as ALL
from moespec_conformance.cases import all_cases
from moespec_conformance.judging import judged
from moespec_conformance.protocol import Case, arithmetics
from moespec_conformance.runner import InProcess

Bug = type[Fp8]
FAR = 10.0  # times its bound
SHARE = 8  # variants are asked one case in so many
# how many bugs are killed by what a clause says, the first that a bug names
KILLED = {
    "FMT-1": 12,
    "FMT-2": 14,
    "FMT-3": 1,
    "FMT-4": 12,
    "FMT-5": 4,
    "FMT-6": 5,
    "QNT-1": 15,
    "QNT-2": 33,
    "QNT-3": 10,
    "QNT-4": 6,
    "QNT-5": 7,
    "QNT-6": 6,
    "QNT-7": 8,
    "QNT-8": 10,
    "LIN-1": 28,
    "LIN-2": 5,
    "LIN-4": 4,
    "LIN-5": 13,
    "LIN-6": 8,
    "ACC-1": 2,
    "ACC-3": 20,
    "ACC-4": 5,
    "MFP-1": 4,
    "MFP-2": 11,
    "MFP-3": 16,
    "MFP-4": 6,
    "MFP-5": 12,
    "MFP-6": 10,
    "MFP-7": 1,
    "MFP-8": 2,
    "OPT-1": 20,
    "OPT-2": 5,
    "OPT-3": 1,
}


class Aim(NamedTuple):
    """A bug, and a profile whose cases must kill it."""

    bug: Bug
    profile: str


AIMS = [Aim(bug, profile) for bug, profiles in BUGS.items() for profile in profiles]
ASKED = [(made, profile) for made, profiles in HONEST.items() for profile in profiles]
OURS = {op for ops in OPS.values() for op in ops}


def cases_of(profile: str, made: Bug, ops: tuple[str, ...] | None = None) -> list[Case]:
    """The profile's quick cases, of some ops, in the arithmetic that an implementation has."""
    every = [case for case in all_cases().values() if profile in case.profiles and case.quick]
    return [case for case in every if case.arithmetic in arithmetics(made()) and case.op in (ops or OURS)]


def asked(case: Case, made: Bug) -> Result:
    """The verdict; what overflows on the way to a right result is no warning of ours."""
    with np.errstate(all="ignore"):
        return judged(case, InProcess(made))


def decisive(result: Result) -> bool:
    """Wrong, and by far if a bound says it."""
    ratio = result.error_over_bound
    return result.status == "fail" and (result.kind != "bounded" or ratio is None or ratio >= FAR)


@cache
def killer(aim: Aim) -> Result | None:
    """The first case that kills a bug, by far and by a clause that it breaks."""
    named = [case for case in cases_of(aim.profile, aim.bug, OPS[aim.bug]) if set(case.clauses) & set(CLAUSES[aim.bug])]
    return next((result for case in named if decisive(result := asked(case, aim.bug))), None)


def ordinary(aim: Aim) -> bool:
    """Whether random numbers alone would find a bug."""
    plain = [case for case in cases_of(aim.profile, aim.bug, OPS[aim.bug]) if case.id.endswith("-ordinary")]
    return any(asked(case, aim.bug).status == "fail" for case in plain)


@pytest.mark.parametrize(("made", "profile"), ASKED, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_honest_implementations_pass(made: Bug, profile: str) -> None:
    """Nothing is held against what the clauses leave free."""
    every = cases_of(profile, made, made.ops)
    share = 1 if made is Fp8 else SHARE  # each variant begins elsewhere
    results = [asked(case, made) for case in every[list(HONEST).index(made) % share :: share]]
    assert results
    assert [(r.case, r.message) for r in results if r.status != "pass"] == []


def test_honest_implementation_refuses() -> None:
    """Malformed codes, scales and configs."""
    results = [asked(case, Fp8) for case in cases_of("reject", Fp8)]
    assert len(results) >= 50
    assert [(r.case, r.message) for r in results if r.status != "rejected_ok"] == []


@pytest.mark.parametrize("aim", AIMS, ids=lambda aim: f"{aim.bug.__name__}-{aim.profile}")
def test_bugs_are_killed(aim: Aim) -> None:
    """By a wrong answer of a case that names a clause it breaks; at 10 times the bound or more, if a bound says so."""
    assert killer(aim) is not None


def test_inputs_matter() -> None:
    """With ordinary random numbers alone more than half of the bugs would live, however tight the bounds."""
    some = AIMS[::3]
    living = [aim for aim in some if not ordinary(aim)]
    assert len(living) > len(some) / 2


def test_strength() -> None:
    """Every bug is one of its own; so many are killed by what each clause says, the first that a bug names; README."""
    assert Counter(clauses[0] for clauses in CLAUSES.values()) == KILLED
    assert len(BUGS) == len({bug.__doc__ for bug in BUGS} - {None}) == sum(KILLED.values())
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"with {len(BUGS)} planted bugs, all found, and {len(HONEST) - 1} honest variants" in text


def test_every_profile_is_passed_and_kills() -> None:
    """The independent implementation does all that the suite asks of FP8, and each profile has bugs to kill."""
    fp8 = {profile for case in all_cases().values() if case.op in OURS for profile in case.profiles} - {"reject"}
    assert fp8 == set(PROFILES) == {aim.profile for aim in AIMS}
    assert fp8 <= set(ALL)


def test_planted_code_is_independent() -> None:
    """It imports NumPy, ml_dtypes and the other planted code beside the standard library, nothing of ours."""
    for path in Path(planted_fp8.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = set(re.findall(r"^(?:from|import) ([a-z_]+)", text, re.MULTILINE))
        assert imported - sys.stdlib_module_names <= {"numpy", "ml_dtypes", "planted"}, path.name
        assert len(text.splitlines()) <= 300, path.name
