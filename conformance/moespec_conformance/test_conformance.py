"""The suite's cases as pytest tests, against `--impl` (the reference if none is named)."""

import pytest

from moespec_conformance.checking import JUDGED
from moespec_conformance.judging import judged
from moespec_conformance.protocol import Case
from moespec_conformance.runner import Child


def test_case(case: Case, implementation: Child) -> None:
    """One case."""
    if case.arithmetic not in implementation.arithmetic:
        pytest.skip(f"{implementation.name} does not compute in {case.arithmetic}")
    result = judged(case, implementation)
    if result.status == "not_supported":
        pytest.skip(f"not supported: {result.message}")
    if result.status not in JUDGED:
        pytest.fail(f"{result.status} ({result.kind}, {result.stage}): {result.message}", pytrace=False)
