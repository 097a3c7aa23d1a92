"""What Bounded makes of functions, of the smaller and larger of two, and of comparisons."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from moespec_conformance.readings.bounded import TINY, Bounded, U, coarsest, fresh, negative, rounded, size, where
from moespec_conformance.readings.planes import Array, Planes
from moespec_conformance.readings.portable import plain

C_EXP = 6.0  # exp within 3 ulp = 6 u: NumPy's SIMD kernel 2.52, CUDA expf 2, SLEEF and glibc 1
C_LOG = 4.0  # log1p within 2 ulp, and tanh: SLEEF, glibc and CUDA 1 to 2
C_LN = 8.0  # log within 4 ulp: NumPy's SIMD kernel 3.83, SLEEF, CUDA logf and glibc 1


def grown(e: Array) -> Array:
    """At least exp(e) - 1, without cancellation: e + e^2 below 1."""
    return where(e < 1, e * (1 + e), np.exp(np.minimum(e, 700.0)))


def exp(a: Bounded) -> Bounded:
    """Exponential: an error of the argument grows by the value."""
    v = np.exp(np.minimum(a.v, 700.0))  # far beyond HUGE, where only "inf" is left to say
    made = rounded(v, v * grown(a.e), coarsest(a), C_EXP)
    lowest = v * np.exp(-np.minimum(a.e, 700.0)) * (1 - C_EXP * U - 2 * (made.store or 0.0)) - TINY
    made.least = where(lowest > 0, lowest, 0.0)
    return made


def square_root(a: Bounded) -> Bounded:
    """Square root: near 0 an error e of the argument may grow to sqrt(e)."""
    v, low = np.sqrt(a.v), where(a.v > a.e, a.v - a.e, 0.0)
    down, up = v - np.sqrt(low), np.sqrt(a.v + a.e) - v
    return rounded(v, where(down > up, down, up) + 2.0**-50 * v, coarsest(a))


def log1p(a: Bounded) -> Bounded:
    """log(1 + a) for a of 0 or more: an error of the argument shrinks by 1 + a."""
    low = where(a.v > a.e, a.v - a.e, 0.0)
    return rounded(np.log1p(a.v), a.e / (1 + low), coarsest(a), C_LOG)


def tanh(a: Bounded) -> Bounded:
    """Hyperbolic tangent: its slope is at most 1 - tanh^2 where the argument may come nearest to 0."""
    nearest = where(size(a.v) > a.e, size(a.v) - a.e, 0.0)
    t = np.tanh(nearest)
    return rounded(np.tanh(a.v), a.e * (1 - t * t), coarsest(a), C_LOG)


def minimum(a: Bounded, b: Bounded) -> Bounded:
    """The smaller of a and b: no rounding; nothing is left of an error that lies wholly on the other's side."""
    low, other = where(a.v <= b.v, a.v, b.v), where(a.v <= b.v, b.v - b.e > a.v + a.e, a.v - a.e > b.v + b.e)
    sure, either = where(a.v <= b.v, a.e, b.e), where(a.e > b.e, a.e, b.e)
    return fresh(low, where(other, sure, either), coarsest(a, b))


def maximum(a: Bounded, b: Bounded) -> Bounded:
    """The larger of a and b."""
    return negative(minimum(negative(a), negative(b)))


def largest(a: Bounded, axis: int, *, keepdims: bool = False) -> Bounded:
    """np.max: softmax takes it off every term and divides it out again, so that its own error cancels: none."""
    v = np.max(a.v, axis=axis, keepdims=keepdims)
    made = fresh(v, np.zeros_like(v), a.store)
    made.shift = True
    return made


def log(a: Bounded) -> Bounded:
    """Natural logarithm; where its argument may be 0 nothing is known."""
    known = a.v > a.e
    e = where(known, a.e / where(known, a.v - a.e, 1.0), np.inf)
    return rounded(np.log(a.v), e, coarsest(a), C_LN)


