"""Products that are asked of a unit, d = c + a b^T: what they are made of, and what our own model answers to them.

A promoted problem's c is the first number of the float32 total, and its accumulators begin at 0 (LIN-1 of SPEC.md); one
that is not promoted has its accumulator begin at c (LIN-3).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moespec.accumulate import UNITS, Unit, fused
from moespec.formats import FORMATS, decode

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]
STEP = 32  # products of one instruction


class Problems(NamedTuple):
    """n products of one shape (M,N,K), format, and interval of promotion (0: never)."""

    name: str
    fmt: str  # e4m3 or e5m2, of both factors
    promote: int
    a: Codes  # (n, M, K)
    b: Codes  # (n, N, K)
    c: F32  # (n, M, N)
    said: tuple[str, ...] = ()  # what each of them asks, if it was designed
    want: F32 | None = None  # (n, M, N): and what it should answer, worked out by hand
    free: bool = False  # asked, but of nobody's model: NaN and infinities

    @property
    def numbers(self) -> tuple[F64, F64]:
        """What the codes of a and b stand for."""
        fmt = FORMATS[self.fmt]
        a, b = (np.asarray(decode(codes, fmt), np.float64) for codes in (self.a, self.b))
        return a, b

    def part(self, i: int, rows: npt.NDArray[np.intp]) -> "Problems":
        """One problem alone, and of it these rows of a."""
        return self._replace(a=self.a[i : i + 1, rows], b=self.b[i : i + 1], c=self.c[i : i + 1, rows])


Answer = Callable[[Problems], F32]  # d (n, M, N)


def modelled(problems: Problems, unit: Unit = UNITS["hopper"]) -> F32:
    """d (n, M, N) as moespec.accumulate computes it (ACC-3), promoted as LIN-1 says."""
    return np.stack([_one(problems, i, unit) for i in range(len(problems.c))])


def _one(problems: Problems, i: int, unit: Unit) -> F32:
    fmt, K = FORMATS[problems.fmt], problems.a.shape[-1]
    a, b = (decode(codes[i], fmt) for codes in (problems.a, problems.b))
    total, length = problems.c[i], problems.promote or K
    for k in range(0, K, length):
        begun = np.zeros_like(total) if problems.promote else total
        added = fused(a[:, k : k + length], b[:, k : k + length], begun, (fmt, fmt), unit).astype(np.float32)
        total = total + added if problems.promote else added
    return np.asarray(total, np.float32)


def same(got: F32, want: F32) -> npt.NDArray[np.bool]:
    """Where two answers have the same bits; a zero's sign is free, as it is in the corpus."""
    bits = got.view(np.uint32) == want.view(np.uint32)
    return np.asarray(bits | ((got == 0) & (want == 0)), np.bool)
