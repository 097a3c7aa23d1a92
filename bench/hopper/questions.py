"""Designed sums, each with one thing to tell of the unit that computes it, and with what Hopper should answer.

How it works
    Most hold a large product, a small one, and perhaps the large one's opposite. How far apart they may be before the
    small one is lost, and where it may stand, says how wide the unit is and what it adds at once. Powers of two are
    written by exponent, in units of U = 2^8, so that no factor is subnormal where the question is about something else.
    `want` was worked out by hand from ACC-3. A question is one problem of one output; those of a shape go together.
The families
    P1 bits of a term, and how it is cut; P2 which products are added at once; P3 the accumulator C; P4 bits of a sum,
    and how it is cut; P5 promotion (ACC-5's fingerprint); P6 exponents of subnormal factors and of zeros; P7 exponents
    of products of 2 and more; P8 smallest products; P9 subnormal C; P10 an accumulator between two steps; P11 zeros;
    P12 NaN and infinities, of which no model here says anything.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from problems import F32, Codes, Problems

from moespec.formats import FORMATS, encode

Factors = tuple[float, float]
U = 2.0**8
INF, NAN = float("inf"), float("nan")


class Question(NamedTuple):
    """One sum: what it asks, its factors by place, Hopper's answer, and the accumulator that it begins with."""

    said: str
    factors: dict[int, Factors]
    want: float
    c: float = 0.0
    K: int = 32
    fmt: str = "e4m3"
    promote: int = 0
    free: bool = False

    @property
    def shape(self) -> tuple[bool, str, int, int]:
        """Questions of one shape are asked together."""
        return self.free, self.fmt, self.K, self.promote


def down(j: int, sign: int = 1) -> Factors:
    """Two normal factors, powers of two, whose product is +-2^-j U; j from -8 to 20."""
    half = (8 - j) // 2
    return sign * 2.0**half, 2.0 ** (8 - j - half)


def of_terms() -> Iterator[Question]:
    """P1, in both formats."""
    big, less, half = down(-8), down(-8, -1), down(6)  # half of the last bit beside 2^8 U, which is 2^-5 U
    whole = U * 2.0**8
    for fmt in ("e4m3", "e5m2"):
        for j in range(8, 29):
            kept = whole * 2.0**-j if j <= 13 else 0.0  # noqa: PLR2004 - F
            yield Question(f"P1 1 + 2^-{j}", {0: big, 1: down(j - 8)}, whole + kept, fmt=fmt)
            yield Question(f"P1 1 + 2^-{j} - 1", {0: big, 1: down(j - 8), 2: less}, kept, fmt=fmt)
        yield Question("P1 1 + half of a last bit, twice", {0: big, 1: half, 2: half}, whole, fmt=fmt)
        yield Question("P1 1 - half of a last bit", {0: big, 1: down(6, -1)}, whole, fmt=fmt)
        yield Question("P1 -1 - half of a last bit", {0: less, 1: down(6, -1)}, -whole, fmt=fmt)
        yield Question("P1 1 - 1 - half of a last bit", {0: big, 1: down(6, -1), 2: less}, 0.0, fmt=fmt)


def of_steps() -> Iterator[Question]:
    """P2 and P10."""
    big, less, small = down(-8), down(-8, -1), down(12)
    left = U * 2.0**-12
    for q in (2, 3, 7, 8, 15, 16, 17, 24, 30, 31, 32, 33, 47, 48, 63, 64, 65, 96):
        there = left if q >= 32 else 0.0  # noqa: PLR2004 - L
        yield Question(f"P2 large in 0 and 1, small in {q}", {0: big, 1: less, q: small}, there, K=128)
    for q in (2, 4, 8, 15, 16, 17, 24, 31, 32, 64, 127):
        yield Question(f"P2 large in 0 and {q}, small in 3", {0: big, q: less, 3: small}, 0.0, K=128)
    for q in (33, 48, 63, 64):
        yield Question(f"P2 large in 0 and 127, small in {q}", {0: big, q: small, 127: less}, 0.0, K=128)
    for j in range(10, 18):
        first = {0: down(0), 1: down(0, -1), 2: down(10)}
        yield Question(f"P10 1 - 1 + 2^-10; 2^-{j}", {**first, 32: down(j)}, U * (2.0**-10 + 2.0**-j), K=64)
    ones = {k: down(0) for k in range(4)}
    for n in (1, 2, 3, 4, 8):
        bits = {32 + k: down(13) for k in range(n)}
        yield Question(f"P10 4; {n} of 2^-13, each below 4's last bit", {**ones, **bits}, 4 * U, K=64)
    back = {64 + k: down(0, -1) for k in range(4)}
    yield Question("P10 4; 2^-11, 4's last bit; -4", {**ones, 32: down(11), **back}, U * 2.0**-11, K=96)


