"""A stranger's layer, in torch, and forty bugs in it that nobody wrote the suite for: `pytest -m peers`."""

from importlib import import_module
from typing import Any

import pytest
from held_out import BUGS, HONEST

from moespec_conformance import Result, check
from moespec_conformance.checking import selected
from moespec_conformance.judging import judged
from moespec_conformance.runner import InProcess

pytestmark = pytest.mark.peers
PLACES = [(file, name) for file, names in BUGS.items() for name in names]
GOOD = ("pass", "quality_warning")


def made(file: str, name: str) -> Any:
    """A fresh layer."""
    return getattr(import_module(f"held_out.{file}"), name)()


def found(layer: Any) -> Result | None:
    """The first case of its profiles that a layer answers wrongly, and the layer without a bug does not."""
    runner, honest = InProcess(layer), InProcess(made("honest", "Grouped"))
    for case in selected(layer.profiles, runner.arithmetic, None, quick=True):
        result = judged(case, runner)
        if result.status == "fail" and judged(case, honest).status in GOOD:
            return result
    return None


def test_there_are_forty() -> None:
    """Every bug of the files is named, with a sentence of its own."""
    named = {name for _, name in PLACES}
    defined = {
        name: thing
        for file in BUGS
        for name, thing in vars(import_module(f"held_out.{file}")).items()
        if isinstance(thing, type) and thing.__module__ == f"held_out.{file}"
    }
    assert named == set(defined)
    assert len({thing.__doc__ for thing in defined.values()}) == 40


@pytest.mark.parametrize(("file", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_bug_is_found(file: str, name: str) -> None:
    """By a wrong answer, in a profile that the layer claims."""
    assert found(made(file, name))


@pytest.mark.parametrize("name", HONEST)
def test_honest_forms_pass(name: str) -> None:
    """Nothing is held against them in all that they claim; of masks, gelu and Switch's experts they have none."""
    layer = made("honest", name)
    report = check(layer, list(layer.profiles), quick=True)
    assert [(r.case, r.message) for r in report.results if r.status not in (*GOOD, "not_supported")] == []
    assert {r.case for r in report.results if r.status == "not_supported"} <= {"gate-grok-1-mask", "gate-switch-mask"}
    assert report.ok
