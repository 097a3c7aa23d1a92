"""Blocks: every recipe against a few lines of its own, powers of two against exact fractions, what loses nothing."""

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec import MoEConfig, ops
from moespec.formats import FORMATS, decode
from moespec.quant import Quantized, Scheme, dequantize, lift, quantize, quantized_numbers, requantize, spread
from moespec.recipes import RECIPES
from moespec_conformance.cases.inputs import config

f32 = np.float32
SPEC = Path(__file__).parents[2] / "SPEC.md"
DTYPES: dict[str, Any] = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
TOP = {"e4m3": 448, "e5m2": 57344, "e4m3fnuz": 240, "e2m1": 6, "e5m6": 65024}


def least_power(amax: float, top: int) -> Any:
    """QNT-3 in fractions: the least 2^k, k >= -127, with amax <= 2^k top."""
    exact = Fraction(amax)
    k = max(exact.numerator.bit_length() - exact.denominator.bit_length() - top.bit_length() - 2, -127)  # too small
    while exact > Fraction(2) ** k * top:
        k += 1
    return f32(2.0**k)


def ocp_power(amax: float, top: int) -> Any:
    """OCP's: the power of two below amax over the one below top."""
    k = int(np.floor(np.log2(float(amax)))) - (top.bit_length() - 1)
    return f32(2.0 ** max(k, -127))


def by_hand(recipe: str, block: Any, fmt: str, scale_format: str) -> tuple[Any, Any]:
    """One block's scale, and its numbers in float32 before they are rounded: the rows of QNT-2's table."""
    te, mx = recipe == "transformer-engine", recipe.startswith("mx")
    top, largest = TOP[fmt], (np.fmax if te else np.maximum).reduce(np.abs(block), axis=None)
    largest = f32(0) if te and np.isnan(largest) else largest
    if not largest < np.inf:
        return (f32(1), block) if te else (f32(np.nan), np.full_like(block, np.nan))
    if te and largest == 0:
        return f32(1), block
    if te or mx:
        floor = f32(2.0**-149)
    elif recipe == "torchao":
        floor = f32(1e-12)
    else:
        floor = f32(6 * 2.0**-126) if fmt == "e2m1" and recipe != "deepgemm" else f32(1e-4)
    amax = max(largest, floor)
    if scale_format == "ue8m0":
        scale = (ocp_power if recipe == "mx-floor" else least_power)(float(amax), top)
        return scale, (block.astype(np.float64) / float(scale)).astype(f32)
    if te or recipe == "torchao":
        quotient = min(f32(top) / amax, np.finfo(f32).max)
        return f32(1) / quotient, block * quotient
    scale = amax / f32(top)
    if recipe == "deepgemm":
        return scale, block * (f32(1) / scale)
    return scale, block * (f32(top) / amax) if recipe == "tilekernels" else block / scale


