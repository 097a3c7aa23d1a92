"""Designed FP8 products that tell accumulators apart, and what known accumulators answer to them (SPEC: ACC-5).

How it works
    Most probes hold a large product B, its opposite -B, and a small one. An accumulator that met the small one together
    with B has lost it, or has kept it if its bits reach so far; one that met it elsewhere still has it. The answer is
    the small product or 0, whatever the output's own format. Where the three stand says the rest: how many products are
    added at once, how many bits each keeps, where an accumulator is put away and a new one begun.
    Every number is an E4M3 number, and none a subnormal one, but in the two probes that ask about those.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from moespec.accumulate import Unit, fused
from moespec.formats import FORMATS
from moespec_conformance.protocol import Array

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
E4M3 = FORMATS["e4m3"]
C, N = 1024, 64  # products of a sum; columns that are asked, of which the first few hold something
HELD = 16
DEEPEST = 28  # B and the smallest product are so many bits apart
B, SMALL = 2.0**16, 2.0**-12
EVEN, ODD = np.arange(0, C, 2), np.arange(1, C, 2)


class Probe(NamedTuple):
    """One sum: its products by position, and the column of b that they are with; small is what survives or not."""

    about: str
    at: float
    products: dict[int, float]
    small: float = 0.0
    column: int = 0


def columns(rng: np.random.Generator) -> F32:
    """b (N, C): large at even places and small at odd; ACC-5's; ones; 1.5 at even places; random; and zeros."""
    b = np.zeros((N, C), np.float32)
    b[0, EVEN], b[0, ODD] = 2.0**8, 2.0**-6
    b[1], b[1, 0] = 1, 128
    b[2] = 1
    b[3, EVEN], b[3, ODD] = 96, 2.0**-6
    b[4:HELD] = some(rng, HELD - 4)
    return b


def some(rng: np.random.Generator, rows: int) -> F32:
    """Random normal numbers of E4M3 (rows, C), most of middling size; every second row has no negative ones."""
    codes = rng.normal(56, 14, (rows, C)).clip(8, 126).astype(np.uint8)
    codes[::2] |= rng.choice(np.array([0, 128], np.uint8), codes[::2].shape)
    return np.asarray(codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32))


