"""Planted bugs: many experts' products."""

from typing import ClassVar

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_formats import Blocked, Config

PROFILES = ("fp8-products",)
OPS = ("grouped_matmul_fp8",)
CLAUSES = ("LIN-5",)


class ScaleOfFirstExpert(Fp8):
    """Every expert's matrix has the first one's scales."""

    def _matrix(self, b: Blocked, e: int) -> Blocked:
        return b.at(e)._replace(scale=b.scale[0])


class ScaleOfNextExpert(Fp8):
    """Every expert's matrix has the next one's scales."""

    def _matrix(self, b: Blocked, e: int) -> Blocked:
        return b.at(e)._replace(scale=b.scale[(e + 1) % len(b.scale)])


class MatrixOfFirstExpert(Fp8):
    """Every row goes by the first expert's matrix."""

    def _matrix(self, b: Blocked, e: int) -> Blocked:  # noqa: ARG002
        return b.at(0)


class GridsTransposed(Fp8):
    """Each expert's grid is read column by column."""

    def _matrix(self, b: Blocked, e: int) -> Blocked:
        one = b.at(e)
        return one._replace(scale=one.scale.reshape(-1, order="F").reshape(one.scale.shape))


class ByBlocks(Fp8):
    """Rows go by blocks of 8: all to the expert of the block's first row."""

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        first = np.arange(len(expert)) // 8 * 8
        return super()._by_index(a, b, np.where(expert < 0, -1, expert[first]), config)


class BySorting(Fp8):
    """Rows are thought to be in order of experts."""

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        return super()._by_index(a, b, np.sort(expert), config)


class RowScalesCompressed(Fp8):
    """Rows' scales are counted without the empty places."""

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        place = np.minimum(np.cumsum(expert >= 0) - (expert >= 0), len(a.scale) - 1)
        return super()._by_index(a._replace(scale=a.scale[place]), b, expert, config)


class LastExpertLeftOut(Fp8):
    """The last expert's rows are not computed."""

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        return super()._by_index(a, b, np.where(expert == len(b.codes) - 1, -1, expert), config)


class EndsAreCounts(Fp8):
    """Where an expert's rows end is taken for how many there are."""

    def _ends(self, end: Array, rows: int, config: Config) -> Array:
        return super()._ends(np.minimum(np.cumsum(end), rows), rows, {**config, "alignment": 1})


class EndsAreLast(Fp8):
    """The row before an expert's end is left out."""

    def _ends(self, end: Array, rows: int, config: Config) -> Array:
        index = super()._ends(end, rows, config)
        index[end[end > 0] - 1] = -1
        return index


class BoxesByFirstCount(Fp8):
    """Every box has as many rows as the first."""

    def _boxes(self, a: Blocked, b: Blocked, count: Array, config: Config) -> Array:
        return super()._boxes(a, b, np.broadcast_to(count[:1], count.shape), config)


class BoxScalesOfNext(Fp8):
    """A box's rows have the next box's scales."""

    def _boxes(self, a: Blocked, b: Blocked, count: Array, config: Config) -> Array:
        return super()._boxes(a._replace(scale=np.roll(a.scale, -1, axis=0)), b, count, config)


class BoxMissesLastRow(Fp8):
    """Of each box the last row is left out."""

    def _boxes(self, a: Blocked, b: Blocked, count: Array, config: Config) -> Array:
        return super()._boxes(a, b, np.maximum(count - 1, 0), config)


class _Share(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("LIN-6",)


class SharesWithoutC(_Share):
    """c is left out."""

    def _before(self, c: Array, e: int) -> Array:
        return np.zeros_like(c[e])


class CTwiceInShares(_Share):
    """c is added twice."""

    def _before(self, c: Array, e: int) -> Array:
        return c[e] * 2


class COfFirstExpert(_Share):
    """All shares are added to the first expert's c."""

    def _before(self, c: Array, e: int) -> Array:  # noqa: ARG002
        return c[0]


class ShareScalesFromFirst(_Share):
    """Every share has the scales of the first blocks."""

    def _share(self, q: Blocked, start: int, size: int) -> Blocked:
        return super()._share(q, start, size)._replace(scale=q.scale[:, : size // q.block[1]])


class EqualShares(_Share):
    """Shares are thought to be equally wide."""

    def _k_grouped(self, a: Blocked, b: Blocked, size: Array, c: Array, config: Config) -> Array:
        width = max(a.block[1], b.block[1])
        blocks = np.full(size.shape, size.sum() // width // max(len(size), 1))
        blocks[-1:] += size.sum() // width - blocks.sum()
        return super()._k_grouped(a, b, blocks * width, c, config)


class EmptyShareIsZero(_Share):
    """An expert without a share has zeros, not c."""

    def _k_grouped(self, a: Blocked, b: Blocked, size: Array, c: Array, config: Config) -> Array:
        y = super()._k_grouped(a, b, size, c, config)
        return np.where((size > 0)[:, None, None], y, 0)


class EmptySharesSkipped(_Share):
    """Experts without a share are not counted."""

    def _k_grouped(self, a: Blocked, b: Blocked, size: Array, c: Array, config: Config) -> Array:
        order = np.argsort(size == 0, kind="stable")
        return super()._k_grouped(a, b, size[order], c, config)


class OneShareForAll(_Share):
    """Each expert contracts everything up to its share's end."""

    def _share(self, q: Blocked, start: int, size: int) -> Blocked:
        return super()._share(q, 0, start + size)