def blocks_of(shape: tuple[int, int], block: tuple[int, int]) -> list[tuple[int, int, Any]]:
    """Index of each block, and where it lies."""
    (m, n), (bm, bn) = shape, block
    at = [(i, j) for i in range(-(-m // bm)) for j in range(-(-n // bn))]
    return [(i, j, np.s_[i * bm : (i + 1) * bm, j * bn : (j + 1) * bn]) for i, j in at]


def hard(shape: tuple[int, int], seed: int) -> Any:
    """Ordinary numbers of many sizes, and rows of zeros, of tiny numbers, with a NaN, and with infinities."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12, shape)).astype(f32)
    for row, value in enumerate([0.0, 2.0**-149, 1e-42, -0.0, 2.0**-133, 3e-13]):
        x[row % shape[0]] = x[row % shape[0]] if row >= shape[0] - 4 else value
    if shape[0] > 9:
        x[7, 3], x[8, 2], x[9, -1] = np.nan, np.inf, -np.inf
    return x


@pytest.mark.spec("QNT-2")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("fmt", ["e4m3", "e5m2", "e4m3fnuz", "e2m1"])
@pytest.mark.parametrize("scale_format", ["float32", "ue8m0"])
@pytest.mark.parametrize(
    ("shape", "block"), [((14, 300), (1, 128)), ((14, 70), (1, 32)), ((130, 6), (128, 4)), ((11, 8), (2, 3))]
)
def test_every_recipe_by_hand(
    recipe: str, fmt: str, scale_format: str, shape: tuple[int, int], block: tuple[int, int]
) -> None:
    """Scale and codes of each block, ragged ones too; a NaN stays NaN; codes of a lost block are free."""
    if recipe.startswith("mx") and scale_format == "float32":
        with pytest.raises(ValueError, match=r"^CFG-19"):
            MoEConfig.from_dict(config(recipe=recipe, scale_format=scale_format))
        return
    x, scheme = hard(shape, 0), Scheme(recipe, fmt, block, scale_format, "saturate")
    with np.errstate(over="ignore"):
        got = quantize(x, scheme)
        numbers, scale = quantized_numbers(x, scheme)
        assert got.scale.shape == tuple(-(-s // b) for s, b in zip(shape, block, strict=True))
        np.testing.assert_array_equal(scale, got.scale)
        for i, j, at in blocks_of(shape, block):
            want, before = by_hand(recipe, x[at], fmt, scale_format)
            np.testing.assert_array_equal(got.scale[i, j], want)
            kept = ~np.isnan(before)
            codes = np.clip(before[kept], -TOP[fmt], TOP[fmt]).astype(DTYPES[fmt]).astype(f32)
            np.testing.assert_array_equal(decode(got.codes[at], FORMATS[fmt])[kept], codes)
            np.testing.assert_array_equal(numbers[at][kept], codes)
            assert fmt == "e2m1" or np.isnan(decode(got.codes[at], FORMATS[fmt])[~kept]).all()


@pytest.mark.spec("QNT-3")
@pytest.mark.parametrize("fmt", ["e4m3", "e2m1", "e5m2", "e5m6"])
def test_powers_of_two_are_the_least_that_fit(fmt: str) -> None:
    """All bfloat16 above 0, and top * 2^k with its neighbours for every k, each a block of its own; in fractions."""
    largest = (np.arange(1, 0x7F80, dtype=np.uint32) << np.uint32(16)).view(f32)
    with np.errstate(over="ignore"):
        edges = np.ldexp(f32(TOP[fmt]), np.arange(-149, 120).astype(np.int32))
    edges = edges[(edges > 0) & (edges < np.inf)]
    some = np.concatenate([largest, edges, np.nextafter(edges, f32(0)), np.nextafter(edges, f32(np.inf))])
    some = some[(some > 0) & (some < np.inf)]
    scheme = Scheme("mx-rceil", fmt, (1, 1), "ue8m0", "saturate")
    got = quantize(some[:, None], scheme)
    assert np.array_equal(got.scale[:, 0], [least_power(float(amax), TOP[fmt]) for amax in some])
    assert not (decode(got.codes, FORMATS[fmt]) > TOP[fmt]).any()


@pytest.mark.spec("QNT-3")
def test_a_float32_logarithm_is_one_too_small() -> None:
    """What SPEC says of V3's kernel: just above 448 * 2^k the comparison is right where the logarithm is not."""
    amax = np.nextafter(f32(448 * 2.0**30), f32(np.inf))
    scale = quantize(np.array([[amax]]), Scheme("deepseek-v3.1", "e4m3", (1, 1), "ue8m0", "saturate")).scale
    assert scale == 2.0**31
    assert np.exp2(np.ceil(np.log2(amax / f32(448)))) == 2.0**30


@pytest.mark.spec("QNT-1")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", [(260, 7), (5, 300), (0, 4), (4, 0), (1, 1)])
def test_columns_are_rows_of_the_transpose(recipe: str, shape: tuple[int, int]) -> None:
    """Blocks of 128x1 are the transpose's of 1x128, codes and grid; empty matrices have empty grids."""
    x = np.random.default_rng(1).standard_normal(shape).astype(f32)
    fmt, form = RECIPES[recipe].format, RECIPES[recipe].scale_format
    down = quantize(x, Scheme(recipe, fmt, (128, 1), form, "saturate"))
    along = quantize(x.T.copy(), Scheme(recipe, fmt, (1, 128), form, "saturate"))
    assert np.array_equal(down.codes, along.codes.T)
    assert np.array_equal(down.scale, along.scale.T)
    assert down.scale.shape == (-(-shape[0] // 128), shape[1])


@pytest.mark.spec("QNT-6")
def test_dequantize_rounds_once() -> None:
    """Code times scale, in fractions."""
    rng = np.random.default_rng(2)
    scheme = Scheme("deepseek-v3", "e4m3", (1, 4), "float32", "saturate")
    codes = rng.integers(0, 0x7F, (3, 10)).astype(np.uint8)
    scale = rng.standard_normal((3, 3)).astype(f32)
    numbers, each = decode(codes, FORMATS["e4m3"]), spread(scale, (1, 4), (3, 10))
    want = [f32(float(Fraction(float(a)) * Fraction(float(b)))) for a, b in zip(numbers.flat, each.flat, strict=True)]
    assert np.array_equal(dequantize(Quantized(codes, scale), scheme).ravel(), want)


@pytest.mark.spec("QNT-7")
@pytest.mark.parametrize(("fmt", "most"), [("e4m3", 10), ("e5m6", 20)])
def test_other_blocks_lose_nothing_with_powers_of_two(fmt: str, most: int) -> None:
    """Numbers on the grid whose scales lie so near that none leaves the range; with float32 scales much is lost."""
    rng = np.random.default_rng(3)
    x = (rng.integers(8, 16, (256, 256)) * 2.0 ** rng.integers(0, most // 2, (256, 1))).astype(f32)
    x[:, ::7] *= -1
    for form, kept in (("ue8m0", True), ("float32", False)):
        along = Scheme("deepseek-v3", fmt, (1, 128), form, "saturate")
        down = along._replace(block=(128, 1))
        first = quantize(x, along)
        second = requantize(first, along, down)
        assert np.array_equal(dequantize(first, along), dequantize(second, down)) == kept
        again = requantize(second, down, along)
        assert np.array_equal(dequantize(again, along), x) == kept


@pytest.mark.spec("QNT-8")
@pytest.mark.parametrize("spread_of", [0, 6, 11, 14])
@pytest.mark.parametrize("least", [-127, -20, 100])
def test_a_lift_loses_nothing(spread_of: int, least: int) -> None:
    """All 16 codes in parts whose scales lie up to 2^14 apart, from UE8M0's least scale on."""
    rng = np.random.default_rng(4)
    a = Scheme("deepseek-v4-fp4", "e2m1", (1, 32), "ue8m0", "saturate")
    b = a._replace(format="e4m3", block=(128, 128))
    codes = rng.integers(0, 16, (130, 192)).astype(np.uint8)
    scale = f32(2) ** rng.integers(least, least + spread_of + 1, (130, 6)).astype(f32)
    scale[0, 0], scale[1, 0] = 2.0**least, 2.0 ** (least + spread_of)
    codes[128:, 128:] = 0
    before = Quantized(codes, scale)
    after = lift(before, a, b)
    assert np.array_equal(dequantize(after, b), dequantize(before, a))
    assert after.scale.shape == (2, 2)
    assert after.scale[1, 1] == 2.0**-127
    assert (after.scale >= 2.0**-127).all()
    assert (np.frexp(after.scale)[0] == 0.5).all()


@pytest.mark.spec("QNT-8")
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ([2.0**-15, 1.0], "2^14 times apart"),
        ([1.0, 1.5], "powers of two"),
        ([1.0, np.nan], "powers of two"),
        ([2.0**-128, 2.0**-128], "powers of two, from 2^-127"),
    ],
)
def test_what_cannot_be_lifted_is_refused(scale: list[float], message: str) -> None:
    """Op and layer say so; a part of zeros has no say."""
    cfg = MoEConfig.from_dict(
        config(recipe="deepseek-v4-fp4", a_format="e2m1", a_block=(1, 2), b_format="e4m3", b_block=(128, 128))
    )
    given = {"codes": np.full((1, 2), 0x11, np.uint8), "scale": np.array([scale], f32)}
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ops.run("lift_fp4", cfg, **given)
    assert str(caught.value).startswith("QNT-8: lift_fp4")
    given = {"codes": np.array([[0, 0x11]], np.uint8), "scale": np.array([[2.0**-15, 1.0]], f32)}
    assert ops.run("lift_fp4", cfg, **given)["scale"].astype(f32) == 1 / 64


@pytest.mark.spec("QNT-8")
def test_only_e2m1_is_lifted() -> None:
    """And only to E4M3."""
    cfg = MoEConfig.from_dict(config(a_format="e4m3", b_format="e5m2"))
    with pytest.raises(ValueError, match=r"^QNT-8: lift_fp4 makes e4m3 of e2m1, not e5m2 of e4m3"):
        ops.run("lift_fp4", cfg, codes=np.zeros((1, 2), np.uint8), scale=np.ones((1, 1), f32))


@pytest.mark.spec("QNT-9")
def test_e5m6_keeps_seven_bits() -> None:
    """In blocks of 1x128 with powers of two its error is at most 2^-7 of each number that is not tiny."""
    x = np.random.default_rng(5).standard_normal((64, 256)).astype(f32)
    scheme = Scheme("deepseek-v3", "e5m6", (1, 128), "ue8m0", "saturate")
    got = quantize(x, scheme)
    assert got.codes.dtype == np.uint16
    held = dequantize(got, scheme)
    assert (np.abs(held - x) <= np.abs(x) * 2.0**-7).all()
    assert not np.array_equal(held, x)


@pytest.mark.spec("QNT-2")
def test_the_table_of_spec_is_the_recipes() -> None:
    """Floors, formulas and blocks of zeros as SPEC.md prints them."""
    text = SPEC.read_text(encoding="utf-8").split("**QNT-2**")[1].split("**QNT-3**")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    for above, row in pairwise(rows):
        row[:] = [a if cell == "the same" else cell for a, cell in zip(above, row, strict=True)]
    told = {name: row[1:] for row in rows[1:] for name in re.findall(r"`([\w.-]+)`", row[0])}
    assert set(told) == set(RECIPES)
    told["deepseek-v3.1"] = told["deepseek-v3"]
    words = {f32(1e-4): "1e-4", f32(1e-12): "1e-12", f32(2.0**-149): "2^-149", f32(6 * 2.0**-126): "6 * 2^-126"}
    numbers = {"divide": "x / scale", "reciprocal": "x * (1 / scale)", "inverse": "x * (top / amax)"}
    for name, recipe in RECIPES.items():
        floor, scale, number, zeros = told[name]
        plain, fp4 = words[f32(recipe.floor)], words[f32(recipe.floor_fp4)]
        assert floor == (plain if plain == fp4 and name != "deepgemm" else f"{plain} ({fp4})"), name
        mx = recipe.floor == 2.0**-149 and recipe.zero_scale is None
        assert scale.split(",")[0].split(";")[0] == (
            "QNT-3" if mx else {"inverse": "1 / (top / amax)"}.get(recipe.scale_of, "amax / top")
        ), name
        assert number == numbers[recipe.apply], name
        assert (zeros == "1") == (recipe.zero_scale == 1), name


@pytest.mark.spec("CFG-18")
@pytest.mark.parametrize("name", RECIPES)
def test_a_config_takes_what_its_recipe_says(name: str) -> None:
    """Formats, blocks and scales; what a config says itself is its own, and short forms mean both operands."""

    def completed(**said: Any) -> MoEConfig:
        fp8 = {"format", "a_format", "b_format", "block", "a_block", "b_block", "scale_format"}
        plain = {key: value for key, value in config().items() if key not in fp8}
        return MoEConfig.from_dict({**plain, "recipe": name, **said})

    rule, cfg = RECIPES[name], completed()
    for field in ("format", "a_format", "b_format", "block", "a_block", "b_block", "scale_format"):
        assert getattr(cfg, field) == getattr(rule, field), field
    both = completed(format="e5m2", block=[1, 64])
    assert (both.a_format, both.b_format, both.a_block, both.b_block) == ("e5m2", "e5m2", (1, 64), (1, 64))
    assert completed(block=[1, 64], b_block=[64, 64]).b_block == (64, 64)
