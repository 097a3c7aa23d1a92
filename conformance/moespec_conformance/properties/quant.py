"""Blocks with scales: what is lost by quantising, and what is not."""

from functools import partial

import numpy as np
from hypothesis import strategies as st

from moespec.formats import FORMATS, rounded
from moespec.quant import largest_of, tiles
from moespec_conformance.judge.blocks import NEAR
from moespec_conformance.properties.engine.comparing import near
from moespec_conformance.properties.engine.fp8 import blocks, coded, lifts, passed_on, spread_over, values_of
from moespec_conformance.properties.engine.layers import also
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, of_op
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Array, Case

ENOUGH = 1e-3  # above every recipe's floor
POWERS = st.sampled_from((1, -1, 3))


def half_a_step(ask: Ask, trial: Trial) -> None:
    """QNT-4: what comes back is within half a step of the grid at x, in the block's own scale."""
    case, x = trial.case, trial.case.inputs["x"].astype(np.float64)
    fmt, out = FORMATS[case.cfg.format], ask(case)
    s = spread_over(case, out["scale"], x.shape)
    number = x / s
    _, exponent = np.frexp(number)
    step = np.ldexp(1.0, np.maximum(exponent - 1, fmt.emin) - fmt.mantissa)
    beyond = np.maximum(np.abs(number) - fmt.largest, 0)  # it saturates there
    near(
        "codes * scale", values_of(out["codes"], case.cfg.format) * s, x, s * (step / 2 + beyond) + 2 * NEAR * np.abs(x)
    )


def twice_is_once(ask: Ask, trial: Trial) -> None:
    """QNT-2 … QNT-4: quantising what was dequantised loses nothing more.

    With powers of two the numbers are the same; otherwise the codes are, and a scale may move by its last bits.
    """
    case, name = trial.case, trial.case.cfg.format
    first = ask(case)
    x = ask(of_op(case, "dequantize", passed_on(first, name)))["x"]
    second = ask(given(case, x=x))
    if case.cfg.scale_format == "ue8m0":
        again = ask(of_op(case, "dequantize", passed_on(second, name)))["x"]
        near("what was quantised twice", again, x.astype(np.float64))
    else:
        near("codes the second time", *(values_of(out["codes"], name) for out in (second, first)))


def power_of_two(ask: Ask, trial: Trial) -> None:
    """QNT-2 … QNT-4: x times 2^k has the same codes, and scales times 2^k, above the recipe's floor."""
    case, power = trial.case, float(2.0 ** trial.how["power"])
    x = case.inputs["x"]
    first, second = ask(case), ask(given(case, x=np.asarray(x * power, np.float32)))
    s, amax = (spread_over(case, each, x.shape) for each in (first["scale"], largest_of(tiles(x, case.cfg.block))))
    kept = (amax >= ENOUGH * max(1, 1 / power)) & settled(case, x, s)
    want = values_of(first["codes"], case.cfg.format)
    near("codes of x times a power of two", values_of(second["codes"], case.cfg.format)[kept], want[kept])
    moved = spread_over(case, second["scale"], x.shape)[kept]
    near("scale of x times a power of two", moved, power * s[kept], slack(case) * power * s[kept])


def mirrored(ask: Ask, trial: Trial) -> None:
    """QNT-2, QNT-4: -x has the scales of x, and its codes with the other sign."""
    case, x = trial.case, trial.case.inputs["x"]
    first, second = ask(case), ask(given(case, x=-x))
    s = spread_over(case, first["scale"], x.shape)
    near("scale of -x", second["scale"], first["scale"], slack(case) * first["scale"].astype(np.float64))
    want, kept = -values_of(first["codes"], case.cfg.format), settled(case, x, s)
    near("codes of -x", values_of(second["codes"], case.cfg.format)[kept], want[kept])


def slack(case: Case) -> float:
    """How far two of an implementation's scales may differ, relative, though they should be one (QNT-2, QNT-3)."""
    return 0.0 if case.cfg.scale_format == "ue8m0" else 2 * NEAR


def settled(case: Case, x: Array, s: Array) -> Array:
    """Where x / s is not so near a tie that it might round either way (QNT-4)."""
    fmt, number = FORMATS[case.cfg.format], x / s
    return np.asarray(rounded(number * (1 - 2 * NEAR), fmt) == rounded(number * (1 + 2 * NEAR), fmt))


def same_by_hand(ask: Ask, trial: Trial) -> None:
    """QNT-7: to requantise is to dequantise, and then to quantise."""
    case, cfg = trial.case, trial.case.cfg
    got = ask(case)
    x = ask(of_op(case, "dequantize", case.inputs, format=cfg.a_format, block=list(cfg.a_block)))["x"]
    by_hand = ask(of_op(case, "quantize", {"x": x}, format=cfg.b_format, block=list(cfg.b_block)))
    near("scale", got["scale"], by_hand["scale"].astype(np.float64))
    near("codes", *(values_of(out["codes"], cfg.b_format) for out in (got, by_hand)))


def lifted(ask: Ask, trial: Trial) -> None:
    """QNT-8: FP4 becomes FP8 without loss."""
    case, cfg = trial.case, trial.case.cfg
    out = ask(case)
    up = of_op(case, "dequantize", passed_on(out, cfg.b_format), format=cfg.b_format, block=list(cfg.b_block))
    down = of_op(case, "dequantize", case.inputs, format=cfg.a_format, block=list(cfg.a_block))
    near("what lifted codes stand for", ask(up)["x"], ask(down)["x"].astype(np.float64))


def scale_multiplies(ask: Ask, trial: Trial) -> None:
    """QNT-6: twice the scale is twice the number."""
    case = trial.case
    twice = given(case, scale=np.asarray(2 * case.inputs["scale"], np.float32))
    near("x under twice the scale", ask(twice)["x"], 2 * ask(case)["x"].astype(np.float64))


BLOCKS, ROWS, CODED = (
    partial(blocks, fixed={}),
    partial(blocks, fixed={"block": [1, 128]}),
    partial(coded, op="dequantize"),
)

FOUND = (
    any_order("quantize", "M", ROWS, ("QNT-1", "QNT-2")),
    Property("quantize-within-half-a-step", ("QNT-4",), ("quantize",), BLOCKS, half_a_step),
    Property("quantize-twice-is-once", ("QNT-3", "QNT-4"), ("quantize", "dequantize"), BLOCKS, twice_is_once),
    Property(
        "quantize-power-of-two", ("QNT-2", "QNT-3", "QNT-4"), ("quantize",), also(BLOCKS, "power", POWERS), power_of_two
    ),
    Property("quantize-is-mirrored", ("QNT-2", "QNT-4"), ("quantize",), BLOCKS, mirrored),
    Property("dequantize-scale-multiplies", ("QNT-6",), ("dequantize",), CODED, scale_multiplies),
    any_order("dequantize", "M", partial(coded, op="dequantize", fixed={"block": [1, 128]}), ("QNT-6",)),
    Property(
        "requantize-is-both",
        ("QNT-7",),
        ("requantize", "dequantize", "quantize"),
        partial(coded, op="requantize"),
        same_by_hand,
    ),
    Property("lift-loses-nothing", ("QNT-8",), ("lift_fp4", "dequantize"), lifts, lifted),
)
