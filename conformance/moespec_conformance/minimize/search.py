"""A search for a smaller case: candidates are made of the smallest so far, and taken if they still fail.

It is greedy: of many units half are dropped if the rest still fails, then quarters, at last single ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moespec_conformance.protocol import Array, Case, Tensors

LIMIT = 3000  # candidates that are tried

Candidates = Iterable[Case | None]


@dataclass
class Search:
    """The smallest case so far, and what decides whether another may take its place: it must be fit, and fail."""

    case: Case
    fits: Callable[[Case], bool]
    fails: Callable[[Case], bool]
    on_tried: Callable[["Search"], None]
    tried: int = 0

    def take(self, candidates: Candidates) -> bool:
        """Go on from the first of these that still fails; None is a candidate that cannot be made."""
        for candidate in candidates:
            if candidate is None or self.tried >= LIMIT:
                continue
            self.tried += 1
            self.on_tried(self)
            if self.fits(candidate) and self.fails(candidate):
                self.case = candidate
                return True
        return False


def varied(case: Case, config: dict[str, Any], inputs: Tensors) -> Case:
    """The same question with another config and other inputs."""
    return replace(case, config=config, build=lambda: dict(inputs))


def thin(search: Search, units: Sequence[tuple[int, ...]], keeping: Callable[[list[int]], Candidates]) -> None:
    """Drop as many units of indices as may go, but not all; `keeping` makes candidates of the indices that stay."""
    kept = list(units)
    size = (len(kept) + 1) // 2
    while size:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if fewer and search.take(keeping([index for unit in fewer for index in unit])):
                kept = fewer
            else:
                start += size
        size //= 2


def halve(search: Search, indices: Array, changing: Callable[[Array], Case]) -> None:
    """Change as many of these elements as may be changed: all of them, else what may be of each half."""
    waiting = [indices]
    while waiting:
        chunk = waiting.pop()
        if not len(chunk) or search.take([changing(chunk)]):
            continue
        if len(chunk) > 1:
            middle = len(chunk) // 2
            waiting += [chunk[middle:], chunk[:middle]]
