"""The suite's cases and properties as pytest tests, against `--impl` (the reference if none is named)."""

import pytest

from moespec_conformance.checking import JUDGED
from moespec_conformance.judging import judged
from moespec_conformance.properties import run_properties
from moespec_conformance.protocol import Case, Result
from moespec_conformance.runner import Runner


def test_case(case: Case, implementation: Runner) -> None:
    """One case."""
    if case.arithmetic not in implementation.arithmetic:
        pytest.skip(f"{implementation.name} does not compute in {case.arithmetic}")
    settled(judged(case, implementation))


def test_property(property_name: str, implementation: Runner, pytestconfig: pytest.Config) -> None:
    """One property, on inputs that are drawn."""
    told = pytestconfig.option
    how = {"examples": told.moespec_examples, "save": told.moespec_save}
    (result,) = run_properties(implementation, [property_name], **how)
    settled(result)


def settled(result: Result) -> None:
    """A result as pytest's."""
    if result.status == "not_supported":
        pytest.skip(f"not supported: {result.message}")
    if result.status not in JUDGED:
        pytest.fail(f"{result.status} ({result.kind}, {result.stage}): {result.message}", pytrace=False)
