"""Planted bugs: what becomes of a block's largest number."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, bf16, fp16

from .honest import Fp8
from .honest_blocks import RECIPES, How
from .honest_formats import Blocked

PROFILES = ("fp8",)
OPS = ("quantize",)
CLAUSES = ("QNT-2",)
POWERS = ("QNT-3",)


class PowerAfterwards(Fp8):
    """The power of two is taken after the codes were made by the float32 scale."""

    clauses = POWERS

    def _quantize(self, x: Array, how: How) -> Blocked:
        power = super()._quantize(x, how)
        return super()._quantize(x, how._replace(scales="float32"))._replace(scale=power.scale)


class _Power(Fp8):
    clauses: ClassVar[tuple[str, ...]] = POWERS

    def _ratio(self, amax: Array, how: How) -> Array:
        return np.log2(amax.astype(np.float64) / float(self._largest(how)))


class PowerFloored(_Power):
    """The power of two at or below amax / top, so that most blocks saturate."""

    def _power(self, amax: Array, how: How) -> Array:
        return np.maximum(np.floor(self._ratio(amax, how)), -127)


class PowerNearest(_Power):
    """The power of two nearest to amax / top, by its logarithm."""

    def _power(self, amax: Array, how: How) -> Array:
        return np.maximum(np.rint(self._ratio(amax, how)), -127)


class PowerByCast(_Power):
    """The power of two is made by a cast, which rounds to nearest: from 1.5 on up."""

    def _power(self, amax: Array, how: How) -> Array:
        part, exponent = np.frexp(2 ** self._ratio(amax, how))
        return np.maximum(np.where(part >= 0.75, exponent, exponent - 1), -127)


class PowerByLogarithm(_Power):
    """The ceiling of a float32 logarithm: one too small just above a power of two."""

    def _power(self, amax: Array, how: How) -> Array:
        return np.maximum(np.ceil(np.log2(amax / self._largest(how)).astype(np.float32)), -127)


class PowerAlwaysUp(_Power):
    """A ratio that is a power of two already goes up as well."""

    def _power(self, amax: Array, how: How) -> Array:
        return np.maximum(np.floor(self._ratio(amax, how)) + 1, -127)


class PowerOfOcp(_Power):
    """OCP's powers of two, which let the largest saturate, in every recipe."""

    def _power(self, amax: Array, how: How) -> Array:
        size, top = amax.astype(np.float64), float(self._largest(how))
        return np.maximum(np.floor(np.log2(size)) - np.floor(np.log2(top)), -127)


class CeilingForOcp(_Power):
    """The ceiling where OCP's floor is asked for."""

    profiles = ("recipe-mx-floor",)

    def _power(self, amax: Array, how: How) -> Array:
        return super()._power(amax, how._replace(recipe="mx-rceil"))


class PowerWithoutFloor(_Power):
    """Below 2^-127 the byte wraps around."""

    profiles = ("recipe-mx-rceil",)
    clauses = ("QNT-3", "QNT-2", "QNT-5")

    def _power(self, amax: Array, how: How) -> Array:
        k = np.ceil(self._ratio(amax, how))
        return np.where(k < -127, (k + 127) % 256 - 127, k)


class ByteOffByOne(Fp8):
    """The byte is k + 128."""

    clauses = ("FMT-6", "QNT-3")

    def _byte(self, scale: Array) -> Array:
        return super()._byte(2 * scale)


class InverseStored(Fp8):
    """What is stored is top / amax."""

    clauses = ("QNT-1", "QNT-2")

    def _stored_scale(self, scale: Array, how: How) -> Array:  # noqa: ARG002
        return np.where(scale == 0, 0, 1 / scale)


class StoredByColumns(Fp8):
    """The grid is written column by column."""

    clauses = ("QNT-1", "QNT-2")

    def _stored_scale(self, scale: Array, how: How) -> Array:  # noqa: ARG002
        return scale.reshape(-1, order="F").reshape(scale.shape)


class StoredInBFloat16(Fp8):
    """Scales are stored in bfloat16."""

    clauses = ("QNT-2", "QNT-4")

    def _stored_scale(self, scale: Array, how: How) -> Array:  # noqa: ARG002
        return bf16(scale)


class StoredInFloat16(Fp8):
    """Scales are stored in float16."""

    clauses = ("QNT-2", "QNT-4")

    def _stored_scale(self, scale: Array, how: How) -> Array:  # noqa: ARG002
        return fp16(scale)


class AmaxInBFloat16(Fp8):
    """amax is rounded to bfloat16."""

    clauses = ("QNT-2", "QNT-3")

    def _floored(self, amax: Array, how: How) -> Array:
        return super()._floored(bf16(amax), how)


class FloorMissing(Fp8):
    """A block of zeros is divided by 0."""

    clauses = ("QNT-2", "QNT-5")

    def _floored(self, amax: Array, how: How) -> Array:  # noqa: ARG002
        return amax


class FloorOf1e10(Fp8):
    """The floor is 1e-10, SGLang's."""

    def _floor(self, how: How) -> np.float32:
        return np.float32(1e-10 if how.format != "e2m1" else super()._floor(how))


class FloorOf1e12(Fp8):
    """The floor is 1e-12, whatever the recipe."""

    def _floor(self, how: How) -> np.float32:
        return np.float32(1e-12 if how.format != "e2m1" else super()._floor(how))


class FloorOnScale(Fp8):
    """The floor holds for the scale, not for amax."""

    def _floored(self, amax: Array, how: How) -> Array:
        return np.maximum(amax, self._floor(how) * self._largest(how))


class FloorOfE4M3ForE2M1(Fp8):
    """E2M1 has the floor of the other formats."""

    def _floor(self, how: How) -> np.float32:
        return super()._floor(how._replace(format="e4m3"))


class ZeroBlocksHaveScaleOne(Fp8):
    """A block of zeros has the scale 1."""

    def _special(self, a: Array, amax: Array, how: How) -> Array:
        return np.where(amax == 0, np.float32(1), super()._special(a, amax, how))


class ZeroBlocksByFloor(Fp8):
    """A block of zeros has the scale of its floor, in every recipe."""

    profiles = ("recipe-transformer-engine",)
    clauses = ("QNT-2", "QNT-5")

    def _special(self, a: Array, amax: Array, how: How) -> Array:
        return np.where(np.isfinite(amax), a, np.float32(RECIPES[how.recipe].odd))


class ScaledFor240(Fp8):
    """E4M3 is scaled as if it ended at 240."""

    def _largest(self, how: How) -> np.float32:
        return np.float32(240) if how.format == "e4m3" else super()._largest(how)


class ScaledFor256(Fp8):
    """E4M3 is scaled as if it ended at 256."""

    def _largest(self, how: How) -> np.float32:
        return np.float32(256) if how.format == "e4m3" else super()._largest(how)


class E2M1ScaledFor4(Fp8):
    """E2M1 is scaled as if it ended at 4."""

    def _largest(self, how: How) -> np.float32:
        return np.float32(4) if how.format == "e2m1" else super()._largest(how)


class FnuzScaledFor448(Fp8):
    """AMD's E4M3 is scaled as if it ended at 448."""

    def _largest(self, how: How) -> np.float32:
        return np.float32(448) if how.format == "e4m3fnuz" else super()._largest(how)
