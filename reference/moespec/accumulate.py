"""How a GEMM adds: the products of one stretch of the contraction, exactly, in float32, or as a tensor core does.

How it works
    A tensor core adds L products and its accumulator in one step (ACC-3). Each product is exact; its exponent is the sum
    of its factors' exponents, where a subnormal's exponent is the format's least and nothing is normalised. All terms,
    the accumulator among them, are then shifted to the largest exponent e, and what falls below 2^(e - F) is cut off,
    toward zero. These whole multiples of 2^(e - F) are added without error, so order inside a step means nothing. The
    sum keeps f fraction bits of its own, toward zero again, and is the next step's accumulator.
    Hopper's FP8 unit has L = 32 and F = f = 13: the "14 bits" of the DeepSeek-V3 report are one bit before the point
    and 13 after it. Cutting always goes toward zero, so with products of one sign the error grows with C: hence
    DeepSeek's promotion, which every 128 products takes the accumulator out into float32 and begins anew (LIN-2).
What is rounded where
    `exact`: nowhere but once at the end, to float32: products of E4M3 are multiples of 2^-18 below 2^18, so float64
    holds any sum of up to 171,000 of them whatever the order (ACC-1). `float32`: after each addition, in an order that
    is yours (ACC-2). `hopper`, `ada`, `blackwell`: as above, each term to F bits and each sum to f (ACC-3, ACC-4).
How it is known
    `hopper` reproduces published outputs of real H100 and H200 units bit for bit, `ada` those of L40S and of
    an RTX 40. `blackwell` reproduces what a B200 gave on the older `mma` path, where the products' sum meets the accumulator in a
    float32 addition of its own; what `tcgen05` does with its accumulator is not established.
What is left out
    NaN and infinity inside the units: a case with them would ask what no source says. AMD's matrix cores.
"""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float
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


def exponents(x: Float, fmt: Format) -> Float:
    """ACC-3: floor(log2 |x|), but never below the format's least normal exponent."""
    _, exponent = np.frexp(x)
    return np.where(x == 0, NOTHING, np.maximum(exponent - 1, fmt.emin)).astype(np.int8)


def fused(
    a: Float,  # (M, C)
    b: Float,  # (N, C)
    c: Float,  # (M, N)
    formats: tuple[Format, Format],
    unit: Unit,
) -> Float:
    """ACC-3: c + a @ b.T (M, N) as this unit computes it: float32 numbers, one step after another along C."""
    wide = np.float32 if unit.term_bits <= 16 else np.float64  # noqa: PLR2004 - 33 terms below 2^(F + 2) in 24 bits
    lines = [np.ascontiguousarray(x.T) for x in (a.astype(wide), exponents(a, formats[0]))]  # (C, M)
    columns = [np.ascontiguousarray(x.T) for x in (b.astype(wide), exponents(b, formats[1]))]  # (C, N)
    out = np.empty_like(c)
    for m in range(0, c.shape[0], ROWS):
        for n in range(0, c.shape[1], COLUMNS):
            total = c[m : m + ROWS, n : n + COLUMNS].astype(np.float64)
            for k in range(0, a.shape[1], unit.step):
                (x, x_exponent), (y, y_exponent) = (
                    [p[k : k + unit.step, at : at + size] for p in planes]
                    for planes, at, size in ((lines, m, ROWS), (columns, n, COLUMNS))
                )
                terms = x[:, :, None] * y[:, None, :]  # (L, m, n)
                total = step(terms, (x_exponent[:, :, None] + y_exponent[:, None, :]).max(axis=0), total, unit)
            out[m : m + ROWS, n : n + COLUMNS] = total
    return out


def step(
    terms: Float,  # (L, M, N)
    exponent: Float,  # (M, N)
    total: Float,  # (M, N)
    unit: Unit,
) -> Float:
    """ACC-3, one step: align every term and the accumulator, cut, add, cut: the new accumulator (M, N), float64."""
    added = np.zeros_like(total) if unit.alone else total
    _, own = np.frexp(added)
    own = np.where(added == 0, LEAST, np.maximum(own - 1, -126))
    largest = np.maximum(np.where(exponent > NOTHING + 16, exponent.astype(np.int32), LEAST), own)  # (M, N)

    # cut each term below 2^(largest - F); what is left are whole numbers, and their sum is exact
    terms *= np.ldexp(terms.dtype.type(1), unit.term_bits - np.maximum(largest, NOTHING))
    np.trunc(terms, out=terms)
    whole = terms.sum(axis=0) + np.trunc(np.ldexp(added, unit.term_bits - largest))
    exact = np.ldexp(whole, largest - unit.term_bits)

    # the sum keeps its own fraction bits, toward zero
    _, own = np.frexp(exact)
    last = np.maximum(own - 1, -126) - unit.sum_bits
    kept = np.ldexp(np.trunc(np.ldexp(exact, -last)), last)
    return (kept + total).astype(np.float32).astype(np.float64) if unit.alone else kept  # ACC-4