def of_c() -> Iterator[Question]:
    """P3, in both formats: an accumulator that is not 0."""
    one, less, half = down(0), down(0, -1), down(14)
    for fmt in ("e4m3", "e5m2"):
        for j in (*range(10, 17), 18, 20, 23):
            kept = U * 2.0**-j if j <= 13 else 0.0  # noqa: PLR2004 - F
            both = U + U * 2.0**-j
            yield Question(f"P3 C = 1 + 2^-{j}", {}, U + kept, both, fmt=fmt)
            yield Question(f"P3 C = 1 + 2^-{j}; -1", {9: less}, kept, both, fmt=fmt)
            yield Question(f"P3 C = -1 - 2^-{j}; 1", {9: one}, -kept, -both, fmt=fmt)
            yield Question(f"P3 C = 2^-{j}; 1 - 1", {5: one, 6: less}, kept, U * 2.0**-j, fmt=fmt)
            if j <= 20:  # noqa: PLR2004 - a product of normal factors
                yield Question(f"P3 C = 1; 2^-{j}", {5: down(j)}, U + kept, U, fmt=fmt)
                yield Question(f"P3 C = -1; 1 + 2^-{j}", {5: down(j), 6: one}, kept, -U, fmt=fmt)
        yield Question("P3 C = 1; half of a last bit, twice", {5: half, 17: half}, U, U, fmt=fmt)
        yield Question("P3 C = 1; -half of a last bit, twice", {5: down(14, -1), 17: down(14, -1)}, U, U, fmt=fmt)
    yield Question("P3 C = 2^9; 1; -2^9", {40: down(5), 64: down(-8, -1), 65: down(-8, -1)}, 0.0, U * 2.0**9, K=96)
    nearly = (1.5 * 2.0**-8, 2.0**-8)  # three quarters of float32's last bit beside U
    yield Question("P3 C = 1; 0.75 * 2^-23", {5: nearly}, U, U, fmt="e5m2")
    yield Question("P3 C = 1; 1.75 * 2^-23", {5: (1.75 * 2.0**-8, 2.0**-7)}, U, U, fmt="e5m2")


