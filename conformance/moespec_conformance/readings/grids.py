"""What Bounded makes of the grids of small formats: exponents, rounding to whole steps, largest magnitudes.

A code that may round either way counts both of its numbers. Exponents are taken by value: where a number may lie in
either of two binades, rounding adds what the coarser one could move it by. A scale that may be one of several powers
of two counts them all, and what is divided by it then has no bound to speak of: cases have few such blocks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from moespec_conformance.readings.bounded import Bounded, fresh, size, where
from moespec_conformance.readings.elementary import compared
from moespec_conformance.readings.planes import Array
from moespec_conformance.readings.portable import plain

LOWEST = -1074  # of float64
SAFE = 0.25  # of a step: below it a number near the edge of its binade rounds to that edge on either side


def magnitude(a: Bounded) -> Bounded:
    """np.abs: no rounding."""
    return fresh(size(a.v), a.e, a.store)


def greatest(a: Bounded, axis: int) -> Bounded:
    """np.amax: the largest moves by no more than the largest of all that may be."""
    v, high, low = (np.max(p, axis=axis) for p in (a.v, a.v + a.e, a.v - a.e))
    return fresh(v, where(high - v > v - low, high - v, v - low), a.store)


def parted(a: Bounded) -> tuple[Bounded, Array]:
    """np.frexp: the mantissa with its error, and the exponent by value; that of 0 is below any other."""
    part, exponent = np.frexp(a.v)
    made = fresh(part, np.ldexp(a.e, -exponent), a.store)
    made.part = True
    return made, np.where(a.v == 0, LOWEST, exponent)


def shifted(a: Bounded, by: Bounded) -> Bounded:
    """np.ldexp: times a power of two, without rounding."""
    n = by.v.astype(np.int64)
    return fresh(np.ldexp(a.v, n), np.ldexp(a.e, n), a.store)


def whole(a: Bounded) -> Bounded:
    """np.rint of a number in steps of its grid: all that the numbers within its error round to.

    Up to a quarter step that is what both ends round to. Beyond, the grid may be coarser or finer at the other end:
    rounding there moves a number by half a step of that end at most, which is less than 1 + e / 2 steps of this one.
    """
    v, e = np.rint(a.v), a.e
    up, down = np.rint(a.v + e) - v, v - np.rint(a.v - e)
    return fresh(v, where(e > SAFE, 1.5 * e + 1.5, where(up > down, up, down)), a.store)


def undefined(a: Bounded) -> Array:
    """np.isnan, by value."""
    return np.isnan(plain(a.v))


RULES: dict[Any, Callable[..., Any]] = {
    np.abs: magnitude,
    np.amax: greatest,
    np.frexp: parted,
    np.ldexp: shifted,
    np.rint: whole,
    np.equal: compared(np.equal),
    np.isnan: undefined,
}
Bounded.RULES |= RULES
