"""The diagnosis names the bug of an implementation that shares no code with the reference, and says when it cannot."""

from typing import Any

import numpy as np
import pytest
from planted import V3, rounding, selection, weights
from planted.honest import Honest

from moespec_conformance.checking import run
from moespec_conformance.diagnosis.diagnosis import Diagnosis, diagnose
from moespec_conformance.diagnosis.words import in_common
from moespec_conformance.mutants.adapter import Adapter
from moespec_conformance.protocol import Result
from moespec_conformance.runner import InProcess

# planted bugs, each in an implementation of its own, and what the catalogue calls them
NAMES = {
    weights.BiasInWeights: "gate-bias-in-weights",
    weights.NormalisedOrScaled: "gate-scale-or-norm",
    selection.NoGroupLimit: "gate-no-group-limit",
    rounding.LogitsInBFloat16: "gate-bf16-logits",
}


class BlackBox:
    """An implementation that offers nothing but the layer's y."""

    name, version = "black box", "1"

    def __init__(self, inside: Any) -> None:
        """Hide all of it but `moe`."""
        self.inside = inside

    def moe(self, config: dict[str, Any], **tensors: Any) -> dict[str, Any]:
        """Y alone."""
        return {"y": self.inside.moe(config, **tensors)["y"]}


class Odd(Honest):
    """The layer's output times 1.037: nobody's bug."""

    def moe(self, config: dict[str, Any], **tensors: Any) -> dict[str, Any]:
        """Too large a y."""
        return {"y": super().moe(config, **tensors)["y"] * np.float32(1.037)}


def diagnosed(made: Any, ops: tuple[str, ...] | None = None) -> tuple[Diagnosis, list[Result]]:
    """The diagnosis of an implementation in DeepSeek-V3's profile."""
    runner = InProcess(made)
    with np.errstate(all="ignore"):
        report = run(runner, (V3,), ops, quick=True)
        return diagnose(runner, report.results), report.results


@pytest.mark.parametrize("bug", NAMES, ids=lambda bug: bug.__name__)
def test_bugs_are_called_by_name(bug: type[Honest]) -> None:
    """By outputs alone, in other code: one suspect explains every failure looked into."""
    found, _ = diagnosed(bug(), ("gate",))
    assert NAMES[bug] in (found.suspects[0].mutant, *found.suspects[0].alike)
    assert len(found.suspects[0].explains) >= 0.9 * len(found.cases)


@pytest.mark.parametrize("bug", [selection.NoGroupLimit], ids=lambda bug: bug.__name__)
def test_a_black_box_is_enough(bug: type[Honest]) -> None:
    """Y alone tells as much."""
    found, _ = diagnosed(BlackBox(bug()))
    assert found.suspects[0].mutant == NAMES[bug]


def test_two_bugs_at_once() -> None:
    """A pair explains what neither does alone."""
    found, _ = diagnosed(BlackBox(Adapter("gate-mask-zero+gate-no-renorm")))
    assert set(found.suspects[0].mutant.split("+")) == {"gate-mask-zero", "gate-no-renorm"}
    assert not found.unexplained


def test_what_is_not_in_the_catalogue_is_said_so() -> None:
    """Nobody is suspected, and the pattern is told all the same."""
    found, results = diagnosed(Odd(), ("moe",))
    assert found.suspects == ()
    assert set(found.unexplained) == set(found.cases)
    assert any("everything times 1.037" in result.message for result in results)


def test_nothing_to_diagnose() -> None:
    """An honest implementation has no suspects."""
    found, _ = diagnosed(Honest(), ("gate",))
    assert found == Diagnosis((), (), {})


def test_what_failures_have_in_common() -> None:
    """A property of their cases that few others have."""
    _, results = diagnosed(Adapter("gate-weights-overwritten"), ("gate",))
    assert any("on a second call" in says for says in in_common(results))
