"""The keystone: the reference's own lines, read by every kind of array without a change."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drive_fp8 import drive_fp8

import moespec
from moespec import MoEConfig
from moespec.arrays import sigmoid
from moespec.moe import MoEWeights, moe, moe_backward, moe_forward
from moespec.ops import RUN
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.oracle import answer, bounded
from moespec_conformance.protocol import Case
from moespec_conformance.readings import bounded as bounds
from moespec_conformance.readings import portable
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.foreign import Foreign
from moespec_conformance.readings.portable import Portable
from moespec_conformance.readings.spread import Spread

CASE = all_cases()["moe-backward-ordinary"]


def whole_layer(case: Case, lift: Callable[[Any], Any]) -> dict[str, Any]:
    """The layer forward, in place and backward, on arrays of one reading: every output by name."""
    t = {name: lift(array) for name, array in case.inputs.items() if name != "topk_idx"}
    weights = MoEWeights(**{name: t[name] for name in MoEWeights._fields})
    dweights = MoEWeights(*map(np.zeros_like, weights))
    with np.errstate(over="ignore"):
        y, cache = moe_forward(t["x"], weights, t["bias"], case.cfg)
        dx = moe_backward(t["dy"], cache, weights, dweights, case.cfg)
        in_place = moe(t["x"], weights, t["bias"], case.cfg)
    return {"y": y, "in_place": in_place, "dx": dx, **{f"d{n}": d for n, d in dweights._asdict().items()}}


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    """The layer in float64."""
    return whole_layer(CASE, lambda a: a.astype(np.float64))


def test_float32_lies_within_its_bounds(truth: dict[str, Any]) -> None:
    """And the bounds are tight enough to say something: a small part of the tensor's size."""
    read = whole_layer(CASE, lambda a: Bounded.of(a, "float32"))
    for name, got in whole_layer(CASE, lambda a: a).items():
        bound = read[name].e
        np.testing.assert_allclose(read[name].v, truth[name], rtol=1e-12, atol=1e-12)
        assert (np.abs(got - truth[name]) <= bound).all(), name
        assert np.median(bound) < 1e-2 * np.std(truth[name]), name


def test_bfloat16_store_widens_the_bounds_outside_the_router_only() -> None:
    """MOE-7: what the router makes keeps float32's bounds."""
    case, same = all_cases()["moe-bfloat16"], {}
    for arithmetic in ("float32", "bfloat16"):
        twin = Case("", "moe", case.config, case.build, (), arithmetic=arithmetic)
        same[arithmetic] = bounded(twin)
    assert np.array_equal(same["float32"]["topk_weight"].e, same["bfloat16"]["topk_weight"].e)
    assert np.median(same["bfloat16"]["y"].e / same["float32"]["y"].e) > 100


def test_sums_may_be_reordered_within_the_bounds() -> None:
    """The bound of a chain of additions covers every order of it, also those with larger partial sums."""
    rng = np.random.default_rng(0)
    terms = (rng.standard_normal((12, 2000)) * 10.0 ** rng.integers(-3, 4, (12, 1))).astype(np.float32)
    chain = Bounded.lift(np.zeros(2000))
    for term in terms:
        chain += Bounded.lift(term)
    for _ in range(50):
        total = np.zeros(2000, np.float32)
        for term in terms[rng.permutation(12)]:
            total += term
        assert (np.abs(total - chain.v) <= chain.e).all()


def test_products_of_matrices_may_be_split_and_reordered_within_the_bounds() -> None:
    """Split-K, sequential, reversed, and products of one sign, where the bound is sharp."""
    rng = np.random.default_rng(1)
    for a, b in [
        (rng.standard_normal((8, 512)), rng.standard_normal((512, 8))),
        (rng.random((8, 512)), rng.random((512, 8))),
    ]:
        x, y = a.astype(np.float32), b.astype(np.float32)
        read = Bounded.lift(x) @ Bounded.lift(y)
        sequential = np.zeros((8, 8), np.float32)
        for c in range(512):
            sequential += x[:, c, None] * y[None, c]
        split = sum((x[:, c::8] @ y[c::8] for c in range(8)), np.zeros((8, 8), np.float32))
        for got in (x @ y, sequential, split, x[:, ::-1] @ y[::-1]):
            assert (np.abs(got - read.v) <= read.e).all()


