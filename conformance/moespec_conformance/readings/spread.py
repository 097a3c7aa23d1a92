"""Spread: how far honest rounding usually takes a result, as a variance.

Bounds cover the worst case and so let small faults of a whole tensor through (TF32 inputs, a wrong epsilon). Here
an array is a value and the variance of its rounding error, by the usual model: each rounding is uniform in half a
unit either way, so u^2 v^2 / 3, and roundings are independent. A sum of n terms rounds each of its partial sums;
these are taken in the reference's order. The judge compares (got - want) / sqrt(variance) over a whole tensor.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from moespec_conformance.readings.planes import Array, Planes

U2 = 2.0**-48 / 3  # variance of one rounding in float32, relative to v^2
CACHED = 8192  # numbers of float64


class Spread(Planes):
    """Value and variance."""

    RULES: ClassVar[dict[Any, Any]] = {}

    @classmethod
    def exact(cls, values: Array) -> tuple[Array, ...]:
        """Exact values have no variance."""
        return values, np.zeros_like(values)

    @property
    def v(self) -> Array:
        """The values."""
        return self.planes[0]

    @property
    def q(self) -> Array:
        """The variances."""
        return self.planes[1]


def rounded(v: Array, q: Array, c: float = 1.0) -> Spread:
    """One rounding more, of c units."""
    return Spread(v, q + c * c * U2 * v * v)


def negative(a: Spread) -> Spread:
    """Negate: no rounding."""
    return a.like([-a.v, a.q])


def divide(a: Spread, b: Spread) -> Spread:
    """a / b, to first order."""
    v = a.v / b.v
    return rounded(v, (a.q + v * v * b.q) / (b.v * b.v))


def exp(a: Spread) -> Spread:
    """Exponential; the function itself is good to about one unit in the last place."""
    v = np.exp(a.v)
    return rounded(v, v * v * a.q, 2.0)


def sloped(v: Array, slope: Array, a: Spread) -> Spread:
    """A function's value where its slope is known, to first order."""
    return rounded(v, slope * slope * a.q)


def chosen(first: Array, a: Spread, b: Spread) -> list[Array]:
    """The planes of a where first, else of b."""
    return [np.where(first, p, q) for p, q in zip(a.planes, b.planes, strict=True)]


def largest(a: Spread, axis: int, *, keepdims: bool = False) -> Spread:
    """np.max: only ever taken off and divided out again, so no variance of its own."""
    return Spread(*Spread.exact(np.max(a.v, axis=axis, keepdims=keepdims)))


def matmul(a: Spread, b: Spread) -> Spread:
    """Multiply matrices: every product and every partial sum is rounded."""
    v, squares = added_up(a.v, b.v)
    q = (a.v * a.v) @ (b.q + U2 * b.v * b.v) + a.q @ (b.v * b.v)
    return Spread(v, q + U2 * squares)


def added_up(a: Array, b: Array) -> tuple[Array, Array]:
    """a @ b one term at a time, and its partial sums' squares added up; as many rows together as a cache holds."""
    v, squares = (np.zeros((len(a), b.shape[1])) for _ in range(2))
    rows = max(1, CACHED // max(1, b.shape[1]))
    for i in range(0, len(a), rows):
        columns, sums, total = a[i : i + rows].T[:, :, None], v[i : i + rows], squares[i : i + rows]
        term = np.empty_like(sums)
        for column, row in zip(columns, b, strict=True):
            sums += np.multiply(column, row, out=term)
            total += np.multiply(sums, sums, out=term)
    return v, squares


def total(a: Spread, axis: int, *, keepdims: bool = False) -> Spread:
    """np.sum: every partial sum is rounded."""
    partial = np.cumsum(a.v, axis=axis)
    q = np.sum(a.q + U2 * partial * partial, axis=axis, keepdims=keepdims)
    return Spread(np.sum(a.v, axis=axis, keepdims=keepdims), q)


def sort(a: Spread, axis: int = -1) -> Spread:
    """np.sort: each number takes its variance along."""
    order = np.argsort(a.v, axis=axis, kind="stable")
    return a.each(lambda p: np.take_along_axis(p, order, axis=axis))


def argsort(a: Spread, axis: int = -1, kind: Any = None) -> Array:  # noqa: ANN401 - NumPy's
    """np.argsort, by value."""
    return np.argsort(a.v, axis=axis, kind=kind)


PAIRS: dict[Any, Callable[[Spread, Spread], Array]] = {
    np.add: lambda a, b: rounded(a.v + b.v, a.q + b.q),
    np.subtract: lambda a, b: rounded(a.v - b.v, a.q + b.q),
    np.multiply: lambda a, b: rounded(a.v * b.v, a.v * a.v * b.q + b.v * b.v * a.q),
    np.divide: divide,
    np.matmul: matmul,
    np.minimum: lambda a, b: a.like(chosen(a.v <= b.v, a, b)),
    np.maximum: lambda a, b: a.like(chosen(a.v >= b.v, a, b)),
    np.greater_equal: lambda a, b: a.v >= b.v,
    np.greater: lambda a, b: a.v > b.v,
    np.less: lambda a, b: a.v < b.v,
    np.less_equal: lambda a, b: a.v <= b.v,
}
SLOPED: dict[Any, Callable[[Spread], Spread]] = {
    np.sqrt: lambda a: sloped(np.sqrt(a.v), 0.5 / np.sqrt(np.maximum(a.v, np.finfo(np.float32).tiny)), a),
    np.log: lambda a: sloped(np.log(a.v), 1 / a.v, a),
    np.log1p: lambda a: sloped(np.log1p(a.v), 1 / (1 + a.v), a),
    np.tanh: lambda a: sloped(np.tanh(a.v), 1 - np.tanh(a.v) ** 2, a),
}
Spread.RULES = {
    **PAIRS,
    np.negative: negative,
    np.exp: exp,
    **SLOPED,
    np.max: largest,
    np.sum: total,
    np.sort: sort,
    np.argsort: argsort,
}
