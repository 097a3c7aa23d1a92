"""Section 19: matrices in blocks, one block after another."""

from collections.abc import Callable, Iterator
from math import frexp, isfinite, ldexp, nan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moespec_conformance.adapters.plain.config import Config, require
from moespec_conformance.adapters.plain.formats import FORMATS, decode, encode, store
from moespec_conformance.adapters.plain.tensors import Tensors

Array = npt.NDArray[Any]
Block = tuple[int, int]
f32 = np.float32
LARGEST = np.finfo(f32).max
HALF = 0.5  # the fraction of a power of two


class Matrix(NamedTuple):
    """Codes, each with its scale beside it (M,C), what format they are of, and how wide a block is."""

    codes: Array
    scale: Array
    form: str
    block: Block


def cuts(shape: tuple[int, ...], block: Block) -> Iterator[tuple[Block, tuple[slice, slice]]]:
    """QNT-1: the place of each block in the grid, and where in the matrix it lies."""
    for i in range(0, shape[0], block[0]):
        for j in range(0, shape[1], block[1]):
            yield (i // block[0], j // block[1]), (slice(i, i + block[0]), slice(j, j + block[1]))


def grid_of(shape: tuple[int, ...], block: Block) -> tuple[int, int]:
    """QNT-1: how many blocks there are."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def spread(grid: Array, shape: tuple[int, ...], block: Block) -> Array:
    """Write each block's scale beside all of its elements."""
    out = np.zeros(shape, f32)
    for place, where in cuts(shape, block):
        out[where] = grid[place]
    return out


def quotient_scale(amax: f32, top: f32, x: Array) -> tuple[f32, Array]:
    """QNT-2: deepseek-v3 and others."""
    scale = amax / top
    return scale, x / scale


def reciprocal(amax: f32, top: f32, x: Array) -> tuple[f32, Array]:
    """QNT-2: deepgemm."""
    scale = amax / top
    return scale, x * (f32(1) / scale)


def two_quotients(amax: f32, top: f32, x: Array) -> tuple[f32, Array]:
    """QNT-2: tilekernels."""
    return amax / top, x * min(top / amax, LARGEST)


def inverse(amax: f32, top: f32, x: Array) -> tuple[f32, Array]:
    """QNT-2: transformer-engine and torchao."""
    quotient = min(top / amax, LARGEST)
    return f32(1) / quotient, x * quotient


SMALL = 6 * ldexp(1, -126)
Rule = tuple[float, float, Callable[[f32, f32, Array], tuple[f32, Array]]]
RULES: dict[str, Rule] = {  # QNT-2: the floor, that of E2M1, and the float32 scale
    "deepseek-v3": (1e-4, SMALL, quotient_scale),
    "deepseek-v3.1": (1e-4, SMALL, quotient_scale),
    "deepgemm": (1e-4, 1e-4, reciprocal),
    "tilekernels": (1e-4, SMALL, two_quotients),
    "transformer-engine": (ldexp(1, -149), ldexp(1, -149), inverse),
    "torchao": (1e-12, 1e-12, inverse),
    "mx-floor": (ldexp(1, -149), ldexp(1, -149), quotient_scale),
    "mx-rceil": (ldexp(1, -149), ldexp(1, -149), quotient_scale),
    "deepseek-v4-fp4": (1e-4, SMALL, quotient_scale),
}


def power(recipe: str, amax: float, top: float) -> int:
    """QNT-3: the exponent of the scale; float64 tells amax / top from a power of two wherever they differ."""
    if recipe == "mx-floor":
        return max(frexp(amax)[1] - frexp(top)[1], -127)
    mantissa, exponent = frexp(amax / top)
    return max(exponent - (mantissa == HALF), -127)


def scaled(recipe: str, name: str, x: Array, *, powers: bool) -> tuple[float | f32, Array]:
    """QNT-2 to QNT-5 for one block: its scale, and the numbers to be rounded."""
    engine, top = recipe == "transformer-engine", f32(FORMATS[name].top)
    most = np.abs(x[~np.isnan(x)] if engine else x).max(initial=f32(0))
    if not isfinite(most):
        return (1, x) if engine else (nan, np.zeros_like(x))
    floor, floor_e2m1, rule = RULES[recipe]
    amax = max(most, f32(floor_e2m1 if name == "e2m1" else floor))
    if engine and not most:
        return 1, x
    if not powers:
        return rule(amax, top, x)
    k = power(recipe, float(amax), float(top))
    return ldexp(1, k), np.ldexp(x.astype(np.float64), -k)


def quantise(c: Config, x: Array, name: str, block: Block, *, powers: bool = False) -> tuple[Array, Array]:
    """QNT-1, QNT-4: the grid of scales, and the codes, one to a place."""
    require(name != "bfloat16", "QNT-1: bfloat16 takes no scale")
    grid, numbers = np.zeros(grid_of(x.shape, block), f32), np.zeros(x.shape)
    powers = powers or c["scale_format"] == "ue8m0"
    with np.errstate(all="ignore"):
        for place, where in cuts(x.shape, block):
            grid[place], numbers[where] = scaled(c["recipe"], name, x[where], powers=powers)
    return grid, encode(name, numbers, c["overflow"])


def matrix(codes: Array, grid: Array, name: str, block: Block) -> Matrix:
    """Put codes and the grid of their scales together."""
    return Matrix(codes, spread(grid, codes.shape, block), name, block)


def transpose(m: Matrix) -> Matrix:
    """LIN-4: no number changes."""
    return Matrix(m.codes.T, m.scale.T, m.form, (m.block[1], m.block[0]))


def values(m: Matrix) -> Array:
    """QNT-6: both factors in float64, where their product is exact, and one rounding."""
    with np.errstate(all="ignore"):
        return (decode(m.form, m.codes) * m.scale).astype(f32)


def check_formats(c: Config) -> None:
    """Check QNT-1."""
    require("bfloat16" not in (c["a_format"], c["b_format"]), "QNT-1: bfloat16 takes no scale")


def quantised(c: Config, x: Array, *, powers: bool = False) -> Matrix:
    """Quantise an activation (section 21)."""
    grid, codes = quantise({**c, "overflow": "saturate"}, x, c["a_format"], c["a_block"], powers=powers)
    return matrix(codes, grid, c["a_format"], c["a_block"])


def part_scales(m: Matrix) -> list[float]:
    """QNT-8: the scales of a block's parts, those of zeros apart."""
    return sorted(set(m.scale[decode("e2m1", m.codes) != 0].tolist()))


def lifted(codes: Array, grid: Array, block: Block, wider: Block) -> tuple[Array, Array]:
    """QNT-8: the scale of each new block, and the codes that take up the rest."""
    fit = all(isfinite(s) and s >= ldexp(1, -127) and frexp(s)[0] == HALF for s in grid.ravel().tolist())
    require(fit, "QNT-8: a scale that is no power of two from 2^-127 on")
    old = matrix(codes, grid, "e2m1", block)
    scales, numbers = np.full(grid_of(codes.shape, wider), ldexp(1, -127), f32), np.zeros(codes.shape)
    for place, where in cuts(codes.shape, wider):
        part = Matrix(old.codes[where], old.scale[where], "e2m1", block)
        found = part_scales(part)
        if found:
            require(found[-1] <= ldexp(found[0], 14), "QNT-8: parts that one block cannot hold without loss")
            scales[place] = max(ldexp(found[-1], -6), ldexp(1, -127))
        numbers[where] = decode("e2m1", part.codes) * (part.scale / np.float64(scales[place]))
    return scales, encode("e4m3", numbers)


def cast(c: Config, t: Tensors) -> Tensors:
    """FMT-1 to FMT-5."""
    return {"codes": store(c["format"], encode(c["format"], t["x"], c["overflow"]))}


def quantize(c: Config, t: Tensors) -> Tensors:
    """QNT-1 to QNT-5."""
    grid, codes = quantise(c, t["x"], c["format"], c["block"])
    return {"scale": grid, "codes": store(c["format"], codes)}


def dequantize(c: Config, t: Tensors) -> Tensors:
    """QNT-6."""
    return {"x": values(matrix(t["codes"], t["scale"], c["format"], c["block"]))}


def requantize(c: Config, t: Tensors) -> Tensors:
    """QNT-7."""
    check_formats(c)
    x = values(matrix(t["codes"], t["scale"], c["a_format"], c["a_block"]))
    grid, codes = quantise(c, x, c["b_format"], c["b_block"])
    return {"scale": grid, "codes": store(c["b_format"], codes)}


def lift_fp4(c: Config, t: Tensors) -> Tensors:
    """QNT-8."""
    require((c["a_format"], c["b_format"]) == ("e2m1", "e4m3"), "QNT-8: e2m1 is lifted to e4m3")
    grid, codes = lifted(t["codes"], t["scale"], c["a_block"], c["b_block"])
    return {"scale": grid, "codes": store("e4m3", codes)}
