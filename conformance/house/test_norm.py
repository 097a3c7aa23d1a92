"""RMSNorm and cross entropy: gradients by complex step, every reading, and an implementation with planted bugs."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec.loss import cross_entropy_backward, cross_entropy_forward
from moespec.norm import rms_norm_backward, rms_norm_forward
from moespec.ops import RUN
from moespec_conformance import check
from moespec_conformance.cases import all_cases
from moespec_conformance.oracle import answer, read
from moespec_conformance.protocol import Case
from moespec_conformance.readings import portable
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.foreign import Foreign

STEP, CLOSE = 1e-200, 1e-13
BFLOAT16 = ml_dtypes.bfloat16
CASES = [case for case in all_cases().values() if "norm-loss" in case.profiles]
ONE_OF_EACH = [f"{op}-ordinary" for op in ("rms-norm", "rms-norm-backward", "cross-entropy", "cross-entropy-backward")]


def agree(analytic: Any, numeric: float, products: Any) -> None:
    """To 1e-13 of the terms that were added."""
    assert abs(float(analytic) - numeric) <= CLOSE * max(float(np.abs(products).sum()), 1e-300)


@pytest.mark.spec("NRM-3")
@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_norm_gradients(tokens: int, size: float) -> None:
    """In random directions, where eps rules and where it does not; and dweight alone, entry by entry."""
    rng = np.random.default_rng(0)
    x, weight, dy = size * rng.standard_normal((tokens, 6)), rng.standard_normal(6), rng.standard_normal((tokens, 6))
    dx, dweight = rms_norm_backward(dy, rms_norm_forward(x, weight, 1e-6)[1])
    for _ in range(3):
        v, w = size * rng.standard_normal(x.shape), rng.standard_normal(6)
        moved = rms_norm_forward(x + 1j * STEP * v, weight + 1j * STEP * w, 1e-6)[0]
        products = np.concatenate([(dx * v).ravel(), dweight * w])
        terms = np.concatenate([products, (dy * moved.imag / STEP).ravel()])
        agree(products.sum(), float((dy * moved).sum().imag / STEP), terms)


@pytest.mark.spec("LOS-4")
@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize("size", [1.0, 90.0])
def test_loss_gradients(tokens: int, size: float) -> None:
    """In random directions; the shift by the largest logit, which moves along, cancels."""
    rng = np.random.default_rng(1)
    logits, target = size * rng.standard_normal((tokens, 11)), rng.integers(0, 11, tokens)
    loss, cache = cross_entropy_forward(logits, target)
    assert loss.shape == ()
    dlogits = cross_entropy_backward(np.float64(0.3), cache)
    for _ in range(3):
        v = rng.standard_normal(logits.shape)
        moved, _ = cross_entropy_forward(logits + 1j * STEP * v, target)
        agree((dlogits * v).sum(), 0.3 * float(np.imag(moved)) / STEP, v / max(tokens, 1))


@pytest.mark.spec("LOS-4")
def test_loss_gradient_of_a_token_adds_up_to_nothing() -> None:
    """Moving all logits of a token changes nothing."""
    case = all_cases()["cross-entropy-backward-ordinary"]
    _, cache = cross_entropy_forward(case.inputs["logits"].astype(np.float64), case.inputs["target"])
    np.testing.assert_allclose(cross_entropy_backward(np.float64(1), cache).sum(axis=-1), 0, atol=1e-16)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bounds_hold_and_say_something(case: Case) -> None:
    """Float32 lies within them; all are finite, and small beside what they bound."""
    right = answer(case)
    got = read(case, lambda _, a: a.astype(np.float32) if a.dtype == BFLOAT16 else a)
    for name, bound in right.bounds.items():
        assert np.isfinite(bound).all()
        assert (np.abs(got[name] - right.values[name]) <= bound).all(), name
        if bound.size and case.arithmetic == "float32":
            assert np.median(bound) <= 1e-3 * np.abs(right.values[name]).max() + 1e-5, name


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_other_readings(name: str) -> None:
    """Portable and Bounded over Portable to rounding of float64; Foreign to the bit, asking for what CuPy has."""
    case = all_cases()[name]
    truth, golden = answer(case), answer(case, portable=True)
    Foreign.asked.clear()
    plain = RUN[case.op](case.cfg, **case.inputs)
    foreign = RUN[case.op](case.cfg, **{key: Foreign(a.copy()) for key, a in case.inputs.items()})
    for out, value in truth.values.items():
        np.testing.assert_allclose(golden.values[out], value, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(golden.bounds[out], truth.bounds[out], rtol=1e-9)
        assert np.array_equal(foreign[out].planes[0], plain[out])


def test_logarithm_and_root_stay_within_their_bounds() -> None:
    """In float32 over the whole range; and the portable logarithm is exact to four units in the last place."""
    x = np.exp(np.linspace(-87, 88, 200_001)).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.5, 2, 200_001).astype(np.float32)])
    for function in (np.log, np.sqrt):
        bound: Any = function(Bounded.lift(x))
        assert (np.abs(function(x) - bound.v) <= bound.e).all()
        assert (bound.e <= 1e-6 * np.abs(bound.v) + 1e-37).all()
    double = np.exp(np.linspace(-700, 700, 200_001))
    np.testing.assert_array_max_ulp(portable.log(double), np.log(double), maxulp=4)


def test_a_root_or_logarithm_near_zero_is_bounded_by_what_may_be() -> None:
    """The error of the argument may be all of it: a root is then off by the error's root, a logarithm by anything."""
    near = Bounded(np.array([1e-6, 1e-6]), np.array([1e-6, 5e-7]), np.zeros(2), np.zeros(2))
    near.store = 0.0
    root, logarithm = np.sqrt(near), np.log(near)
    assert (root.e >= np.sqrt(1e-6) * np.array([1, 0.29])).all()
    assert np.isinf(logarithm.e[0])
    assert logarithm.e[1] >= np.log(2)


