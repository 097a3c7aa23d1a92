"""On ordinary data, what bounds let pass: spreads and flips catch it, and nothing that is honest."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from planted import rounding, variants, weights
from planted.arith import Array, tf32
from planted.honest import Honest
from planted.honest_gate import Routing

from moespec.accumulate import Unit, fused
from moespec.formats import FORMATS
from moespec.gate import select
from moespec_conformance.cases import all_cases, gate
from moespec_conformance.judge import flips, near, selection
from moespec_conformance.judging import judged
from moespec_conformance.protocol import Case, Result
from moespec_conformance.readings.spread import Spread
from moespec_conformance.runner import InProcess

HOPPER_BF16 = Unit(step=16, term_bits=25, sum_bits=23)
MANY = "gate-many-tokens"


class ChoiceInTf32(Honest):
    """The choice is made by logits in TF32; the weights are right."""

    def _choice(self, r: Routing) -> Array:
        logits = tf32(r.x) @ tf32(r.weight).T
        return super()._choice(r._replace(scores=self._scores(r.cfg["scoring_func"], logits)))


class NormEpsilon(Honest):
    """RMSNorm's eps is 1e-5, whatever the config says."""

    def _rstd(self, c: Any, x: Array) -> Array:
        return super()._rstd({**c, "rms_norm_eps": 1e-5}, x)


class FusedMultiplyAdd(Honest):
    """Each product is added without a rounding of its own."""

    def _product(self, name: str, a: Array, b: Array) -> Array:  # noqa: ARG002 - every product
        y = np.zeros((len(a), b.shape[1]), np.float32)
        for i, row in enumerate(b.astype(np.float64)):
            y = (y + a[:, i, None].astype(np.float64) * row).astype(np.float32)
        return y


class HopperBFloat16(Honest):
    """Logits on Hopper's tensor cores, which take bfloat16 and cut what they add to 25 bits."""

    arithmetic = "bfloat16"

    def _logits(self, r: Routing) -> Array:
        x, weight = (np.asarray(a, np.float32) for a in (r.x, r.weight))
        zeros, formats = np.zeros((len(x), len(weight)), np.float32), (FORMATS["bfloat16"],) * 2
        return np.asarray(fused(x, weight, zeros, formats, HOPPER_BF16), np.float32)


@cache
def result(made: type[Honest], case: Case) -> Result:
    """The suite's verdict."""
    with np.errstate(all="ignore"):
        return judged(case, InProcess(made))


@cache
def in_bfloat16() -> Case:
    """The same question with bfloat16 inputs, and fewer tokens."""
    how: dict[str, Any] = {"kind": "spread", "tokens": 1024, "hidden_size": 512, "arithmetic": "bfloat16"}
    return gate.forward("many-tokens-bfloat16", n_routed_experts=64, n_group=8, num_experts_per_tok=8, **how)


HONEST = (
    *(Honest, variants.Split, variants.OneTermAtATime, variants.OneProductForGateAndUp, variants.Float64),
    *(variants.SlotsById, FusedMultiplyAdd),
)


@pytest.mark.parametrize("made", HONEST)
def test_honest_float32_passes(made: type[Honest]) -> None:
    """In every order; here not one token goes elsewhere, and 4 may."""
    found = result(made, all_cases()[MANY])
    assert (found.status, found.message) == ("pass", "")


@pytest.mark.parametrize("made", [Honest, FusedMultiplyAdd, HopperBFloat16])
def test_tensor_cores_pass(made: type[Honest]) -> None:
    """Products of bfloat16 numbers, added in float32 by an ordinary unit or by Hopper's."""
    made = type(made.__name__, (made,), {"arithmetic": "bfloat16"})
    assert result(made, in_bfloat16()).status == "pass"


def test_a_choice_in_tf32_is_legal_token_by_token_and_caught_by_the_count() -> None:
    """10 of 4096 tokens go elsewhere, none beyond its bounds, with the right weights: only their number is wrong."""
    found = result(ChoiceInTf32, all_cases()[MANY])
    assert (found.status, found.kind, found.stage) == ("fail", "spread", "topk_idx")
    assert "each within bounds" in found.message


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (rounding.LogitsInTf32, "spread"),
        (rounding.BiasInBFloat16, "selection"),
        (rounding.LogitsInBFloat16, "selection"),
        (rounding.ChoiceInBFloat16, "selection"),
        (rounding.GateReadsBFloat16, "selection"),
    ],
)
def test_coarse_gates_are_caught(made: type[Honest], kind: str) -> None:
    """bfloat16 sends some tokens beyond their bounds; TF32 does not, and sends too many inside them."""
    found = result(made, all_cases()[MANY])
    assert (found.status, found.kind, found.stage) == ("fail", kind, "topk_idx")


def test_a_wrong_epsilon_of_the_weights_is_caught() -> None:
    """1e-6 instead of 1e-20 takes less than two roundings off each weight, but off every one of them."""
    found = result(weights.EpsilonSmall, all_cases()[MANY])
    assert (found.status, found.kind, found.stage) == ("fail", "spread", "topk_weight")
    assert found.error_over_bound is not None
    assert found.error_over_bound < 0.01
    assert "bias -0.9" in found.message


def test_a_wrong_epsilon_of_the_norm_is_caught() -> None:
    """1e-5 instead of 1e-6: inside the bounds of a wide norm, far outside the usual spread."""
    found = result(NormEpsilon, all_cases()["rms-norm-wide"])
    assert (found.status, found.kind) == ("fail", "spread")
    assert found.error_over_bound is not None
    assert found.error_over_bound < 1
    assert result(Honest, all_cases()["rms-norm-wide"]).status == "pass"


def test_the_expected_number_is_what_rounding_of_that_size_does() -> None:
    """Choices moved at random by twice their spread: as many tokens change as expected, within three deviations."""
    rng = np.random.default_rng(5)
    value, spread = rng.random((20000, 16)), 1e-3 * rng.random((20000, 16))
    cfg = all_cases()["gate-ordinary"].cfg
    usually = flips.expected(Spread(value, spread**2), cfg)
    moved = [value + near.RMS * spread * rng.standard_normal(value.shape) * sign for sign in (0, 1)]
    sets = [selection.members(chosen_by(choice), 16) for choice in moved]
    changed = int(np.any(sets[0] != sets[1], axis=-1).sum())
    assert usually > 100
    assert abs(changed - usually) < 3 * np.sqrt(usually)


def chosen_by(choice: Array) -> Array:
    """The gate's own lines."""
    return np.asarray(select(choice, np.zeros(choice.shape[1]), all_cases()["gate-ordinary"].cfg))
