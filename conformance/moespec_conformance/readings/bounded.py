"""Bounded: what any legal implementation may differ by, element by element, from the reference's own lines.

An array here is a value v (float64) and a rigorous bound e: any implementation that computes each step in the
given arithmetic, in any order that the clauses leave free, lies within v - e … v + e. Run the reference on such
arrays and the tolerances come out; nothing is tuned.

How it works
    Each element-wise step propagates e and adds one rounding: u (|v| + e), plus one smallest normal number for
    results that underflow, flushed or not. A product of matrices over C terms adds gamma(C) (|A| + eA) @ (|B| + eB),
    which covers every order, splitting and fused multiply-add (Higham, Accuracy and Stability, 3.1).
    A chain of n additions adds gamma(n) (sum of |terms|), whatever its order: so each array also carries the mass
    (the sum of |terms| so far) and adds (how many additions made it). Products of matrices and sums begin a chain,
    so that two of them may be fused into one accumulator; a factor of whole rows, applied before or after, goes
    along. Every other step, and every store, starts anew.
What is rounded where
    float32 rounds each step once. In bfloat16 an array has a store: each element-wise step and each matrix product
    may be stored once in bfloat16 (MOE-7). An element-wise step takes the coarser store of its
    operands, a product of matrices the finer: so what meets the router stays in float32, as GATE-1 asks.
The functions and comparisons are in elementary.py.
What is left out
    The rounding of the bound itself in float64, and of v (2^-53 against 2^-24): both are inside U, taken a little
    larger than 2^-24.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from moespec_conformance.readings.planes import Array, Planes
from moespec_conformance.readings.portable import plain

U = 2.0**-24 * (1 + 2.0**-20)  # unit roundoff of float32, and room for float64's own
U_BF16 = 2.0**-8  # unit roundoff of bfloat16
TINY = 2.0**-126  # smallest normal number of float32 and bfloat16
HUGE = 2.0**126  # from here on a step may overflow, and one over it may be flushed to 0
STORE = {"float32": 0.0, "bfloat16": U_BF16}

where: Callable[..., Array] = np.where  # of planes of any kind


def gamma(n: Array, unit: float = U) -> Array:
    """How much n roundings in a row can amount to, relative: n u / (1 - n u)."""
    return n * unit / (1 - n * unit)


class Bounded(Planes):
    """Value, bound, mass, adds; and the store of the arithmetic, None for exact constants."""

    RULES: ClassVar[dict[Any, Any]] = {}
    store: float | None = None
    least: Array = 0.0  # no computed value is below this: known of exp, and of what is added to it
    part: bool = False  # a mantissa, whose number may lie in another binade
    shift: bool = False  # the largest of a row, to be taken off the row before anything else is added

    @classmethod
    def exact(cls, values: Array) -> tuple[Array, ...]:
        """Exact values: no error yet, and no addition behind them."""
        return values, np.zeros_like(values), size(values), np.zeros_like(values)

    @classmethod
    def of(cls, x: Array, arithmetic: str) -> Self:
        """Exact input x (plain, or another reading), whose descendants are computed in this arithmetic."""
        bounded = cls(*cls.exact(x if isinstance(x, Planes) else np.asarray(x, np.float64)))
        bounded.store = STORE[arithmetic]
        return bounded

    @classmethod
    def lift(cls, x: Array) -> Self:
        """Return x itself if it is bounded; a constant of the code is rounded to float32."""
        made = super().lift(x)
        if isinstance(x, float):
            made.planes = (made.v, np.asarray(abs(x - float(np.float32(x)))), *made.planes[2:])
        return made

    def like(self, planes: Sequence[Array], *others: Planes) -> Self:
        """Keep the coarsest store of all that took part."""
        made = super().like(planes)
        made.store = coarsest(self, *others)
        return made

    @property
    def v(self) -> Array:
        """The values."""
        return self.planes[0]

    @property
    def e(self) -> Array:
        """The bounds."""
        return self.planes[1]


def stores(*arrays: Planes) -> list[float]:
    """The stores of those that are not constants."""
    return [a.store for a in arrays if isinstance(a, Bounded) and a.store is not None]


def coarsest(*arrays: Planes) -> float | None:
    """The store of an element-wise step."""
    return max(stores(*arrays), default=None)


def fresh(v: Array, e: Array, store: float | None) -> Bounded:
    """An array that no addition made."""
    made = Bounded(v, e, size(v) + e, np.zeros_like(v))
    made.store = store
    return made


def kept(v: Array, e: Array, store: float | None) -> Bounded:
    """A result that is stored: one rounding to the store, if it has one."""
    return fresh(v, e + store * (size(v) + e) if store else e, store)


def summed(v: Array, mass: Array, n: int, e: Array, store: float | None) -> Bounded:
    """A sum of n terms; if nothing is stored on the way, a further addition goes on with the same chain."""
    made = kept(v, e + gamma(n) * mass + n * TINY, store)
    if not store:
        made.planes = (v, made.e, mass, np.full_like(v, float(n)))
    return made


def rounded(v: Array, e: Array, store: float | None, c: float = 1.0) -> Bounded:
    """One step: its propagated error e, one rounding of c units, and one store."""
    e = e + c * U * (size(v) + e) + TINY
    return kept(v, e, store)


def size(v: Array) -> Array:
    """|v|, in any reading."""
    return np.abs(v) if isinstance(v, Planes) else np.asarray(np.abs(v))  # a number stays an array


def add(a: Bounded, b: Bounded) -> Bounded:
    """a + b as part of a chain: all its additions, reordered at will, cost gamma(adds) times mass."""
    store, (_, _, mass_a, n_a), (_, _, mass_b, n_b) = coarsest(a, b), a.planes, b.planes
    unit, mass, n = U + (store or 0.0) * (1 + U), mass_a + mass_b, n_a + n_b + 1
    step = gamma(n, unit) * mass - gamma(n_a, unit) * mass_a - gamma(n_b, unit) * mass_b
    made = Bounded(a.v + b.v, a.e + b.e + step + TINY, mass, n)
    made.store, made.least = store, a.least + b.least
    return made


def negative(a: Bounded) -> Bounded:
    """Negate: no rounding, and a chain of additions goes on."""
    v, e, mass, adds = a.planes
    return a.like([-v, e, mass, adds])


def subtract(a: Bounded, b: Bounded) -> Bounded:
    """a - b, in the same chain; a row's largest is taken off an input in a step of its own (LOS-1)."""
    if b.shift and not plain(a.planes[3]).any():
        return rounded(a.v - b.v, a.e + b.e, coarsest(a, b))
    return add(a, negative(b))


