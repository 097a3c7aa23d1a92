"""Bounds through roundings to small formats: they hold all that is legal, they end, and they say something."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moespec.formats import FORMATS, rounded
from moespec.ops import RUN
from moespec.quant import Scheme, quantized_numbers
from moespec.signatures import OPS
from moespec_conformance.cases import all_cases
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.verdict import examine
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Case
from moespec_conformance.readings.bounded import fresh

RNG = np.random.default_rng(0)
NEAR = [c for c in all_cases().values() if {"fp8-products", "fp8-layer", "moments"} & set(c.profiles)]
BOUNDED = [c for c in NEAR if c.kind == "bounded" and c.op != "cast"]
LAYERS = [c for c in BOUNDED if c.op.startswith("moe_fp8")]


def inside(v: Any, e: Any, share: float) -> Any:
    """Numbers within v - e … v + e: at either end, or anywhere between."""
    return v + e * np.clip(share * RNG.uniform(-1, 1, np.shape(v)), -1, 1)


@pytest.mark.parametrize("fmt", list(FORMATS))
def test_all_that_numbers_within_a_bound_round_to_is_within_the_next(fmt: str) -> None:
    """FMT-1 under every size of error: far below a step, near one, many of them, across 0 and binades."""
    grid = FORMATS[fmt]
    v = np.exp2(RNG.uniform(-20, 20, 40_000)) * RNG.choice([-1, 1], 40_000)
    v[::7] = np.exp2(RNG.integers(-12, 12, len(v[::7])))  # edges of binades
    v[::11] = 0
    e = np.abs(v) * np.exp2(RNG.uniform(-30, 2, len(v))) + np.exp2(RNG.uniform(-40, 0, len(v)))
    e[::5] = 0
    read = rounded(fresh(v, e, 0.0), grid)
    for share in (1.0, 1e9, -1e9, 0.5):
        got = rounded(inside(v, e, share), grid)
        assert (np.abs(got - read.v) <= read.e).all()
    sure = e < np.abs(v) * 2.0**-25
    assert np.median(read.e[sure & (v != 0)]) == 0


@pytest.mark.parametrize(
    "recipe", ["deepseek-v3", "deepseek-v3.1", "deepgemm", "tilekernels", "transformer-engine", "torchao"]
)
def test_all_that_a_block_may_become_is_within_its_bound(recipe: str) -> None:
    """QNT-2 … QNT-4: numbers times scales, when every element may lie anywhere within its error."""
    for scale_format in ("float32", "ue8m0"):
        scheme = Scheme(recipe, "e4m3", (1, 16), scale_format, "saturate")
        v = RNG.standard_normal((400, 64)) * np.exp2(RNG.integers(-4, 4, (400, 1)))
        v[::3, 5] = 448 * np.exp2(RNG.integers(-8, -4, len(v[::3])))  # where a power of two is about to double
        for size in (0.0, 1e-7, 1e-4, 0.01, 0.05):
            e = np.abs(v) * size
            numbers, scale = quantized_numbers(fresh(v, e, 0.0), scheme)
            for share in (1.0, 1e9):
                got, got_scale = quantized_numbers(inside(v, e, share), scheme)
                assert (np.abs(got_scale - scale.v) <= scale.e).all()
                assert (np.abs(got - numbers.v) <= numbers.e).all()
                assert np.isfinite(numbers.e).all()


@pytest.mark.parametrize("case", BOUNDED, ids=lambda case: case.id)
def test_every_bound_of_a_case_ends(case: Case) -> None:
    """None is infinite or NaN: a bound without an end would judge nothing."""
    for name, bound in answer(case).bounds.items():
        assert np.isfinite(bound).all(), name
        assert (bound >= 0).all(), name


def relative(case: Case) -> dict[str, Any]:
    """By output: bounds in units of its root mean square."""
    right = answer(case)
    sized = [name for name, bound in right.bounds.items() if bound.size]
    rms = {name: np.sqrt(np.mean(right.values[name] ** 2)) for name in sized}
    return {name: right.bounds[name] / rms[name] for name in rms if rms[name] > 0}


def test_bounds_of_products_are_small() -> None:
    """At most half a percent of a product's size, which is what no wrong scale stays within."""
    products = [c for c in BOUNDED if "fp8-products" in c.profiles]
    worst = {c.id: r.max() for c in products for r in relative(c).values()}
    assert len(worst) > 60
    assert max(worst.values()) < 5e-3


def test_bounds_of_the_layer_say_something() -> None:
    """Forward a quarter of the output's size at most; backward, where a code's doubt reaches whole rows, mostly."""
    for case in LAYERS:
        for name, bound in relative(case).items():
            if case.op == "moe_fp8":
                assert bound.max() < 0.25, (case.id, name)
            elif name != "dgate_weight":  # small differences of what all experts give
                assert np.median(bound) < 0.1, (case.id, name)
                assert np.mean(bound > 1) < 0.1, (case.id, name)


def given(case: Case, **changed: Any) -> Finding:
    """The verdict on the reference as it computes with other rules, or other numbers."""
    cfg = replace(case.cfg, **changed)
    with np.errstate(all="ignore"):
        out = RUN[case.op](cfg, **case.inputs)
    return examine(case, compared(case, out))[0]


def compared(case: Case, out: dict[str, Any]) -> dict[str, Any]:
    """What follows the routing, without the steps on the way."""
    names = {t.name for t in OPS[case.op].outputs} - {"topk_idx", "topk_weight"}
    return {name: array for name, array in out.items() if name in names}


@pytest.mark.parametrize("case", [c for c in BOUNDED if c.op != "adamw"], ids=lambda case: case.id)
def test_other_legal_sums_pass(case: Case) -> None:
    """ACC-2: in order of blocks or not, promoted or not, scales before or after."""
    for rule in ("promoted", "float32"):
        if case.cfg.promote_every:
            assert given(case, accumulate=rule).status == "pass"


ORDINARY = {"moe-fp8-ordinary", "moe-fp8-backward-ordinary", "moe-fp8-magnitudes", "moe-fp8-backward-magnitudes"}
ILLEGAL = {
    "hopper": {"accumulate": "hopper"},
    "another recipe": {"recipe": "torchao"},
    "another floor of scales": {"scale_format": "ue8m0"},
    "weights after": {"weight_position": "before_down"},
}


@pytest.mark.parametrize("bug", list(ILLEGAL))
def test_what_another_layer_does_fails(bug: str) -> None:
    """Wrong arithmetic, blocks from values, scales of the other kind, weights elsewhere."""
    found = [given(c, **ILLEGAL[bug]).status for c in LAYERS if c.id in ORDINARY]
    assert "fail" in found


def test_float64_passes() -> None:
    """More digits than float32's are legal, through the whole layer."""
    for case in LAYERS:
        if case.cfg.b_format == "e4m3" and "steep" not in case.id:
            inputs = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in case.inputs.items()}
            with np.errstate(over="ignore"):  # EXP-2
                out = RUN[case.op](case.cfg, **inputs)
            assert examine(case, compared(case, out))[0].status == "pass", case.id
