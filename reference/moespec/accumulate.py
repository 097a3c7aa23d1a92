"""How a GEMM adds: the products of one stretch of the contraction, exactly, in float32, or as a tensor core does.

How it works
    A tensor core adds L products and its accumulator in one step (ACC-3). Each product is exact; its exponent is the
    sum of its factors' exponents, where a subnormal's exponent is the format's least and nothing is normalised. All
    terms, the accumulator among them, are then shifted to the largest exponent e, and what falls below 2^(e - F) is cut
    off, toward zero. These whole multiples of 2^(e - F) are added without error, so order inside a step means nothing.
    The sum keeps f fraction bits of its own, toward zero again, and is the next step's accumulator.
    Hopper's FP8 unit has L = 32 and F = f = 13: the "14 bits" of the DeepSeek-V3 report are one bit before the point
    and 13 after it. Cutting always goes toward zero, so with products of one sign the error grows with C: hence
    DeepSeek's promotion, which every 128 products takes the accumulator out into float32 and begins anew (LIN-2).
What is rounded where
    `exact`: nowhere but once at the end, to float32: products of E4M3 are multiples of 2^-18 below 2^18, so float64
    holds any sum of up to 171,000 of them whatever the order (ACC-1). `float32`: after each addition, in an order that
    is yours (ACC-2). `hopper`, `ada`, `blackwell`: as above, each term to F bits and each sum to f (ACC-3, ACC-4).
How it is known
    `hopper` reproduces published outputs of real H100 and H200 units bit for bit, `ada` those of L40S and of an RTX 40.
    `blackwell` reproduces what a B200 gave on the older `mma` path, where the products' sum meets the accumulator in a
    float32 addition of its own; what `tcgen05` does with its accumulator is not established.
What is left out
    NaN and infinity inside the units: a case with them would ask what no source says. AMD's matrix cores.
"""

from typing import Any, NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.formats import Format

ROWS, COLUMNS = 32, 64  # outputs computed at a time: what a cache holds with all their products
LEAST = -133  # no exponent is below this


class Unit(NamedTuple):
    """One kind of tensor core: products a step, fraction bits kept of each term and of each sum."""

    step: int
    term_bits: int
    sum_bits: int
    alone: bool = False  # the products are added apart, and then to the accumulator, in float32


UNITS = {
    "hopper": Unit(32, 13, 13),
    "ada": Unit(16, 13, 13),
    "blackwell": Unit(32, 25, 23, alone=True),
}

NOTHING = -64  # stands for the exponent of a factor that is 0: any product with it is below every other


def added_once(
    product: Float,  # (M, N)
    c: Float,  # (M, N)
) -> Float:
    """ACC-1: float64 product + float32 c, as if rounded once, to float32 (M, N).

    What float64 loses is known exactly. Where it loses anything, its last bit is made odd on that side: so no sum comes
    to lie on a tie of float32 that was not one.
    """
    total = product + c  # (M, N)
    of_c = total - product  # (M, N)
    lost = (product - (total - of_c)) + (c - of_c)  # (M, N)
    even = total.view(np.int64) % 2 == 0  # (M, N)
    beside = np.nextafter(total, np.copysign(np.inf, lost))  # (M, N)
    return np.where((lost != 0) & even, beside, total).astype(np.float32)


class Factors(NamedTuple):
    """One operand, along the contraction first: its numbers (C, M) and their exponents (C, M)."""

    number: Float
    exponent: Int


def factors(x: Float, fmt: Format, wide: Any) -> Factors:  # noqa: ANN401 - a dtype
    """ACC-3: an exponent is floor(log2 |x|), but never below the format's least normal exponent."""
    _, exponent = np.frexp(x)
    exponent = np.where(x == 0, NOTHING, np.maximum(exponent - 1, fmt.emin))
    return Factors(x.T.astype(wide, order="C"), exponent.T.astype(np.int8, order="C"))


def fused(
    a: Float,  # (M, C)
    b: Float,  # (N, C)
    c: Float,  # (M, N)
    formats: tuple[Format, Format],
    unit: Unit,
) -> Float:
    """ACC-3: c + a @ b.T (M, N) as this unit computes it: float32 numbers, some rows and columns at a time."""
    wide = np.float32 if unit.term_bits <= 16 else np.float64  # noqa: PLR2004 - 33 terms below 2^(F + 2) in 24 bits
    (x, x_exponent), (y, y_exponent) = factors(a, formats[0], wide), factors(b, formats[1], wide)
    out = np.empty_like(c)  # (M, N)
    for i in range(0, c.shape[0], ROWS):
        for j in range(0, c.shape[1], COLUMNS):
            rows, columns = slice(i, i + ROWS), slice(j, j + COLUMNS)
            left = Factors(x[:, rows], x_exponent[:, rows])
            right = Factors(y[:, columns], y_exponent[:, columns])
            out[rows, columns] = chained(left, right, c[rows, columns], unit)
    return out


def chained(
    a: Factors,
    b: Factors,
    c: Float,  # (M, N)
    unit: Unit,
) -> Float:
    """ACC-3: one step after another along C, from the accumulator c on: the last accumulator (M, N), float64."""
    total: Float = c.astype(np.float64)  # (M, N)
    for k in range(0, a.number.shape[0], unit.step):
        part = slice(k, k + unit.step)
        terms = a.number[part, :, None] * b.number[part, None, :]  # (L, M, N)
        exponent = (a.exponent[part, :, None] + b.exponent[part, None, :]).max(axis=0)  # (M, N)
        total = step(terms, exponent, total, unit)  # (M, N)
    return total


def step(
    terms: Float,  # (L, M, N)
    exponent: Int,  # (M, N)
    total: Float,  # (M, N)
    unit: Unit,
) -> Float:
    """ACC-3, one step: align every term and the accumulator, cut, add, cut: the new accumulator (M, N), float64."""
    added = np.zeros_like(total) if unit.alone else total  # (M, N)
    _, own = np.frexp(added)  # (M, N)
    own = np.where(added == 0, LEAST, np.maximum(own - 1, -126))  # (M, N)
    largest = np.maximum(np.where(exponent > NOTHING + 16, exponent.astype(np.int32), LEAST), own)  # (M, N)

    # cut each term below 2^(largest - F); what is left are whole numbers, and their sum is exact
    terms *= np.ldexp(terms.dtype.type(1), unit.term_bits - np.maximum(largest, NOTHING))  # (L, M, N)
    np.trunc(terms, out=terms)
    whole = terms.sum(axis=0) + np.trunc(np.ldexp(added, unit.term_bits - largest))  # (M, N)
    exact = np.ldexp(whole, largest - unit.term_bits)  # (M, N)

    # the sum keeps its own fraction bits, toward zero
    _, own = np.frexp(exact)  # (M, N)
    last = np.maximum(own - 1, -126) - unit.sum_bits  # (M, N)
    kept: Float = np.ldexp(np.trunc(np.ldexp(exact, -last)), last)  # (M, N)
    return (kept + total).astype(np.float32).astype(np.float64) if unit.alone else kept  # ACC-4
