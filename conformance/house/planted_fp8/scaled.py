"""Planted bugs: what is divided by a scale, blocks that hold NaN or infinity, and other recipes' arithmetic."""

from typing import Any, ClassVar

import numpy as np
from planted.arith import Array, bf16

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked

PROFILES = ("fp8",)
OPS = ("quantize",)
CLAUSES = ("QNT-4",)


class NumbersInBFloat16(Fp8):
    """x / scale is rounded to bfloat16 before it is rounded to the format."""

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        return bf16(super()._numbers(x, amax, scale, how).astype(np.float32))


class InputInBFloat16(Fp8):
    """x is rounded to bfloat16 first."""

    clauses = ("QNT-2", "QNT-4")

    def _quantize(self, x: Array, how: How) -> Blocked:
        return super()._quantize(bf16(x), how)


class ReciprocalInBFloat16(Fp8):
    """x is multiplied with one over the scale, in bfloat16."""

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:  # noqa: ARG002
        return x * self._by_element(bf16(1 / scale), how.block, x.shape)


class NotScaled(Fp8):
    """Codes are made of x itself."""

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:  # noqa: ARG002
        return x


class ScaledByNeighbour(Fp8):
    """Codes are made with the scale of the block to the right."""

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        return super()._numbers(x, np.roll(amax, -1, axis=1), np.roll(scale, -1, axis=1), how)


class TruncatesBlocks(Fp8):
    """Codes of blocks are cut toward zero."""

    clauses = ("QNT-4", "FMT-1")

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:  # noqa: ARG002
        return np.zeros(low.shape, np.bool)


class FlushedInBlocks(Fp8):
    """Subnormal codes of blocks are 0."""

    clauses = ("QNT-4", "FMT-1")

    def _flushed(self, f: Any, code: Array) -> Array:
        return np.where(code < 1 << f.mantissa, 0, code)


class _Odd(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("QNT-5",)


class AmaxIgnoresNan(_Odd):
    """NaN does not reach amax, so that only it is lost."""

    profiles = ("recipe-deepseek-v3",)

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        return super()._amax(np.where(np.isnan(x), 0, x), block)


class NanCountsAsZero(_Odd):
    """NaN is made 0 before anything else."""

    def _quantize(self, x: Array, how: How) -> Blocked:
        return super()._quantize(np.where(np.isnan(x), np.float32(0), x), how)


class InfinityIsLargest(_Odd):
    """Infinity counts as the largest float32."""

    def _quantize(self, x: Array, how: How) -> Blocked:
        most = np.finfo(np.float32).max
        return super()._quantize(np.where(np.isinf(x), np.copysign(most, x), x), how)


class InfinityIgnored(_Odd):
    """Infinity does not reach amax, and saturates."""

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        return super()._amax(np.where(np.isinf(x), 0, x), block)


class NanScaleLost(_Odd):
    """The scale of a block with NaN is 1, and its codes are 0."""

    def _quantize(self, x: Array, how: How) -> Blocked:
        q = super()._quantize(x, how)
        odd = self._by_element(~np.isfinite(self._amax(x, how.block)), how.block, x.shape)
        scale = np.where(np.isnan(q.scale), np.float32(1), q.scale)
        return q._replace(codes=np.where(odd, 0, q.codes).astype(q.codes.dtype), scale=scale)


class OddAsOthers(_Odd):
    """A block with NaN or infinity has a scale of NaN, in TransformerEngine's recipe too."""

    profiles = ("recipe-transformer-engine",)

    def _without_nan(self, x: Array) -> Array:
        return x

    def _special(self, a: Array, amax: Array, how: How) -> Array:
        return np.where(np.isfinite(amax), super()._special(a, amax, how), np.float32(np.nan))


class NanCounts(_Odd):
    """A block with NaN has scale 1 in TransformerEngine's recipe, as one with infinity has."""

    profiles = ("recipe-transformer-engine",)

    def _without_nan(self, x: Array) -> Array:
        return x


class _Recipe(Fp8):
    """One recipe's arithmetic under another one's name: within bounds, but not its bits."""

    clauses: ClassVar[tuple[str, ...]] = ("QNT-2", "QNT-4")
    recipe: ClassVar[str] = ""

    def _quantize(self, x: Array, how: How) -> Blocked:
        return super()._quantize(x, how._replace(recipe=self.recipe))


class DeepGemmForDeepSeek(_Recipe):
    """x * (1 / scale) where x / scale is asked for."""

    profiles, recipe = ("recipe-deepseek-v3",), "deepgemm"


class TileKernelsForDeepSeek(_Recipe):
    """x * (top / amax) where x / scale is asked for."""

    profiles, recipe = ("recipe-deepseek-v3",), "tilekernels"


class TorchAoForDeepSeek(_Recipe):
    """1 / (top / amax) where amax / top is asked for."""

    profiles, recipe = ("recipe-deepseek-v3",), "torchao"


class DeepSeekForDeepGemm(_Recipe):
    """x / scale where x * (1 / scale) is asked for."""

    profiles, recipe = ("recipe-deepgemm",), "deepseek-v3"


class TileKernelsForDeepGemm(_Recipe):
    """x * (top / amax) where x * (1 / scale) is asked for."""

    profiles, recipe = ("recipe-deepgemm",), "tilekernels"


class DeepSeekForTileKernels(_Recipe):
    """x / scale where x * (top / amax) is asked for."""

    profiles, recipe = ("recipe-tilekernels",), "deepseek-v3"


class TileKernelsForTorchAo(_Recipe):
    """amax / top where 1 / (top / amax) is asked for."""

    profiles, recipe = ("recipe-torchao",), "tilekernels"


class TorchAoForTransformerEngine(_Recipe):
    """torchao's floor where TransformerEngine has none."""

    profiles, recipe = ("recipe-transformer-engine",), "torchao"
    clauses = ("QNT-2", "QNT-5")


class TransformerEngineForTorchAo(_Recipe):
    """No floor where torchao has one, and zeros with scale 1."""

    profiles, recipe = ("recipe-torchao",), "transformer-engine"
    clauses = ("QNT-2", "QNT-5")


class DeepSeekForRceil(_Recipe):
    """DeepSeek's floor where MX has none."""

    profiles, recipe = ("recipe-mx-rceil",), "deepseek-v3.1"
    clauses = ("QNT-2", "QNT-3", "QNT-5")


class FloorForRceil(_Recipe):
    """OCP's floor where the ceiling is asked for."""

    profiles, recipe = ("recipe-mx-rceil", "recipe-deepseek-v3.1"), "mx-floor"
    clauses = ("QNT-3",)


class DeepGemmFloorForFp4(_Recipe):
    """DeepGEMM's floor for E2M1 in V4's recipe."""

    profiles, recipe = ("recipe-deepseek-v4-fp4",), "deepgemm"
    clauses = ("QNT-2", "QNT-3")


class ByMultiplying(Fp8):
    """amax * (1 / top) where amax / top is asked for."""

    profiles = ("recipe-deepseek-v3", "recipe-deepgemm", "recipe-tilekernels")
    clauses = ("QNT-2",)

    def _block_scale(self, amax: Array, how: How) -> Array:
        if how.scales == "ue8m0":
            return super()._block_scale(amax, how)
        return amax * (1 / self._largest(how))
