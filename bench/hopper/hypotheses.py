"""Ways in which a tensor core might add: ACC-3 with one detail or another changed, and all of them computed alike.

How it works
    A hypothesis is a record of details; the default of each is what moespec.accumulate says of Hopper. `answer`
    computes any of them, slowly, in float64. There every term and sum is exact, but in the hypotheses that cut nothing:
    they lose what lies more than 52 bits below a sum.
    The command asks the GPU, and strikes out every hypothesis that answers otherwise, if only once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from problems import F32, F64, Problems

from moespec.formats import FORMATS

Ints = npt.NDArray[np.int64]
NONE = -(10**4)  # the exponent of what takes no part
LEAST_C = -126  # float32's least normal exponent


class Hypothesis(NamedTuple):
    """The details of one step, and of how steps follow one another."""

    step: int = 32  # products added at once
    interleaved: bool = False  # a shorter step takes every second product, not the first half
    term_bits: int = 13  # F: fraction bits kept of each term
    term_to: str = "zero"  # a term is cut toward zero; "down"; "uncut"
    sum_bits: int = 13  # fraction bits kept of each sum
    sum_to: str = "zero"  # the same of a sum; "down"; "nearest", ties to even
    products: str = "plain"  # a product's exponent is its factors' sum; "normalised": its own
    subnormals: str = "least"  # a subnormal factor's exponent is the least normal one; "own"
    zeros: str = "none"  # a product of 0 has no exponent; "least": it has that of its factors
    c: str = "term"  # the accumulator is a term; "uncut"; "behind": has no say in e; "apart": added in float32
    c_subnormal: str = "least"  # a subnormal accumulator's exponent is -126; "own"; "flushed": it is 0
    between: str = "normalised"  # the accumulator's exponent in a chain is its own; "kept": that of the step before


HOPPER = Hypothesis()
HYPOTHESES = {
    "hopper": HOPPER,
    "16 products a step (Ada)": Hypothesis(step=16),
    "16 products a step, interleaved": Hypothesis(step=16, interleaved=True),
    "64 products a step": Hypothesis(step=64),
    "12 bits of a term": Hypothesis(term_bits=12),
    "14 bits of a term": Hypothesis(term_bits=14),
    "terms cut downward": Hypothesis(term_to="down"),
    "terms not cut": Hypothesis(term_to="uncut"),
    "12 bits of a sum": Hypothesis(sum_bits=12),
    "14 bits of a sum": Hypothesis(sum_bits=14),
    "23 bits of a sum": Hypothesis(sum_bits=23),
    "sums cut downward": Hypothesis(sum_to="down"),
    "sums to nearest": Hypothesis(sum_to="nearest"),
    "25 bits of a term, 23 of a sum (the float16 unit)": Hypothesis(term_bits=25, sum_bits=23),
    "25 and 23 bits, C apart (a B200's mma)": Hypothesis(term_bits=25, sum_bits=23, c="apart"),
    "products normalised": Hypothesis(products="normalised"),
    "subnormal factors normalised": Hypothesis(subnormals="own"),
    "products of 0 have an exponent": Hypothesis(zeros="least"),
    "C not cut": Hypothesis(c="uncut"),
    "C has no say in the exponent": Hypothesis(c="behind"),
    "C added apart, in float32": Hypothesis(c="apart"),
    "subnormal C normalised": Hypothesis(c_subnormal="own"),
    "subnormal C flushed": Hypothesis(c_subnormal="flushed"),
    "the accumulator is not normalised in a chain": Hypothesis(between="kept"),
}


class Carried(NamedTuple):
    """What a step hands to the next: the accumulator, and the exponent that the step was aligned to."""

    total: F64  # (n, M, N)
    exponent: Ints | None = None  # (n, M, N)


def exponent_of(x: F64, least: int) -> Ints:
    """floor(log2 |x|), but not below `least`; NONE of 0."""
    return np.where(x == 0, NONE, np.maximum(np.frexp(x)[1].astype(np.int64) - 1, least))


def cut(x: F64, last: Ints, to: str) -> F64:
    """x as a multiple of 2^last, rounded in one way; where last is NONE there is nothing but zeros."""
    if to == "uncut":
        return x
    unit = np.ldexp(1.0, np.maximum(last, -400))
    whole = {"zero": np.trunc, "down": np.floor, "nearest": np.rint}[to](x / unit)
    return np.asarray(whole * unit, np.float64)


def exponents(h: Hypothesis, a: F64, b: F64, terms: F64, emin: int) -> Ints:
    """Of each product (n, M, N, L)."""
    if h.products == "normalised":
        return exponent_of(terms, NONE)
    least = NONE if h.subnormals == "own" else emin
    x, y = exponent_of(a, least)[:, :, None, :], exponent_of(b, least)[:, None, :, :]
    if h.zeros == "least":
        return np.asarray(np.maximum(x, emin) + np.maximum(y, emin))
    return np.where(terms == 0, NONE, x + y)


def one_step(h: Hypothesis, a: F64, b: F64, before: Carried, emin: int) -> Carried:
    """The next accumulator, from a (n, M, L) and b (n, N, L)."""
    total = before.total  # (n, M, N)
    if h.c_subnormal == "flushed":
        total = np.where(np.abs(total) < 2.0**LEAST_C, 0.0, total)
    terms = a[:, :, None, :] * b[:, None, :, :]  # (n, M, N, L)
    of_products = exponents(h, a, b, terms, emin).max(axis=-1)  # (n, M, N)
    of_c = exponent_of(total, NONE if h.c_subnormal == "own" else LEAST_C)  # (n, M, N)
    if h.between == "kept" and before.exponent is not None:
        of_c = np.where(total == 0, NONE, before.exponent)
    leading = of_products if h.c in ("behind", "apart") else np.maximum(of_products, of_c)  # (n, M, N)
    leading = np.where(leading == NONE, of_c, leading)

    last = leading - h.term_bits  # (n, M, N)
    added = cut(terms, last[..., None], h.term_to).sum(axis=-1)  # (n, M, N)
    if h.c != "apart":
        added = added + (total if h.c == "uncut" else cut(total, last, h.term_to))
    own = exponent_of(added, NONE if h.c_subnormal == "own" else LEAST_C)  # (n, M, N)
    kept = cut(added, own - h.sum_bits, h.sum_to)
    if h.c == "apart":
        kept = (kept + total).astype(np.float32).astype(np.float64)
    return Carried(kept, np.where(kept == 0, NONE, leading))


def chain(h: Hypothesis, a: F64, b: F64, c: F64, emin: int) -> F64:
    """All of a stretch: a (n, M, C) and b (n, N, C) from the accumulator c on."""
    carried, wide = Carried(c), 32 // h.step if h.interleaved else 1
    for k in range(0, a.shape[-1], h.step * wide):
        for j in range(wide):
            part = slice(k + j, k + h.step * wide, wide)
            carried = one_step(h, a[..., part], b[..., part], carried, emin)
    return carried.total


@np.errstate(invalid="ignore")  # NaN and infinities are nobody's
def answer(h: Hypothesis, problems: Problems) -> F32:
    """d (n, M, N), as this hypothesis has it."""
    (a, b), emin = problems.numbers, FORMATS[problems.fmt].emin
    total = problems.c
    if not problems.promote:
        return chain(h, a, b, total.astype(np.float64), emin).astype(np.float32)
    for k in range(0, a.shape[-1], problems.promote):
        part = slice(k, k + problems.promote)
        total = total + chain(h, a[..., part], b[..., part], np.zeros(total.shape), emin).astype(np.float32)
    return total