def multiply(a: Bounded, b: Bounded) -> Bounded:
    """a * b; a factor of whole rows may be applied to the terms of their sums, so their chains go on."""
    e = times(size(a.v) + a.e, b.e) + times(size(b.v), a.e)
    made = unrounded(rounded(a.v * b.v, e, coarsest(a, b)), e, a, b)
    if not made.store and a.ndim == b.ndim == 2 and 1 in (a.shape[1], b.shape[1]):  # noqa: PLR2004
        made.planes = (made.v, made.e, a.planes[2] * b.planes[2] + made.e, a.planes[3] + b.planes[3] + 1)
    return made


def unrounded(made: Bounded, e: Array, *by: Bounded) -> Bounded:
    """A step by exact powers of two alone: no rounding, but where it leaves the range of normal numbers."""
    if made.store:
        return made
    for b in by:
        error = np.broadcast_to(plain(b.e), made.shape)
        if b.ndim > 1 and np.all(np.frexp(np.abs(plain(b.v)))[0] == 0.5):  # noqa: PLR2004 - a power of two's mantissa
            ordinary = (error == 0) & (plain(size(made.v) + e) >= TINY) | (plain(made.v) == 0) & (plain(e) == 0)
            made.planes = (made.v, where(ordinary, e, made.e), *made.planes[2:])
    return made


def times(known: Array, e: Array) -> Array:
    """A product of bounds, in which an exact 0 makes nothing of an error without end."""
    return where(known > 0, known * e, 0.0)


def divide(a: Bounded, b: Bounded) -> Bounded:
    """a / b; where b may be 0 nothing is known."""
    v, least = a.v / b.v, size(b.v) - b.e
    least = where(least > b.least, least, b.least)
    known = least > 0
    e = where(known, (a.e + size(v) * b.e) / where(known, least, 1.0), np.inf)
    e = where(size(b.v) + b.e >= HUGE, e + size(v), e)  # b may be inf in float32, and the quotient 0
    return unrounded(rounded(v, e, coarsest(a, b)), e, *(() if a.ndim else (b,)))  # 1 over a power of two


def matmul(a: Bounded, b: Bounded) -> Bounded:
    """Multiply matrices, the C products added in any order, splitting or fusion."""
    store = min(stores(a, b), default=None)
    size_a, size_b = size(a.v), size(b.v)
    e = size_a @ b.e + a.e @ size_b + a.e @ b.e
    made = summed(a.v @ b.v, (size_a + a.e) @ (size_b + b.e), a.shape[-1], e, store)
    if chosen_exactly(a, b):
        return fresh(made.v, np.zeros_like(made.v), made.store)
    return made


def chosen_exactly(a: Bounded, b: Bounded) -> bool:
    """Whether each row of a is one exact 1 amid zeros, and b exact: the product then copies rows, without rounding."""
    rows = plain(a.v)
    exact = not (plain(a.e).any() or plain(b.e).any())
    return exact and bool(np.all((rows == 0) | (rows == 1)) and np.all(np.count_nonzero(rows, axis=-1) == 1))


def total(a: Bounded, axis: int, *, keepdims: bool = False) -> Bounded:
    """Add n numbers in any order."""
    v, e, mass = (np.sum(p, axis=axis, keepdims=keepdims) for p in a.planes[:3])
    return summed(v, mass, a.shape[axis], e, a.store)


def sort(a: Bounded, axis: int = -1) -> Bounded:
    """np.sort: the k-th smallest moves by no more than the k-th smallest of all that may be."""
    v = np.sort(a.v, axis=axis)
    up, down = np.sort(a.v + a.e, axis=axis) - v, v - np.sort(a.v - a.e, axis=axis)
    return fresh(v, where(up > down, up, down), a.store)


def argsort(a: Bounded, axis: int = -1, kind: Any = None) -> Array:  # noqa: ANN401 - NumPy's
    """np.argsort, by value; whether the order was certain is the judge's question."""
    return np.argsort(a.v, axis=axis, kind=kind)


Bounded.RULES = {
    np.add: add,
    np.subtract: subtract,
    np.negative: negative,
    np.multiply: multiply,
    np.divide: divide,
    np.matmul: matmul,
    np.sum: total,
    np.sort: sort,
    np.argsort: argsort,
}