class Honest:
    """RMSNorm and cross entropy a second time, in float32, one token at a time, from SPEC.md alone."""

    name, version, arithmetic = "second", "1", ("float32",)

    def mean_square(self, x: Any) -> Any:
        """NRM-1."""
        return np.float32(np.dot(x, x)) / np.float32(len(x))

    def rstd(self, x: Any, eps: float) -> Any:
        """NRM-1."""
        return np.float32(1) / np.sqrt(self.mean_square(x) + np.float32(eps))

    def scaled(self, x_hat: Any, weight: Any) -> Any:
        """NRM-2."""
        return x_hat * weight

    def rms_norm(self, config: dict[str, Any], *, x: Any, weight: Any) -> dict[str, Any]:
        """NRM-2."""
        eps = config.get("rms_norm_eps", 1e-6)
        rows = [self.scaled(row * self.rstd(row, eps), weight) for row in x]
        return {"y": np.array(rows, np.float32).reshape(x.shape)}

    def row_backward(self, x: Any, g: Any, r: Any) -> Any:
        """NRM-3, with rstd cubed."""
        return r * g - x * (r * r * r) * (np.dot(g, x) / np.float32(len(x)))

    def rms_norm_backward(self, config: dict[str, Any], *, x: Any, weight: Any, dy: Any) -> dict[str, Any]:
        """NRM-3."""
        eps = config.get("rms_norm_eps", 1e-6)
        dx, dweight = np.zeros_like(x), np.zeros_like(weight)
        for i, row in enumerate(x):
            r = self.rstd(row, eps)
            dx[i] = self.row_backward(row, dy[i] * weight, r)
            dweight += dy[i] * (row * r)
        return {"dx": dx, "dweight": dweight}

    def log_p(self, logits: Any) -> Any:
        """LOS-1, LOS-2."""
        shifted = logits - logits.max()
        return shifted - np.log(np.exp(shifted).sum())

    def mean(self, losses: Any) -> Any:
        """LOS-3."""
        return sum(losses, np.float32(0)) / np.float32(max(len(losses), 1))

    def cross_entropy(self, _config: Any, *, logits: Any, target: Any) -> dict[str, Any]:
        """LOS-3."""
        return {"loss": self.mean([-self.log_p(row)[t] for row, t in zip(logits, target, strict=True)])}

    def cross_entropy_backward(self, _config: Any, *, logits: Any, target: Any, dloss: Any) -> dict[str, Any]:
        """LOS-4."""
        one = np.arange(logits.shape[1]) == target[:, None]
        p = np.exp([self.log_p(row) for row in logits]).reshape(logits.shape)
        return {"dlogits": (p - one).astype(np.float32) * (dloss / np.float32(max(len(target), 1)))}


