"""Small formats: every number, tie and neighbour of a grid, what lies beyond it, and every code read back."""

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from moespec_conformance.cases.grids import (
    GRIDS,
    LARGEST,
    OPERANDS,
    Grid,
    any_codes,
    as_matrix,
    beside,
    both_signs,
    bytes_of,
    grid_of,
    midpoints,
    numbers,
    powers,
    scales,
    stored,
    told,
)
from moespec_conformance.cases.inputs import F32, Draw, Tensor
from moespec_conformance.protocol import Case, Tensors

ROUNDING, BEYOND, CODES = ("FMT-1", "FMT-2", "FMT-3"), ("FMT-1", "FMT-4"), ("FMT-2", "FMT-5", "QNT-6")
MANY = 4096  # codes of a format that is tried whole
Values = Callable[[Draw, Grid], Tensor]
Scale = Callable[[Draw, tuple[int, int]], Tensor]


def some(draw: Draw, grid: Grid) -> Tensor:
    """Codes of a format: all, or of a long one both ends and some between."""
    if grid.finite <= MANY:
        return np.arange(grid.finite)
    ends = np.concatenate([np.arange(300), grid.finite - 1 - np.arange(300)])
    return np.concatenate([ends, draw.integers(2000, bits=24) % grid.finite])


def every_number(draw: Draw, grid: Grid) -> F32:
    """Numbers of the format, and the float32 numbers beside them."""
    return both_signs(beside(numbers(grid, some(draw, grid)), -1, 0, 1))


def every_tie(draw: Draw, grid: Grid) -> F32:
    """Halfway between any two numbers but beyond the last, and beside it; half of the least number is among them."""
    codes = some(draw, grid)
    return both_signs(beside(midpoints(grid, codes[codes < grid.finite - 1]), -1, 0, 1))


def beyond(_: Draw, grid: Grid) -> F32:
    """From the largest number to infinity: halfway to the next of the grid, what is beside that, and what is far."""
    top, following = (float(numbers(grid, np.asarray(grid.finite - 1 + more))) for more in (0, 1))
    halfway, step = (top + following) / 2, following - top
    tenth = halfway + step / 320  # 464.1
    near = [top, top + step / 4, halfway, tenth, halfway + step / 4, following, following + step]
    near = [number for number in near if number <= LARGEST]
    far = [min(number, LARGEST) for number in (2 * top, 3e4, 1e6, 1e30, LARGEST)]
    return both_signs(np.concatenate([beside(np.asarray(near), -1, 0, 1).ravel(), [*far, np.inf]]))


def no_number(_: Draw, __: Grid) -> F32:
    """NaN of either sign and of two kinds, among numbers."""
    bits = np.asarray([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFC12345], np.uint32)
    return np.concatenate([bits.view(np.float32), np.asarray([1.0, -1.0, 0.0, 2.0], np.float32)])


def little(_: Draw, grid: Grid) -> F32:
    """Zeros of both signs, and numbers that are nothing to the format: down to the least of float32."""
    least = float(numbers(grid, np.asarray(1)))
    return both_signs(np.asarray([0, least / 4, least / 3, least * 2.0**-10, 2.0**-126, 2.0**-140, 2.0**-149]))


def of_all_sizes(draw: Draw, grid: Grid) -> F32:
    """Any 24 digits, of sizes from far below the least number to a little above the largest."""
    low, high = max(grid.emin - grid.mantissa - 3, -126), min(int(np.log2(grid.top)) + 1, 126)
    return scales(draw, (64, 32), low, high) * np.where(draw.integers(64, 32, bits=1), np.float32(1), np.float32(-1))


def cast(name: str, slug: str, values: Values, clauses: tuple[str, ...], **how: Any) -> Case:  # noqa: ANN401
    """One case of cast to a format; `how` holds config fields and fields of Case."""
    title, (fields, cfg) = f"cast-{name}-{slug}", told(how, format=name, **OPERANDS)

    def build() -> Tensors:
        return {"x": as_matrix(values(Draw(title), GRIDS[name]))}

    return Case(title, "cast", cfg, build, clauses, "exact", profiles=("fp8",), **fields)


def casts() -> Iterator[Case]:
    """Every format, in both ways of overflow."""
    for name in GRIDS:
        yield cast(name, "numbers", every_number, ROUNDING)
        yield cast(name, "ties", every_tie, ROUNDING)
        yield cast(name, "little", little, ROUNDING)
        yield cast(name, "all-sizes", of_all_sizes, ROUNDING)
        yield cast(name, "nan", no_number, BEYOND)
        for overflow in ("saturate", "nan"):
            yield cast(name, f"beyond-{overflow}", beyond, (*BEYOND, "CFG-17"), overflow=overflow)
    for name in ("e4m3", "e2m1"):
        yield cast(name, "strided", every_tie, ("MOE-8", "FMT-5"), manner="strided")
        yield cast(name, "again", every_tie, ("MOE-8",), manner="again")