def test_functions_stay_within_their_bounds_everywhere() -> None:
    """Sigmoid and SwiGLU in float32 over the whole range, where exp overflows and where it underflows."""
    x = np.linspace(-120, 120, 100_001).astype(np.float32)
    read, got = sigmoid(Bounded.lift(x)), sigmoid(x)
    assert (np.abs(got - read.v) <= read.e).all()
    with np.errstate(over="ignore"):
        silu = x / (1 + np.exp(-x))
        gate = Bounded.lift(x)
        read = gate / (1 + np.exp(-gate))
    assert (np.abs(silu - read.v) <= read.e).all()
    assert (read.e <= 1e-5 * np.abs(read.v) + 1e-35).all()


@pytest.mark.parametrize("name", [n for n in all_cases() if "gates-" in n or "logits-" in n or n.endswith("-bfloat16")])
def test_no_bound_is_lost_at_the_extremes(name: str) -> None:
    """Finite inputs have finite bounds, and none is NaN: a bound without an end would judge nothing."""
    if all_cases()[name].kind != "exact":
        for output, bound in answer(all_cases()[name]).bounds.items():
            assert np.isfinite(bound).all(), output
            assert (bound >= 0).all(), output


def test_two_products_may_share_one_accumulator() -> None:
    """One product over both halves of a fused matrix lies within the bound of the sum of two, where signs agree."""
    rng = np.random.default_rng(3)
    a, b, c, d = (rng.random(shape).astype(np.float32) for shape in ((8, 64), (64, 8), (8, 64), (64, 8)))
    read = Bounded.lift(a) @ Bounded.lift(b) + Bounded.lift(c) @ Bounded.lift(-d)
    total = np.zeros((8, 8), np.float32)
    for x, y in ((a, b), (c, -d)):
        for k in range(64):
            total += x[:, k, None] * y[None, k]
    assert (np.abs(total - read.v) <= read.e).all()
    assert (read.planes[3] == 129).all()


def test_dividing_by_what_may_be_zero_bounds_nothing() -> None:
    """A divisor within its error of 0 gives an infinite bound, not a wrong one."""
    assert np.isinf((Bounded.lift(1.0) / bounds.fresh(np.array(1e-9), np.array(1e-8), 0.0)).e)


def test_spread_tells_rounding_from_more(truth: dict[str, Any]) -> None:
    """Honest float32 lies near one standard deviation or below; TF32 inputs lie far outside."""
    read = whole_layer(CASE, Spread.lift)
    single = whole_layer(CASE, lambda a: a)
    coarse = whole_layer(CASE, lambda a: (a.view(np.int32) & ~0x1FFF).view(np.float32))
    for name in ("y", "dx", "dgate_proj", "ddown_proj", "dgate_weight"):
        deviation = np.sqrt(read[name].q)
        assert np.sqrt(np.mean(((single[name] - truth[name]) / deviation) ** 2)) < 1.0, name
        assert np.sqrt(np.mean(((coarse[name] - truth[name]) / deviation) ** 2)) > 50, name


def test_portable_is_the_same_layer(truth: dict[str, Any]) -> None:
    """To rounding of float64; and a row has the same bits alone as in its batch."""
    read = whole_layer(CASE, Portable.lift)
    for name, values in read.items():
        np.testing.assert_allclose(values.planes[0], truth[name], rtol=1e-10, atol=1e-12)
    a, b = np.random.default_rng(2).standard_normal((2, 33, 33))
    assert np.array_equal(portable.matmul(a, b)[7:8], portable.matmul(a[7:8], b))


def test_portable_exp_is_exact_to_the_last_place() -> None:
    """Against NumPy's, over the whole range."""
    x = np.linspace(-700, 700, 200_001)
    np.testing.assert_array_max_ulp(portable.exp(x), np.exp(x), maxulp=2)


def test_bounds_can_be_computed_portably() -> None:
    """Bounded over Portable gives the same bounds: readings compose."""
    case = all_cases()["moe-ordinary"]
    ordinary, golden = answer(case), answer(case, portable=True)
    for name, bound in ordinary.bounds.items():
        np.testing.assert_allclose(golden.bounds[name], bound, rtol=1e-9)


