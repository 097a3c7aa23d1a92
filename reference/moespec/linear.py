"""Block-scaled matrix products: forward, gradient of the input, gradient of the weights, and many experts (SPEC: LIN).

One rule serves all: `matmul` contracts the last axis of both operands, stretch by stretch. A stretch ends where a scale of
either operand ends, and wherever the accumulator is promoted.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from moespec.accumulate import UNITS, fused
from moespec.arrays import Float, Int
from moespec.formats import Codes, Format, decode
from moespec.quant import Quantized, Scheme, spread

TILE = 128  # rows of b that are decoded at a time


class Adding(NamedTuple):
    """How a GEMM adds: the rule inside a stretch, and after how many products the accumulator is promoted (0: never)."""

    accumulate: str
    promote_every: int


class Operand(NamedTuple):
    """A quantised matrix (R, C) with its scheme. Its codes may also be the numbers they stand for: readings bring those."""

    matrix: Quantized
    scheme: Scheme


def numbers(codes: Codes | Float, fmt: Format, wide: Any) -> Float:  # noqa: ANN401 - a dtype
    """The numbers that codes stand for; numbers stay what they are."""
    return decode(codes, fmt, wide) if codes.dtype.kind == "u" else codes.astype(wide)


def transposed(operand: Operand) -> Operand:
    """LIN-4: the transpose: codes, grid of scales, and the blocks themselves."""
    (codes, scale), scheme = operand
    return Operand(Quantized(codes.T, scale.T), scheme._replace(block=scheme.block[::-1]))


def stretches(size: int, widths: list[int]) -> Iterator[slice]:
    """LIN-1: parts of a contraction of `size`: as wide as the narrowest of `widths`, 0 being none."""
    width = min((w for w in widths if w), default=size)
    yield from (slice(start, min(start + width, size)) for start in range(0, size, width))


def matmul(
    a: Operand,  # (M, C)
    b: Operand,  # (N, C)
    how: Adding,
    c: Float | None = None,  # (M, N)
) -> Float:
    """LIN-1: a @ b.T (M, N) in float32, TILE columns at a time; c is what the accumulator holds before."""
    if how.accumulate == "float32":
        return dequantized_matmul(a, b, c)
    wide = np.float64 if how.accumulate == "exact" else np.float32
    left = numbers(a.matrix.codes, a.scheme.fmt, wide)  # (M, C)
    rows = b.matrix.codes.shape[0]
    columns = list[Float]()
    for n in range(0, rows, TILE):
        part = slice(n, min(n + TILE, rows))
        right = numbers(b.matrix.codes[part], b.scheme.fmt, wide)  # (n, C)
        scale = row_scales(b, part)
        columns.append(tile((left, a), (right, b, scale), how, None if c is None else c[:, part]))
    return np.concatenate(columns, axis=1)


def row_scales(operand: Operand, rows: slice) -> Float:
    """The scales of some rows along the contraction: (rows, J), or (1, J) where one block holds them all."""
    height, scale = operand.scheme.block[0], operand.matrix.scale
    if rows.start // height == (rows.stop - 1) // height:
        return scale[rows.start // height][None, :]
    return np.repeat(scale, height, axis=0)[rows]


def tile(
    left: tuple[Float, Operand],  # (M, C)
    right: tuple[Float, Operand, Float],  # (N, C), and scales (N or 1, J)
    how: Adding,
    c: Float | None,  # (M, N)
) -> Float:
    """LIN-1, LIN-2: some columns of the product (M, N): each stretch times its scales, added in order of C."""
    (x, a), (w, b, w_scale) = left, right
    x_scale = np.repeat(a.matrix.scale, a.scheme.block[0], axis=0)[: x.shape[0]]  # (M, J)
    formats = (a.scheme.fmt, b.scheme.fmt)
    if not how.promote_every:
        # LIN-3: one accumulator through the whole of C, which starts at c; the scales are the same all along
        return inner(x, w, c, formats, how) * (x_scale[:, :1] * w_scale[None, :, 0])
    a_width, b_width = a.scheme.block[1], b.scheme.block[1]
    total = c
    for k in stretches(x.shape[1], [a_width, b_width, how.promote_every]):
        scale = x_scale[:, k.start // a_width, None] * w_scale[None, :, k.start // b_width]
        term = inner(x[:, k], w[:, k], None, formats, how) * scale  # (M, N)
        total = term if total is None else total + term  # (M, N)
    assert total is not None
    return total


def inner(
    x: Float,  # (M, C)
    w: Float,  # (N, C)
    c: Float | None,  # (M, N)
    formats: tuple[Format, Format],
    how: Adding,
) -> Float:
    """ACC-1 … ACC-4: one stretch x @ w.T (M, N), by the accumulator's rule, in float32."""
    if how.accumulate in UNITS:
        start = np.zeros_like(x, shape=(x.shape[0], w.shape[0])) if c is None else c
        return fused(x, w, start, formats, UNITS[how.accumulate])
    product = x @ w.T  # (M, N)
    return (product if c is None else product + c).astype(np.float32)


def dequantized_matmul(
    a: Operand,  # (M, C)
    b: Operand,  # (N, C)
    c: Float | None,  # (M, N)
) -> Float:
    """ACC-2: the dequantised matrices' product (M, N), in float32 and in any order."""
    x, w = (
        numbers(o.matrix.codes, o.scheme.fmt, np.float32) * spread(o.matrix.scale, o.scheme.block, o.matrix.codes.shape)
        for o in (a, b)
    )
    y = x @ w.T  # (M, N)
    return y if c is None else y + c


def expert_of(stack: Operand, e: int) -> Operand:
    """One expert's matrix of a stack (E, R, C)."""
    return Operand(Quantized(stack.matrix.codes[e], stack.matrix.scale[e]), stack.scheme)


def rows_of(operand: Operand, rows: Any) -> Operand:  # noqa: ANN401 - an index
    """Some rows of a matrix whose blocks are one row high."""
    return Operand(Quantized(operand.matrix.codes[rows], operand.matrix.scale[rows]), operand.scheme)


def grouped(
    a: Operand,  # (M, C)
    b: Operand,  # (E, N, C)
    group_index: Int,  # (M,)
    how: Adding,
) -> Float:
    """LIN-5: each row by its expert's matrix (M, N); zeros where group_index is -1."""
    experts, width = b.matrix.codes.shape[:2]
    y = np.zeros_like(a.matrix.scale, shape=(group_index.shape[0], width))  # (M, N)
    for e in range(experts):
        rows = np.flatnonzero(group_index == e)  # (n,)
        if rows.shape[0]:
            y[rows] = matmul(rows_of(a, rows), expert_of(b, e), how)  # (n, N)
    return y


def k_grouped(
    a: Operand,  # (M, C)
    b: Operand,  # (N, C)
    sizes: list[int],
    c: Float,  # (E, M, N)
    how: Adding,
) -> Float:
    """LIN-6: each expert's share of the contraction alone, added to c: (E, M, N). Shares end where blocks end."""
    d = c.copy()  # (E, M, N)
    start = 0
    for e, size in enumerate(sizes):
        part, blocks = (
            slice(start, start + size),
            slice(start // a.scheme.block[1], (start + size) // a.scheme.block[1]),
        )
        if size:
            x, w = (Operand(Quantized(o.matrix.codes[:, part], o.matrix.scale[:, blocks]), o.scheme) for o in (a, b))
            d[e] = matmul(x, w, how, c[e])  # (M, N)
        start += size
    return d