def ones(_: Draw, shape: tuple[int, int]) -> Tensor:
    """Scales of 1."""
    return np.ones(shape, np.float32)


def digits(draw: Draw, shape: tuple[int, int]) -> Tensor:
    """Scales of 24 digits, each block's its own: products are rounded, and a quotient is another number."""
    return scales(draw, shape, -20, 20)


def every_byte(_: Draw, shape: tuple[int, int]) -> Tensor:
    """All scales that E8M0 has, NaN and 2**-127 among them, one after another."""
    return (np.arange(np.prod(shape)) % 256).astype(np.uint8).reshape(shape).view(ml_dtypes.float8_e8m0fnu)


def some_nan(draw: Draw, shape: tuple[int, int]) -> Tensor:
    """Every third scale is NaN."""
    return np.where(np.arange(np.prod(shape)).reshape(shape) % 3 == 1, np.float32(np.nan), scales(draw, shape, -3, 3))


def tiny(draw: Draw, shape: tuple[int, int]) -> Tensor:
    """Scales with which products are of subnormal size, and are rounded there."""
    return scales(draw, shape, -140, -118)


def in_e8m0(draw: Draw, shape: tuple[int, int]) -> Tensor:
    """Powers of two as bytes."""
    return bytes_of(powers(draw, shape, -20, 20))


def dequantize(name: str, slug: str, scale: Scale, size: tuple[int, int] | None, **how: Any) -> Case:  # noqa: ANN401
    """One case of dequantize: codes of any numbers in a matrix of a size, or all codes one after another."""
    title, (fields, cfg) = f"dequantize-{name}-{slug}", told(how, format=name, block=(1, 128), **OPERANDS)

    def build() -> Tensors:
        draw = Draw(title)
        codes = np.arange(1 << GRIDS[name].bits) if size is None else any_codes(draw, name, *size)
        if size is None:
            codes = np.resize(codes, max(len(codes), 256)).reshape(-1, 64)
        shape = grid_of(codes.shape, cfg["block"])
        return {"codes": stored(codes, name), "scale": np.asarray(scale(Draw(title + "/scale"), shape))}

    clauses = fields.pop("clauses", CODES)
    return Case(title, "dequantize", cfg, build, clauses, "exact", profiles=("fp8",), **fields)


def dequantized() -> Iterator[Case]:
    """Every code, every scale, and grids of blocks that a wrong index misses."""
    for name in GRIDS:
        yield dequantize(name, "all-codes", ones, None)
        yield dequantize(name, "all-codes-scaled", digits, None)
        yield dequantize(name, "blocks-apart", digits, (40, 320), block=(1, 32), clauses=(*CODES, "QNT-1"))
    for slug, block, size in (
        ("square-grid", (128, 128), (256, 256)),
        ("wide-grid", (128, 128), (256, 640)),
        ("ragged", (128, 128), (192, 576)),
        ("ragged-both", (128, 128), (130, 129)),
        ("columns", (128, 1), (300, 20)),
        ("small-columns", (32, 1), (70, 20)),
        ("rows", (1, 128), (20, 300)),
        ("one-by-one", (1, 1), (9, 31)),
        ("shard", (128, 128), (192, 256)),
        ("one-number", (128, 128), (1, 1)),
        ("no-row", (1, 128), (0, 256)),
    ):
        yield dequantize("e4m3", slug, digits, size, block=block, clauses=("QNT-1", "QNT-6"))
    yield dequantize("e4m3", "every-byte", every_byte, (64, 128), block=(1, 32), clauses=("FMT-6", "QNT-6"))
    yield dequantize("e2m1", "every-byte", every_byte, (64, 128), block=(1, 32), clauses=("FMT-6", "QNT-6"))
    yield dequantize("e4m3", "e8m0-square", in_e8m0, (256, 256), block=(128, 128), clauses=("FMT-6", "QNT-6"))
    yield dequantize("e4m3", "nan-scales", some_nan, (12, 256), clauses=("QNT-5", "QNT-6"))
    yield dequantize("e4m3", "tiny", tiny, (64, 256), block=(1, 32), clauses=("QNT-6",))
    for name in ("e4m3", "e2m1"):
        yield dequantize(name, "strided", digits, (33, 160), block=(1, 32), clauses=("MOE-8",), manner="strided")
        yield dequantize(name, "again", digits, (33, 160), block=(1, 32), clauses=("MOE-8",), manner="again")


def cases() -> Iterator[Case]:
    """What becomes a code, and what a code stands for."""
    yield from casts()
    yield from dequantized()
