"""Portable: the same bits on every machine.

One plane of float64. Only +, -, *, / and square roots are exact rules of IEEE 754; what a library is free to
compute its own way is written out here: sums and products of matrices add one term after the other, and exp is
a polynomial. Each step is one NumPy function, so no compiler can fuse a multiplication with an addition.
A row's result does not depend on the other rows, so this reading is batch invariant too.
"""

from collections.abc import Callable
from functools import partial
from math import factorial
from typing import Any, ClassVar

import numpy as np

from moespec_conformance.readings.planes import Array, Planes

LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fefa3800p-1"), float.fromhex("0x1.ef35793c76730p-45")
COEFFICIENTS = [1 / factorial(n) for n in range(13, -1, -1)]


class Portable(Planes):
    """Values alone."""

    RULES: ClassVar[dict[Any, Any]] = {}


def plain(x: Array) -> Array:
    """The values, as NumPy holds them."""
    return x.planes[0] if isinstance(x, Portable) else x


def exp(x: Array) -> Array:
    """Within 1 ulp of float64: x is n ln 2 + r, and exp of r is Taylor's series to r^13."""
    x = np.clip(x, -708.0, 708.0)
    n = np.rint(x * 1.4426950408889634)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = np.full_like(r, COEFFICIENTS[0])
    for c in COEFFICIENTS[1:]:
        p = p * r + c
    return np.ldexp(p, n.astype(np.int32))


def log1p(x: Array) -> Array:
    """Within 2 ulp of float64 for x of 0 … 1: with s = x / (2 + x) it is 2 (s + s^3 / 3 + s^5 / 5 + …)."""
    s = x / (2 + x)
    square = s * s
    series = np.full_like(s, 1 / 37)
    for odd in range(35, 0, -2):
        series = series * square + 1 / odd
    return 2 * s * series


def log(x: Array) -> Array:
    """Within 4 ulp of float64: x is (1 + r) 2^n with 1 + r from sqrt(1/2) to sqrt(2)."""
    m, n = np.frexp(x)
    low = m < 0.7071067811865476  # noqa: PLR2004 - the root of 1/2
    n = n - low
    return n * LN2_HIGH + (log1p(np.where(low, 2 * m, m) - 1) + n * LN2_LOW)


def tanh(x: Array) -> Array:
    """By exp, within 2^-52: 1 - 2 / (exp(2 x) + 1)."""
    return 1 - 2 / (exp(2 * x) + 1)


def matmul(a: Array, b: Array) -> Array:
    """Multiply matrices, adding the C products in order of C."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for c in range(a.shape[1]):
        out += a[:, c, None] * b[None, c, :]
    return out


def total(a: Portable, axis: int, *, keepdims: bool = False) -> Portable:
    """np.sum, in order."""
    terms = np.moveaxis(plain(a), axis, 0)
    out = np.zeros(terms.shape[1:])
    for term in terms:
        out = out + term
    return Portable(np.expand_dims(out, axis) if keepdims else out)


def frexp(x: Portable) -> tuple[Portable, Array]:
    """Mantissas, and whole exponents."""
    mantissa, exponent = np.frexp(plain(x))
    return Portable(np.asarray(mantissa)), exponent


def ldexp(x: Portable, n: Portable) -> Portable:
    """Times a power of two."""
    return Portable(np.asarray(np.ldexp(plain(x), plain(n).astype(np.int32))))


def _plain(function: Callable[..., Array], *args: Array, **kwargs: Any) -> Array:  # noqa: ANN401 - NumPy's
    return function(*map(plain, args), **kwargs)


def _same(function: Callable[..., Array], *args: Array, **kwargs: Any) -> Portable:  # noqa: ANN401 - NumPy's
    return Portable(np.asarray(_plain(function, *args, **kwargs)))  # a number alone stays an array


EXACT = (
    np.add,
    np.subtract,
    np.negative,
    np.multiply,
    np.divide,
    np.sqrt,
    np.abs,
    np.minimum,
    np.maximum,
    np.max,
    np.sort,
    np.rint,
)
ASKED = (
    np.greater_equal,
    np.greater,
    np.less,
    np.less_equal,
    np.equal,
    np.isnan,
    np.argsort,
)
Portable.RULES = {
    **{f: partial(_same, f) for f in EXACT},
    **{f: partial(_plain, f) for f in ASKED},
    np.frexp: frexp,
    np.ldexp: ldexp,
    np.exp: partial(_same, exp),
    np.log: partial(_same, log),
    np.log1p: partial(_same, log1p),
    np.tanh: partial(_same, tanh),
    np.matmul: partial(_same, matmul),
    np.sum: total,
}