def test_foreign_arrays_give_the_same_bits_and_ask_only_for_what_cupy_has() -> None:
    """Everything goes through the two doors of NEP 13 and NEP 18, and CuPy has all of it."""
    Foreign.asked.clear()
    for case in (CASE, all_cases()["moe-backward-no-shared"]):
        lifted = dict(case.inputs)
        if "shared_gate_proj" not in lifted:
            h = case.cfg.hidden_size
            none = {"shared_gate_proj": (0, h), "shared_up_proj": (0, h), "shared_down_proj": (h, 0)}
            lifted |= {name: np.zeros(shape, np.float32) for name, shape in none.items()}
        twin = Case("", case.op, case.config, lambda made=lifted: {n: a.copy() for n, a in made.items()}, ())  # type: ignore[misc]
        plain = whole_layer(twin, lambda a: a)
        for name, got in whole_layer(twin, lambda a: Foreign(a.copy())).items():
            assert np.array_equal(got.planes[0], plain[name]), name
    assert {"matmul", "argsort", "put_along_axis", "searchsorted"} <= Foreign.asked


def test_foreign_ops_are_clean_too() -> None:
    """Dispatch, combine and the gate on given ids, ids foreign as well."""
    for name in ("dispatch-holes", "combine-padded", "gate-replay-holes", "gate-backward-holes", "moe-replay-holes"):
        case = all_cases()[name]
        inputs = {n: a for n, a in case.inputs.items() if not (n == "bias" and case.op.endswith("_backward"))}
        plain = RUN[case.op](case.cfg, **inputs)
        for out, got in RUN[case.op](case.cfg, **{n: Foreign(a.copy()) for n, a in inputs.items()}).items():
            assert np.array_equal(got.planes[0], plain[out]), (name, out)


def test_foreign_codes_give_the_same_bits_and_ask_only_for_what_cupy_has() -> None:
    """FP8 too: on a GPU codes are unsigned integers and scales float32."""
    Foreign.asked.clear()
    rng, cfg = np.random.default_rng(7), MoEConfig.from_dict(config(recipe="transformer-engine", block=(2, 8)))
    given: dict[str, Any] = {
        "x": (rng.standard_normal((9, 30)) * 2.0 ** rng.integers(-9, 9, (9, 30))).astype(np.float32)
    }
    given["x"][0], given["x"][3, 3], given["x"][5, 9] = 0, np.nan, np.inf
    for name in ("quantize", "dequantize", "requantize", "matmul_fp8"):
        foreign = RUN[name](cfg, **{key: Foreign(array.copy()) for key, array in given.items()})
        plain = RUN[name](cfg, **given)
        for key, got in foreign.items():
            as_bits = got.planes[0].astype(plain[key].dtype) if key == "scale" else got.planes[0].view(plain[key].dtype)
            assert as_bits.tobytes() == plain[key].tobytes(), (name, key)
        if name == "quantize":
            given = {"codes": plain["codes"].view(np.uint8), "scale": plain["scale"].astype(np.float32)}
        if name == "requantize":
            given = {f"{o}_{key}": array for o in "ab" for key, array in given.items()}
    with np.errstate(over="ignore"):
        drive_fp8(moespec, Foreign)
    assert {"frexp", "ldexp", "rint", "take", "nextafter"} <= Foreign.asked


@pytest.mark.parametrize(
    "mix",
    [
        lambda f, n: f + n,
        lambda f, n: n @ f,
        lambda f, n: np.where(n > 0, f, f),
        lambda f, n: f.__setitem__(slice(None), n),
        lambda f, n: np.asarray(f) + n,
        lambda f, n: f[n > 0],
    ],
    ids=["add", "matmul", "where", "write", "asarray", "index"],
)
def test_foreign_refuses_to_meet_a_host_array(mix: Callable[[Any, Any], Any]) -> None:
    """As CuPy does."""
    with pytest.raises(TypeError, match=r"met a foreign|does not turn into"):
        mix(Foreign(np.ones((3, 3))), np.ones((3, 3)))


@pytest.mark.parametrize("reading", [Bounded, Spread, Portable])
def test_a_function_without_a_rule_is_refused(reading: Any) -> None:
    """Never guessed, never turned into a plain array."""
    x = reading.lift(np.ones(3))
    for call in (lambda: np.sinh(x), lambda: np.median(x), lambda: np.add.reduce(x), lambda: np.asarray(x)):
        with pytest.raises(TypeError, match=reading.__name__):
            call()
