"""The catalogue of mutants is sound, and every mutant has cases that kill it."""

import re
from fnmatch import fnmatch

import numpy as np
import pytest

from moespec_conformance.cases import all_cases
from moespec_conformance.edits import Edit, edited, source_of
from moespec_conformance.judge import near
from moespec_conformance.judging import judged
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.adapter import Adapter, bugged
from moespec_conformance.mutants.honest import VARIANTS
from moespec_conformance.mutants.honest import Adapter as Variant
from moespec_conformance.mutants.killers import RECORDED
from moespec_conformance.mutants.matrix import KILLS, shown
from moespec_conformance.mutants.naming import suspect
from moespec_conformance.runner import InProcess
from moespec_conformance.source import REFERENCE, load
from moespec_conformance.spec import clauses

SAMPLE = list(MUTANTS)[::12]
BY_LITTLE = [slug for slug, one in RECORDED.items() if one.margin < 10]


def test_the_catalogue_is_large_and_says_what_it_holds() -> None:
    """Each mutant has a clause that exists, a sentence, a source and a trigger; none is declared twice."""
    assert len(MUTANTS) >= 120
    assert len({mutant.edits for mutant in MUTANTS.values()}) == len(MUTANTS)
    assert len({mutant.symptom for mutant in MUTANTS.values()}) == len(MUTANTS)
    for slug, mutant in MUTANTS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", slug), slug
        assert mutant.clause in clauses(), slug
        assert mutant.symptom.endswith(".") and mutant.cite and mutant.trigger and mutant.edits, slug  # noqa: PT018
        assert mutant.direction in {"forward", "backward", "training", "config"}, slug


def test_every_edit_fits() -> None:
    """What an edit replaces stands once in its function, and the edited reference can be loaded."""
    for slug in MUTANTS:
        assert set(bugged([slug]).table) == set(REFERENCE.table), slug


def test_edits_that_do_not_fit_are_refused() -> None:
    """Words that are not there, that stand twice, or that another edit replaces."""
    text = source_of("gate")
    for old in ("no such words", "scores"):
        with pytest.raises(ValueError, match="times, not once"):
            edited(text, (Edit("gate.gate_forward", old, ""),))
    with pytest.raises(ValueError, match="two edits of the same words"):
        edited(text, (Edit("gate.select", "choice + bias", ""), Edit("gate.select", "+ bias", "")))


def test_loading_changes_nothing_else() -> None:
    """The reference stays what it is, and what no edit reaches is shared with it."""
    source = load([Edit("gate.weigh", "1e-20", "1e-2")])
    assert "moespec.gate" not in {module.__name__ for module in (source.module("formats"), source.module("config"))}
    assert source.module("config") is REFERENCE.module("config")
    assert source.module("gate") is not REFERENCE.module("gate")
    assert REFERENCE.module("gate").__file__


def test_the_record_is_of_this_catalogue() -> None:
    """Every mutant has recorded killers that exist, and margins of 3 or more."""
    assert set(RECORDED) == set(MUTANTS)
    for slug, one in RECORDED.items():
        assert one.killers, slug
        assert set(one.killers) <= set(all_cases()), slug
        assert one.margin >= 3, slug
        assert slug in one.alike, slug


@pytest.mark.parametrize("slug", SAMPLE)
def test_recorded_killers_kill(slug: str) -> None:
    """One of them at least (a sample here; `moespec mutants --quick` asks all)."""
    with np.errstate(all="ignore"):
        found = [made.status for name in RECORDED[slug].killers for made in shown(all_cases()[name], [slug])]
    assert set(found) & set(KILLS)


@pytest.mark.parametrize("slug", [*SAMPLE[::3], "fp8-gate-up-scales-swapped"])
def test_mutants_are_called_by_name(slug: str) -> None:
    """In other arithmetic, by their recorded killers."""
    with np.errstate(all="ignore"):
        assert suspect(slug, RECORDED[slug].killers[:2]) in RECORDED[slug].alike


def test_some_bugs_are_only_just_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten times the room some mutants live through their surest killers: the bounds decide, not luck."""
    assert len(BY_LITTLE) >= 5
    monkeypatch.setattr(near, "ROOM", 10.0)
    assert sum(lives(slug) for slug in BY_LITTLE) >= 3


def lives(slug: str) -> bool:
    """Whether none of its recorded killers kills a mutant any more."""
    runner = InProcess(Adapter(slug))
    return all(judged(all_cases()[name], runner).status not in KILLS for name in RECORDED[slug].killers)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_honest_variants_pass(variant: object) -> None:
    """A sample of all cases; `moespec mutants` asks each."""
    runner = InProcess(Variant(variant))  # type: ignore[arg-type]
    asked = [
        c for c in all_cases().values() if c.arithmetic in runner.arithmetic and set(c.profiles) & set(runner.profiles)
    ]
    with np.errstate(all="ignore"):
        results = [judged(case, runner) for case in asked[::40]]
    assert [(r.case, r.message) for r in results if r.status in (*KILLS, "timeout")] == []
    assert sum(r.status == "pass" for r in results) > len(results) / 2


def test_names_of_families() -> None:
    """A slug begins with what it is about, so that a glob finds a family."""
    assert all(any(fnmatch(slug, f"{family}-*") for slug in MUTANTS) for family in ("gate", "expert", "fp8", "fp4"))
