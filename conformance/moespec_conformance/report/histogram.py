"""How far from their bounds the cases of an op are: error/bound on a logarithmic axis, a line at 1."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moespec_conformance.protocol import Result

PER_DECADE = 4  # bars, so that none straddles 1
LEFT, RIGHT = -3, 6  # decades: what is smaller, or larger, falls into the bar at that end


class Bar(NamedTuple):
    """So many cases whose error/bound falls here; place counts bars from the left."""

    place: int
    cases: int
    beyond: bool  # of 1


class Histogram(NamedTuple):
    """One op's bars; of its cases, those judged bit for bit have no place on the axis."""

    op: str
    bars: tuple[Bar, ...]
    measured: int
    cases: int

    @property
    def top(self) -> int:
        """The highest bar."""
        return max(bar.cases for bar in self.bars)


class Axis(NamedTuple):
    """The axis that all ops share: from 10^LEFT to 10^right."""

    right: int

    @property
    def bars(self) -> int:
        """How many there are room for, those at both ends included."""
        return (self.right - LEFT) * PER_DECADE + 2

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Where each decade begins, and its name."""
        powers = range(LEFT, self.right + 1)
        return [(1 + (power - LEFT) * PER_DECADE, "1" if power == 0 else f"1e{power}") for power in powers]


def axis_of(results: Iterable[Result]) -> Axis:
    """As far as any case reaches, and at least a decade beyond 1."""
    largest = max((r.error_over_bound for r in results if r.error_over_bound), default=1.0)
    reach = RIGHT if math.isinf(largest) else math.ceil(math.log10(largest))
    return Axis(min(max(reach, 1), RIGHT))


def histograms(results: Sequence[Result]) -> list[Histogram]:
    """One for each op that has an error/bound at all."""
    axis = axis_of(results)
    found = [(op, [r for r in results if r.op == op]) for op in dict.fromkeys(r.op for r in results)]
    made = [_histogram(op, of_op, axis) for op, of_op in found]
    return [histogram for histogram in made if histogram.bars]


def _histogram(op: str, results: list[Result], axis: Axis) -> Histogram:
    ratios = [r.error_over_bound for r in results if r.error_over_bound is not None]
    counts = Counter((place(ratio, axis), ratio > 1) for ratio in ratios)
    bars = tuple(Bar(at, count, beyond) for (at, beyond), count in sorted(counts.items()))
    return Histogram(op, bars, len(ratios), len(results))


def place(ratio: float, axis: Axis) -> int:
    """Which bar: 0 for what is below the axis, the last one for what is beyond it."""
    if ratio < 10.0**LEFT:
        return 0
    if ratio >= 10.0**axis.right:
        return axis.bars - 1
    return 1 + math.floor((math.log10(ratio) - LEFT) * PER_DECADE)