def of_sums() -> Iterator[Question]:
    """P4, P5 and P7."""
    for sign in (1, -1):
        for n in range(1, 12):
            terms = {**{k: down(0, sign) for k in range(4)}, **{k: down(13, sign) for k in range(4, 4 + n)}}
            yield Question(f"P4 {sign} * (4 + {n} * 2^-13)", terms, sign * U * (4 + n // 4 * 2.0**-11))
    for n in range(2, 9):
        twos = {k: down(-1) for k in range(n)} | {30: down(12), 31: down(12)}
        yield Question(f"P4 {n} * 2 + 2^-11", twos, U * (2 * n + (2.0**-11 if n < 4 else 0.0)))  # noqa: PLR2004
    yield Question("P4 32 * 1.875^2", dict.fromkeys(range(32), (1.875, 1.875)), 112.5)
    ones = {0: (128.0, 128.0), **dict.fromkeys(range(1, 1024), (1.0, 1.0))}
    for promote, left in ((0, 16384.0), (32, 17376.0), (64, 17344.0), (128, 17280.0), (256, 17152.0)):
        with_c = left + (3 if promote else 2)  # the accumulator keeps even numbers, float32 all
        yield Question("P5 16384 and 1023 ones", ones, left, K=1024, promote=promote)
        yield Question("P5 C = 3; 16384 and 1023 ones", ones, with_c, 3.0, 1024, promote=promote)
    above = {0: (24.0, 24.0), 1: down(13), 2: (-24.0, 24.0)}  # 2.25 U: its exponent is that of U
    yield Question("P7 2.25 + 2^-13 - 2.25", above, U * 2.0**-13)
    yield Question("P7 2.25 + 2^-13 - 2.25", above, U * 2.0**-13, fmt="e5m2")
    yield Question("P7 C = 1.125; 2.25 + 2^-13 - 2.25 ", above, U * (1.125 + 2.0**-13), 1.125 * U)


def of_exponents() -> Iterator[Question]:
    """P6, P8, P9 and P11."""
    for fmt, tiny, large, e in (("e4m3", 2.0**-9, 2.0**8, 2), ("e5m2", 2.0**-16, 2.0**15, 1)):
        lost = 2.0 ** (e - 14)  # beside 0.5, whose exponent is -6 + 8 or -14 + 15
        small = (2.0 ** ((e - 14) // 2), lost / 2.0 ** ((e - 14) // 2))
        yield Question("P6 0.5 by a subnormal a, and a small product", {0: (tiny, large), 1: small}, 0.5, fmt=fmt)
        yield Question("P6 0.5 by a subnormal b, and a small product", {0: (large, tiny), 1: small}, 0.5, fmt=fmt)
        yield Question(
            "P6 0.5 - 0.5 by a subnormal a; C small", {0: (tiny, large), 1: (-tiny, large)}, 0.0, lost, fmt=fmt
        )
        yield Question("P6 two subnormal factors; C small", {0: (tiny, tiny)}, tiny**2, tiny**2 * 2.0**-10, fmt=fmt)
        yield Question("P6 a of 0, and a small product", {0: (0.0, large), 1: small}, lost, fmt=fmt)
        yield Question("P6 b of 0; C small", {0: (large, 0.0)}, lost, lost, fmt=fmt)
        yield Question("P8 the smallest product", {0: (tiny, tiny)}, tiny**2, fmt=fmt)
        yield Question(
            "P8 the smallest product, 31 times", dict.fromkeys(range(31), (tiny, tiny)), 31 * tiny**2, fmt=fmt
        )
    for sign in (1, -1):
        for bits, kept in (
            (2.0**-127, 2.0**-127),
            (2.0**-139, 2.0**-139),
            (2.0**-140, 0.0),
            (3 * 2.0**-140, 2.0**-139),
        ):
            yield Question(f"P9 C = {sign} * {bits / 2.0**-140:g} * 2^-140", {}, sign * kept, sign * bits)
        c = sign * (2.0**-126 + 2.0**-139)
        yield Question(f"P9 C = {sign} * (2^-126 + 2^-139 + 2^-149)", {}, c, c + sign * 2.0**-149)
    yield Question("P11 1 - 1", {0: down(0), 1: down(0, -1)}, 0.0)
    yield Question("P11 C = -0", {}, 0.0, -0.0)
    yield Question("P11 a negative product that is cut to 0", {0: down(0), 1: down(0, -1), 2: down(14, -1)}, 0.0)


def of_nobody() -> Iterator[Question]:
    """P12: asked and recorded, but judged by no model."""
    one, inf = (1.0, 1.0), (INF, 1.0)
    for fmt in ("e4m3", "e5m2"):
        yield Question("P12 NaN * 1", {0: (NAN, 1.0)}, NAN, fmt=fmt, free=True)
        for c in (NAN, INF, -INF):
            yield Question(f"P12 C = {c}; 1", {0: one}, c, c, fmt=fmt, free=True)
    yield Question("P12 inf * 1", {0: inf}, INF, fmt="e5m2", free=True)
    yield Question("P12 inf * 0", {0: (INF, 0.0)}, NAN, fmt="e5m2", free=True)
    yield Question("P12 inf - inf", {0: inf, 1: (-INF, 1.0)}, NAN, fmt="e5m2", free=True)
    yield Question("P12 C = -inf; inf", {0: inf}, NAN, -INF, fmt="e5m2", free=True)


def questions() -> list[Question]:
    """All of them."""
    return [*of_terms(), *of_steps(), *of_c(), *of_sums(), *of_exponents(), *of_nobody()]


def codes_of(asked: list[Question], which: int) -> Codes:
    """The factors of one side, (n, 1, K)."""
    x: F32 = np.zeros((len(asked), 1, asked[0].K), np.float32)
    for row, question in zip(x[:, 0], asked, strict=True):
        for k, factors in question.factors.items():
            row[k] = factors[which]
    return encode(x, FORMATS[asked[0].fmt], "nan").view(np.uint8)


def designed() -> list[Problems]:
    """All questions, those of one shape together."""
    found = list[Problems]()
    for (free, fmt, K, promote), group in groupby(sorted(questions(), key=lambda q: q.shape), lambda q: q.shape):
        asked = list(group)
        name = f"{'free' if free else 'designed'}-{fmt}-K{K}-promote{promote}"
        c, want = (np.array(x, np.float32).reshape(-1, 1, 1) for x in ([q.c for q in asked], [q.want for q in asked]))
        a, b = (codes_of(asked, which) for which in (0, 1))
        found.append(Problems(name, fmt, promote, a, b, c, tuple(q.said for q in asked), want, free))
    return found