class Side(NDArrayOperatorsMixin):
    """The outcome of a comparison by value, and where errors could turn it."""

    def __init__(self, holds: Array, unsure: Array, span: tuple[Array, Array] | None = None) -> None:
        """Both of bool and of one shape; span: of mantissas, how many powers of two below and above they may lie."""
        self.holds, self.unsure, self.span = holds, unsure, span
        self.shape = holds.shape

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        """For what only asks by value: a mask of rows, an index."""
        return np.asarray(self.holds)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - NumPy's
        """np.where between numbers, exact ones too: which of them it is may be unsure. Ids are chosen by value."""
        if func is np.where and any(isinstance(a, Planes) or np.asarray(a).dtype.kind == "f" for a in args[1:]):
            return either(*args) if any(isinstance(a, Planes) for a in args[1:]) else one_of(*args)
        return func._implementation(*args, **kwargs)  # noqa: SLF001 - as if this class took no part

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Array, **how: Any) -> Any:  # noqa: ANN401 - NumPy's
        """and, or, not, any, all: unsure where one of them is."""
        sides = [a for a in args if isinstance(a, Side)]
        holds = getattr(ufunc, method)(*(a.holds if isinstance(a, Side) else a for a in args), **how)
        if method == "reduce":
            return Side(np.asarray(holds), np.asarray(np.logical_or.reduce(sides[0].unsure, *args[1:], **how)))
        unsure = np.logical_or.reduce([np.broadcast_to(s.unsure, holds.shape) for s in sides])
        return Side(holds, unsure)


def compared(compare: Callable[[Array, Array], Array]) -> Callable[[Bounded, Bounded], Side]:
    """Compare by value."""

    def rule(a: Bounded, b: Bounded) -> Side:
        e = plain(a.e + b.e)
        span = (above(a.v - a.e, b.v), above(a.v + a.e, b.v)) if a.part else None
        return Side(np.asarray(compare(a.v, b.v)), (e > 0) & (plain(size(a.v - b.v)) <= e), span)

    return rule


def above(x: Array, limit: Array) -> Array:
    """The least k with x <= 2**k limit; far below where x may be 0."""
    part, exponent = np.frexp(np.maximum(x, 0.0) / limit)
    return np.where(x > 0, exponent - (part == 0.5), -np.inf)  # noqa: PLR2004 - a power of two's mantissa


def one_of(side: Side, a: Array, b: Array) -> Bounded:
    """np.where between exact numbers. Of several powers of two the largest stands: what it divides has a bound."""
    if side.span is None:
        return either(side, Bounded.lift(a), Bounded.lift(b))
    lowest, largest = (np.asarray(b, np.float64) * np.exp2(k) for k in side.span)
    made = Bounded.lift(largest)
    made.planes = (largest, np.where(lowest > 0, largest - lowest, np.inf), *made.planes[2:])
    made.store = 0.0
    return made


def either(condition: Array, a: Array, b: Array) -> Bounded:
    """np.where: where errors could turn the comparison, either side is legal."""
    x, y = Bounded.lift(a), Bounded.lift(b)
    holds = condition.holds if isinstance(condition, Side) else condition
    made = x.like([where(holds, p, q) for p, q in zip(x.planes, y.planes, strict=True)], y)
    if isinstance(condition, Side) and condition.unsure.any():
        e = where(x.e > y.e, x.e, y.e) + size(x.v - y.v)
        made.planes = (made.v, where(condition.unsure, e, made.e), *made.planes[2:])
    return made


RULES: dict[Any, Callable[..., Any]] = {
    np.exp: exp,
    np.log: log,
    np.log1p: log1p,
    np.sqrt: square_root,
    np.tanh: tanh,
    np.minimum: minimum,
    np.maximum: maximum,
    np.max: largest,
    np.greater_equal: compared(np.greater_equal),
    np.greater: compared(np.greater),
    np.less: compared(np.less),
    np.less_equal: compared(np.less_equal),
    np.where: either,
}
Bounded.RULES |= RULES
