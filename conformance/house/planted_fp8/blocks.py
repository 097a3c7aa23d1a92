"""Planted bugs: the wrong block's scale, and blocks at ragged edges."""

from typing import ClassVar

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked

PROFILES = ("fp8",)
OPS = ("dequantize", "quantize")
CLAUSES = ("QNT-1", "QNT-6")


class _Reads(Fp8):
    """Another scale at each element, when reading."""

    ops: ClassVar[tuple[str, ...]] = ("dequantize",)

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return scale

    def _dequantize(self, q: Blocked) -> Array:
        return super()._dequantize(q._replace(scale=self._misread(q.scale, q.block, q.codes.shape)))


class NextColumnsScale(_Reads):
    """A block has the scale of its neighbour to the right."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return np.roll(scale, -1, axis=1)


class NextRowsScale(_Reads):
    """A block has the scale of its neighbour below."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return np.roll(scale, -1, axis=0)


class FirstScale(_Reads):
    """All blocks have the first one's scale."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return np.broadcast_to(scale[:1, :1], scale.shape) if scale.size else scale


class GridByColumns(_Reads):
    """The grid is read column by column."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return scale.reshape(-1, order="F").reshape(scale.shape)


class SquareGridTransposed(_Reads):
    """A square grid is transposed; others look right."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return scale.T if scale.shape[0] == scale.shape[1] else scale


class GridStrideFloored(_Reads):
    """The grid's rows are thought to be as long as there are whole blocks."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
        stride = max(shape[1] // block[1], 1)
        at = np.arange(scale.shape[0])[:, None] * stride + np.arange(scale.shape[1])
        return scale.reshape(-1)[np.minimum(at, scale.size - 1)]


class RaggedColumnsBorrow(_Reads):
    """A ragged block at the right has the scale of the last whole one."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
        last = max(shape[1] // block[1], 1)
        return scale[:, np.minimum(np.arange(scale.shape[1]), last - 1)]


class RaggedRowsBorrow(_Reads):
    """A ragged block at the bottom has the scale of the last whole one."""

    def _misread(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
        last = max(shape[0] // block[0], 1)
        return scale[np.minimum(np.arange(scale.shape[0]), last - 1)]


class ShardsSplitBlocks(Fp8):
    """Two shards of rows count their blocks from their own first row."""

    ops = ("dequantize",)

    def _by_element(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
        half = shape[0] // 2
        local = np.concatenate([np.arange(half), np.arange(shape[0] - half)])
        row = local // block[0] + np.where(np.arange(shape[0]) < half, 0, half // block[0])
        row = np.minimum(row, scale.shape[0] - 1)
        return scale[row[:, None], np.arange(shape[1]) // block[1]]


class BlockTurned(Fp8):
    """Rows and columns of a block are exchanged, where it is no square."""

    ops = ("quantize",)
    clauses = ("QNT-1",)

    def _quantize(self, x: Array, how: How) -> Blocked:
        return super()._quantize(x, how._replace(block=how.block[::-1]))


class BlocksFloored(Fp8):
    """What is over of a side beyond whole blocks has no block, and no scale."""

    ops = ("quantize",)
    clauses = ("QNT-1",)

    def _quantize(self, x: Array, how: How) -> Blocked:
        q, (m, n) = super()._quantize(x, how), (size // width for size, width in zip(x.shape, how.block, strict=True))
        return q._replace(scale=q.scale[: max(m, 1), : max(n, 1)])


class RaggedClipped(Fp8):
    """What is over of a row beyond whole blocks is never written."""

    ops = ("quantize",)
    clauses = ("QNT-1",)

    def _quantize(self, x: Array, how: How) -> Blocked:
        q, whole = super()._quantize(x, how), x.shape[1] // how.block[1] * how.block[1]
        return q._replace(codes=np.where(np.arange(x.shape[1]) < whole, q.codes, 0).astype(q.codes.dtype))


class _Amax(Fp8):
    ops: ClassVar[tuple[str, ...]] = ("quantize",)
    clauses: ClassVar[tuple[str, ...]] = ("QNT-2", "QNT-3", "QNT-1")


class RaggedReadsOn(_Amax):
    """A ragged block reads on into the next row, as memory lies."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        over = -x.shape[1] % block[1]
        on = np.resize(np.roll(x, -1, axis=0), (x.shape[0], over)) if over and x.size else x[:, :0]
        return super()._amax(np.concatenate([x, on], axis=1), block)


class RaggedReadsStale(_Amax):
    """A ragged block is filled up with what an earlier, larger batch left there."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        down = -x.shape[0] % block[0]
        stale = 100 * np.abs(x).max(initial=0, keepdims=True)
        return super()._amax(np.concatenate([x, np.broadcast_to(stale, (down, x.shape[1]))]), block)


class AmaxOfTensor(_Amax):
    """One amax for the whole matrix."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        amax = super()._amax(x, block)
        return np.full_like(amax, amax.max(initial=0))


class AmaxOfFirstRow(_Amax):
    """Of a block of many rows only the first is looked at."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        return super()._amax(x[:: block[0]], (1, block[1]))


class AmaxOfFirstHalf(_Amax):
    """Of a block's columns only the first half is looked at."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        seen = np.arange(x.shape[1]) % block[1] < max(block[1] // 2, 1)
        return super()._amax(np.where(seen, x, 0), block)


class LargestNotMagnitude(_Amax):
    """The largest number is taken, not the largest magnitude."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        return super()._amax(np.maximum(x, 0), block)