def rows_of(probes: list[Probe], b: F32) -> F32:
    """a (M, C), M a multiple of 64: what makes each probe's products with its column."""
    a = np.zeros((-(-len(probes) // 64) * 64, C), np.float32)
    for row, probe in zip(a, probes, strict=False):
        for k, product in probe.products.items():
            row[k] = product / b[probe.column, k]
    return a


def apart(bits: int) -> tuple[float, float]:
    """A large and a small product whose exponents differ by `bits`, from 3 to DEEPEST."""
    large = min(bits + 2, 16)
    return 2.0**large, 2.0 ** (large - bits)


def first_round() -> list[Probe]:
    """What is asked of every implementation."""
    probes = [Probe("fingerprint", 0, {0: 16384.0, **dict.fromkeys(range(1, C), 1.0)}, column=1)]
    for bits in range(3, DEEPEST + 1):
        big, small = apart(bits)
        probes += [
            Probe("term", bits, {0: big, 1: small, 2: -big}, small),
            Probe("sum", bits, {0: big, 1: small, 512: -big}, small),
            Probe("store", bits, {0: big, 1: small}, big + small),
            # a last sum that is eight times its terms has bits that no step after it can cut
            Probe("last", bits, {**dict.fromkeys(range(C - 16, C, 2), big), C - 1: small}),
        ]
    probes += [Probe("step", q, {0: B, 2: -B, q: SMALL}, SMALL) for q in (*range(3, 132, 2), 191, 193, 255, 257)]
    for p in range(8, C - 8, 8):
        probes += [
            Probe("before", p, {p - 1: SMALL, p: B, p + 2: -B}, SMALL),
            Probe("after", p, {p - 2: B, p: -B, p + 1: SMALL}, SMALL),
        ]
    # two halves of a float32's last bit, on both sides of p, or both before it
    half = B * 2.0**-24
    probes += [
        Probe("halves", p, {0: B, p - 31: half, p + 1: half, C - 2: -B}, 2 * half) for p in range(64, C - 64, 32)
    ]
    return probes


def second_round(term_bits: int, sum_bits: int) -> list[Probe]:
    """What is asked of one that keeps so many bits: how it rounds, and two details of how terms are aligned."""
    probes = list[Probe]()
    if term_bits <= DEEPEST - 2:  # a quarter of the last bit is still a product
        big, last = apart(term_bits)
        probes += [
            Probe("term up", 0, {0: big, 1: 0.75 * last, 2: -big}, last),
            Probe("term down", 0, {0: big, 1: -0.25 * last, 2: -big}, last),
        ]
    for sign in (1, -1):
        big, last = (sign * size for size in apart(sum_bits))
        halves = dict.fromkeys((1, 3, 5), last)  # one and a half of what the sum can keep
        probes += [Probe("sum", sign, {0: big, 2: big, **halves, 512: -big, 514: -big}, 2 * last)]
    if term_bits <= 13:  # noqa: PLR2004 - a subnormal and a large number, with what lies just below what they keep
        small = 2.0 ** (1 - term_bits)
        probes += [Probe("subnormal", 0, {0: 0.5, 2: -0.5, 1: small}, small)]
    if 11 <= term_bits <= 25:  # noqa: PLR2004
        big, small = 2.25 * 2.0**13, 2.0 ** (13 - term_bits)
        probes += [Probe("product above 2", 0, {0: big, 2: -big, 1: small}, small, column=3)]
    return probes


def bits_of(probes: list[Probe], values: list[float], about: str) -> int | None:
    """How many bits apart two products may be: all of those are there, and no other is; None if it is not so."""
    kept = {p.at: y == p.small for p, y in zip(probes, values, strict=True) if p.about == about}
    bits = int(max((at for at, there in kept.items() if there), default=0))
    return bits if all(there == (at <= bits) for at, there in kept.items()) and bits else None


def places(probes: list[Probe], values: list[float], about: str, *, kept: bool) -> tuple[int, ...]:
    """Where the small product survived, or did not."""
    return tuple(int(p.at) for p, y in zip(probes, values, strict=True) if p.about == about and (y == p.small) == kept)


def step_of(lost: tuple[int, ...], kept: tuple[int, ...]) -> int | None:
    """How many products are added at once, if it is the first so many; 1: one by one."""
    if not lost:
        return 1
    return min(kept) - 1 if kept and max(lost) < min(kept) else None


class Model(NamedTuple):
    """A known way to add: `exact`, `float32` in order of C, or a unit; promoted where `ends` says."""

    kind: str
    ends: tuple[int, ...] = ()
    unit: Unit | None = None

    @property
    def every(self) -> int | None:
        """Promoted every so many products; 0: never; None: not evenly."""
        if not self.ends:
            return 0
        return self.ends[0] if self.ends == tuple(range(self.ends[0], C, self.ends[0])) else None

    @property
    def begins(self) -> str:
        """Where the next accumulator begins, in words."""
        return f"every {self.every}" if self.every else f"after {', '.join(map(str, self.ends))}"

    @property
    def promotes(self) -> str:
        """The same as a sentence."""
        return f"promotes to float32 {self.begins}" if self.ends else "never promotes"

    def answer(self, a: F32, b: F32) -> F32:
        """a (M, C) times the transpose of b (N, C)."""
        total = np.zeros((len(a), len(b)), np.float32)
        for start, end in zip((0, *self.ends), (*self.ends, C), strict=True):
            total = total + self.stretch(a[:, start:end], b[:, start:end])
        return total

    def stretch(self, a: F32, b: F32) -> F32:
        """The products between two promotions."""
        total = np.zeros((len(a), len(b)), np.float32)
        if self.unit:
            return np.asarray(fused(a, b, total, (E4M3, E4M3), self.unit), np.float32)
        if self.kind == "exact":
            return (a.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32)
        for x, w in zip(a.T, b.T, strict=True):
            total = total + x[:, None] * w  # the product is exact
        return total


def candidates(bits: tuple[int | None, ...], before: tuple[int, ...], after: tuple[int, ...]) -> list[Model]:
    """Ways to add that readings allow: bits of a term and of a sum, products a step; where accumulators seem to end."""
    term_bits, sum_bits, step = bits
    if term_bits == DEEPEST:
        return [Model("exact", after)]
    models = [Model("float32", before)]
    if term_bits and sum_bits and step and step > 1:
        # a sum of more bits than a term shows no more of them here, and is then a float32
        lasts = {sum_bits, 23} if sum_bits == term_bits else {sum_bits}
        models += [Model("unit", before, Unit(step, term_bits, last)) for last in lasts]
        # one whose sums are added in float32 anyhow does not show there where it is promoted
        every = [step * n for n in (1, 2, 3, 4, 6, 8, 16) if step * n < C]
        alone = Unit(step, term_bits, sum_bits, alone=True)
        models += [Model("unit", tuple(range(n, C, n)) if n else (), alone) for n in (0, *every)]
    return models


def within_float32(y: Array, a: F32, b: F32, held: int) -> bool:
    """Whether float32 sums in some order could have given y (M, N), of which so many bits were stored."""
    exact = a.astype(np.float64) @ b.T.astype(np.float64)
    size = np.abs(a).astype(np.float64) @ np.abs(b).T.astype(np.float64)
    bound = C * 2.0**-24 * size
    bound += 2.0 ** -(held + 1) * (np.abs(exact) + bound)
    return bool((np.abs(y.astype(np.float64) - exact) <= bound).all())


ORDERS = ("(scale_a * scale_b) * sum", "(sum * scale_a) * scale_b", "(sum * scale_b) * scale_a", "before the sum")


class Scaled(NamedTuple):
    """Sums of three blocks of 128, one product each: 63, 55 and -1, with scales of their own.

    The third block takes away what float32 gives by the first order, so that what is left fits into any output.
    """

    a: F32  # (M, C)
    b: F32  # (N, C)
    a_scale: F32  # (M, C / 128)
    b_scale: F32  # (1, C / 128)
    by_way: dict[tuple[str, bool], F32]  # what each order gives (M,), without and with fused multiply-add


def scaled(rng: np.random.Generator) -> Scaled:
    """Half of the rows have the first and third block only."""
    a, b = np.zeros((64, C), np.float32), np.zeros((N, C), np.float32)
    a[:, 0], a[32:, 128], a[:, 256] = 7, 5, -1
    b[:, 0], b[:, 128], b[:, 256] = 9, 11, 1
    a_scale = np.ones((64, C // 128), np.float32)
    a_scale[:, :2] = rng.uniform(1, 2, (64, 2))
    b_scale = np.ones((1, C // 128), np.float32)
    b_scale[:, :2] = rng.uniform(1, 2, (1, 2))
    way = {(order, fma): by_order(a, a_scale, b_scale, (order, fma)) for order in ORDERS for fma in (False, True)}
    usual = way[ORDERS[0], False]
    a_scale[:, 2] = usual
    left = {name: (sums.astype(np.float64) - usual).astype(np.float32) for name, sums in way.items()}
    return Scaled(a, b, a_scale, b_scale, left)


def by_order(a: F32, a_scale: F32, b_scale: F32, way: tuple[str, bool]) -> F32:
    """The first two blocks' terms, added in float32 (M,): two float32 factors have their product in float64."""
    order, fma = way
    total = np.zeros(len(a), np.float32)
    for block, (column, w) in enumerate(((0, np.float32(9)), (128, np.float32(11)))):
        x, s, t = a[:, column], a_scale[:, block], b_scale[0, block]
        left, right = {
            ORDERS[0]: (s * t, x * w),
            ORDERS[1]: ((x * w) * s, t),
            ORDERS[2]: ((x * w) * t, s),
            ORDERS[3]: (x * s, w * t),
        }[order]
        wide = left.astype(np.float64) * right
        total = (total + (wide if fma else wide.astype(np.float32))).astype(np.float32)
    return total
