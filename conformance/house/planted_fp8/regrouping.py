"""Planted bugs: the same numbers in other blocks, and FP4 lifted to FP8."""

from typing import Any, ClassVar

import numpy as np
from planted.arith import Array, bf16

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked

PROFILES = ("fp8",)
OPS = ("requantize",)
CLAUSES = ("QNT-7",)


class RegroupedInBFloat16(Fp8):
    """What was dequantised passes through bfloat16."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        return self._quantize(bf16(self._dequantize(q)), how)


class RegroupedRaw(Fp8):
    """Codes are quantised again without their scales."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        return super()._requantize(q._replace(scale=np.ones_like(q.scale)), how)


class RegroupedTwice(Fp8):
    """Quantised once more in the old blocks and format before the new ones."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        old = how._replace(format=q.format, block=q.block, scales="ue8m0")
        return super()._requantize(self._quantize(self._dequantize(q), old), how)


class LargestScaleKept(Fp8):
    """The new scale is the largest old one, not one made of the new blocks' numbers."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        x = self._dequantize(q)
        scale = self._amax(self._by_element(q.scale, q.block, x.shape), how.block)
        codes = self._encode(x / self._by_element(scale, how.block, x.shape), how.format, how.overflow)
        return Blocked(codes, scale, how.format, how.block)


class CodesKept(Fp8):
    """Codes stay, and only scales are made anew."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        made = super()._requantize(q, how)
        return made._replace(codes=q.codes) if q.format == how.format else made


class PowersWithoutCodes(Fp8):
    """Scales of a checkpoint become powers of two, and its codes stay."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        if (q.format, q.block, how.scales) != (how.format, how.block, "ue8m0"):
            return super()._requantize(q, how)
        return q._replace(scale=np.exp2(np.ceil(np.log2(q.scale))).astype(np.float32))


class ToAsFrom(Fp8):
    """The new format is the old one's."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        return super()._requantize(q, how._replace(format=q.format))


class OldBlocksRead(Fp8):
    """The old scales are read in the new blocks."""

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        rows, columns = (np.arange(n) // width for n, width in zip(q.codes.shape, how.block, strict=True))
        at = np.minimum(rows, q.scale.shape[0] - 1)[:, None], np.minimum(columns, q.scale.shape[1] - 1)
        return self._quantize(self._decode(q.codes, q.format) * q.scale[at], how)


class _Lift(Fp8):
    ops: ClassVar[tuple[str, ...]] = ("lift_fp4",)
    clauses: ClassVar[tuple[str, ...]] = ("QNT-8",)


class ZeroPartsCount(_Lift):
    """Parts of zeros count for the new scale."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        return super()._lift_scale(q, np.ones_like(number), block)


class LiftedBy7(_Lift):
    """Scales go down by 2^7, and 6 saturates."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        return super()._lift_scale(q, number, block) / 2


class LiftedBy5(_Lift):
    """Scales go down by 2^5, and the smallest are lost."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        return super()._lift_scale(q, number, block) * 2


class LiftedBySmallest(_Lift):
    """The smallest scale of a block's parts is taken, not the largest."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        each = self._by_element(q.scale, q.block, number.shape)
        largest = self._amax(np.where(number == 0, 0, 1 / each), block)
        return np.where(largest > 0, 1 / largest / 64, 2.0**-127).astype(np.float32)


class LiftedByQuantising(_Lift):
    """Dequantised, and quantised as anything else would be."""

    def _lift(self, q: Blocked, how: How) -> Blocked:
        return self._requantize(q, how._replace(scales="ue8m0"))


class LiftedWithFloat32Scales(_Lift):
    """Dequantised, and quantised with float32 scales, so that most numbers change."""

    def _lift(self, q: Blocked, how: How) -> Blocked:
        return self._requantize(q, how._replace(scales="float32"))


class LiftedFlushed(_Lift):
    """Subnormal codes are 0, so that scales more than 2^11 apart lose numbers."""

    def _flushed(self, f: Any, code: Array) -> Array:
        return np.where(code < 1 << f.mantissa, 0, code)


class LiftedZeroBlockOne(_Lift):
    """A block of zeros is lifted with scale 1."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        scale = super()._lift_scale(q, number, block)
        return np.where(self._amax(number, block) == 0, np.float32(1), scale)


class LiftedRaggedLost(_Lift):
    """Ragged blocks are lifted with the scale of the last whole one."""

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        scale = super()._lift_scale(q, number, block)
        m, n = (max(s // b, 1) for s, b in zip(number.shape, block, strict=True))
        i, j = (np.minimum(np.arange(s), k - 1) for s, k in zip(scale.shape, (m, n), strict=True))
        return scale[i[:, None], j]


class LiftedHighHalfFirst(_Lift):
    """FP4 checkpoints are read high half first."""

    clauses = ("QNT-8", "FMT-5")

    def _unpack(self, packed: Array) -> Array:
        return super()._unpack(packed // 16 + packed % 16 * 16)
