"""Block-scaled matrix products: forward, gradient of the input, gradient of the weights, and many experts (SPEC: LIN).

One rule serves all: `matmul` contracts the last axis of both operands, stretch by stretch. A stretch ends where a
scale of either operand ends, and wherever the accumulator is promoted.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from moespec.accumulate import UNITS, added_once, fused
from moespec.arrays import Float, Int
from moespec.formats import Format, decode
from moespec.quant import Quantized, Scheme, spread

TILE = 128  # columns of the product that are made at a time


class Adding(NamedTuple):
    """How a GEMM adds: the rule inside a stretch, and after how many products it is promoted (0: never)."""

    accumulate: str
    promote_every: int


class Operand(NamedTuple):
    """A quantised matrix (R, C), or a stack of them; a reading brings, for codes, the numbers that they stand for."""

    matrix: Quantized
    scheme: Scheme

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its codes."""
        return tuple[int, ...](self.matrix.codes.shape)


class Panel(NamedTuple):
    """Some rows of an operand as numbers (R, C), and their scales along C: of each row, or one row for all."""

    number: Float
    scale: Float
    scheme: Scheme


def numbers(codes: Any, fmt: Format) -> Float:  # noqa: ANN401 - codes or numbers
    """The numbers that codes stand for; numbers stay what they are."""
    return decode(codes, fmt) if codes.dtype.kind == "u" else codes


def values(operand: Operand) -> Float:
    """QNT-6: what a quantised matrix stands for (R, C)."""
    x = numbers(operand.matrix.codes, operand.scheme.fmt)
    return x * spread(operand.matrix.scale, operand.scheme.block, operand.shape)


def transposed(operand: Operand) -> Operand:
    """LIN-4: the transpose: codes, grid of scales, and the blocks themselves."""
    (codes, scale), scheme = operand
    return Operand(Quantized(codes.T, scale.T), scheme._replace(block=scheme.block[::-1]))


def stretches(size: int, widths: list[int]) -> Iterator[slice]:
    """LIN-1: parts of a contraction of `size`, as wide as the narrowest of `widths`."""
    width = min(widths)
    yield from (slice(start, min(start + width, size)) for start in range(0, size, width))


def matmul(
    a: Operand,  # (M, C)
    b: Operand,  # (N, C)
    how: Adding,
    c: Float | None = None,
) -> Float:
    """LIN-1: a @ b.T (M, N) in float32, TILE columns at a time; c (M, N) is what the accumulator holds before."""
    size, rows = a.shape[0], b.shape[0]
    if 0 in b.shape:  # an empty sum
        return np.zeros_like(a.matrix.scale, shape=(size, rows)) if c is None else c.copy()
    if how.accumulate == "float32":
        return dequantized_matmul(a, b, c)
    wide = np.float64 if how.accumulate == "exact" else np.float32
    left = panel(a, slice(0, size))
    left = left._replace(number=left.number.astype(wide))
    columns = list[Float]()
    for n in range(0, rows, TILE):
        part = slice(n, min(n + TILE, rows))
        columns.append(tile(left, panel(b, part), how, None if c is None else c[:, part]))
    return np.concatenate(columns, axis=1)


def panel(operand: Operand, rows: slice) -> Panel:
    """Some rows of an operand; one row of scales where one row of blocks holds them all."""
    (codes, scale), scheme = operand
    height = scheme.block[0]
    number = numbers(codes[rows], scheme.fmt)  # (R, C)
    if rows.start // height == (rows.stop - 1) // height:
        scale = scale[rows.start // height][None, :]  # (1, J)
    else:
        scale = np.repeat(scale, height, axis=0)[rows]  # (R, J)
    return Panel(number, scale, scheme)


def tile(a: Panel, b: Panel, how: Adding, c: Float | None) -> Float:
    """LIN-1, LIN-2: some columns of the product (M, N): each stretch times its scales, added in order of C."""
    formats = (a.scheme.fmt, b.scheme.fmt)
    x = a.number  # (M, C)
    if not how.promote_every:
        # LIN-3: one accumulator through the whole of C, which starts at c; the scales are the same all along
        w = b.number.astype(x.dtype)  # (N, C)
        return inner(x, w, c, formats, how) * (a.scale[:, :1] * b.scale[None, :, 0])
    a_width, b_width = a.scheme.block[1], b.scheme.block[1]
    total = c
    for k in stretches(x.shape[1], [a_width, b_width, how.promote_every]):
        scale = a.scale[:, k.start // a_width, None] * b.scale[None, :, k.start // b_width]
        w = b.number[:, k].astype(x.dtype)  # (N, n)
        term = inner(x[:, k], w, None, formats, how)  # (M, N)
        term *= scale  # (M, N)
        if total is not None:
            term += total  # (M, N)
        total = term
    assert total is not None
    return total


def inner(
    x: Float,  # (M, C)
    w: Float,  # (N, C)
    c: Float | None,
    formats: tuple[Format, Format],
    how: Adding,
) -> Float:
    """ACC-1 … ACC-4: one stretch x @ w.T (M, N), by the accumulator's rule, in float32."""
    if how.accumulate in UNITS:
        start = np.zeros_like(x, shape=(x.shape[0], w.shape[0])) if c is None else c  # (M, N)
        return fused(x, w, start, formats, UNITS[how.accumulate])
    product = x @ w.T  # (M, N)
    return product.astype(np.float32) if c is None else added_once(product, c)


def dequantized_matmul(
    a: Operand,  # (M, C)
    b: Operand,  # (N, C)
    c: Float | None,
) -> Float:
    """ACC-2: the dequantised matrices' product (M, N), in float32 and in any order."""
    y = values(a) @ values(b).T  # (M, N)
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
    experts, width = b.shape[:2]
    y = np.zeros_like(a.matrix.scale, shape=(group_index.shape[0], width))  # (M, N)
    order = np.argsort(group_index, kind="stable")  # (M,)
    ends = np.searchsorted(group_index[order], np.arange(experts + 1, like=group_index)).tolist()
    for e in range(experts):
        rows = order[ends[e] : ends[e + 1]]  # (n,)
        if rows.shape[0]:
            y[rows] = matmul(rows_of(a, rows), expert_of(b, e), how)  # (n, N)
    return y


def columns_of(operand: Operand, start: int, size: int) -> Operand:
    """Some columns of a matrix, which begin and end where blocks do."""
    (codes, scale), width = operand.matrix, operand.scheme.block[1]
    part = Quantized(codes[:, start : start + size], scale[:, start // width : (start + size) // width])
    return Operand(part, operand.scheme)


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
        if size:
            d[e] = matmul(columns_of(a, start, size), columns_of(b, start, size), how, c[e])  # (M, N)
        start += size
    return d