class Late(Honest):
    """Bfloat16 with statistics in float32, and one store: the cast after the weight."""

    arithmetic = ("bfloat16",)

    def rms_norm(self, config: dict[str, Any], *, x: Any, weight: Any) -> dict[str, Any]:
        """NRM-2."""
        y = super().rms_norm(config, x=x.astype(np.float32), weight=weight.astype(np.float32))["y"]
        return {"y": y.astype(BFLOAT16)}

    def rms_norm_backward(self, config: dict[str, Any], *, x: Any, weight: Any, dy: Any) -> dict[str, Any]:
        """NRM-3."""
        x, weight, dy = (a.astype(np.float32) for a in (x, weight, dy))
        made = super().rms_norm_backward(config, x=x, weight=weight, dy=dy)
        return {name: a.astype(BFLOAT16) for name, a in made.items()}


class Early(Late):
    """Bfloat16 with the cast before the weight, and another after it."""

    def scaled(self, x_hat: Any, weight: Any) -> Any:
        """NRM-2."""
        return x_hat.astype(BFLOAT16).astype(np.float32) * weight


def planted(**changed: Callable[..., Any]) -> Any:
    """An implementation with other methods."""
    return type("Planted", (Honest,), changed)()


def shift_added_back(_: Any, logits: Any) -> Any:
    """Log-sum-exp as one number."""
    return logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))


BUGS: dict[str, Any] = {
    "eps beside the root": planted(rstd=lambda s, x, e: 1 / (np.sqrt(s.mean_square(x)) + np.float32(e))),
    "eps as a floor": planted(rstd=lambda s, x, e: 1 / np.sqrt(np.maximum(s.mean_square(x), np.float32(e)))),
    "no eps": planted(rstd=lambda s, x, _: 1 / np.sqrt(s.mean_square(x) + np.float32(1e-30))),
    "one eps for all": planted(rstd=lambda s, x, _: 1 / np.sqrt(s.mean_square(x) + np.float32(1e-6))),
    "a sum for the mean": planted(mean_square=lambda _, x: np.dot(x, x)),
    "one less than the width": planted(mean_square=lambda _, x: np.dot(x, x) / np.float32(max(len(x) - 1, 1))),
    "LayerNorm": planted(mean_square=lambda _, x: np.var(x)),
    "one plus the weight": planted(scaled=lambda _, x_hat, w: x_hat * (1 + w)),
    "no weight": planted(scaled=lambda _, x_hat, w: x_hat * np.sign(w)),
    "backward without the mean": planted(row_backward=lambda _, _x, g, r: r * g),
    "backward with a sum": planted(row_backward=lambda _, x, g, r: r * g - x * r**3 * np.dot(g, x)),
    "backward with rstd squared": planted(row_backward=lambda _, x, g, r: r * g - x * r**2 * np.dot(g, x) / len(x)),
    "no shift": planted(log_p=lambda _, z: z - np.log(np.exp(z).sum())),
    "the shift added back": planted(log_p=shift_added_back),
    "the logarithm of a softmax": planted(log_p=lambda _, z: np.log(np.exp(z - z.max()) / np.exp(z - z.max()).sum())),
    "a floor under p": planted(
        log_p=lambda _, z: np.log(np.maximum(np.exp(z - z.max()) / np.exp(z - z.max()).sum(), np.float32(1e-12)))
    ),
    "base 2": planted(log_p=lambda s, z: Honest.log_p(s, z) / np.float32(np.log(2))),
    "a sum over the tokens": planted(mean=lambda _, losses: np.float32(sum(losses))),
    "smoothed targets": planted(log_p=lambda s, z: 0.99 * Honest.log_p(s, z) + 0.01 * Honest.log_p(s, z).mean()),
}


@pytest.mark.spec("NRM-2")
@pytest.mark.parametrize("made", [Honest(), Late(), Early()], ids=["float32", "cast-after", "cast-before"])
def test_an_honest_implementation_passes(made: Honest) -> None:
    """Another order of everything, rstd cubed in the backward; both places of bfloat16's cast."""
    with np.errstate(under="ignore"):
        report = check(made, "norm-loss")
    assert report.ok
    assert not report.counts["not_supported"], report.counts


@pytest.mark.spec("LOS-2")
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """By a case of the op that it is in, ten times beyond the bound or without a bound."""
    with np.errstate(all="ignore"):
        results = check(BUGS[bug], "norm-loss").results
    failed = [r for r in results if r.status == "fail"]
    assert failed
    assert any(r.error_over_bound is None or r.error_over_bound > 10 for r in failed)
