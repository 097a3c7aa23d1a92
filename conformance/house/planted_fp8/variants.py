"""Honest variants: what the clauses leave free of formats, blocks and products, done otherwise. None may be flagged."""

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked, Format

NUMBERS = ("fp8",)
MAKING = ("quantize", "requantize")
BITS = ("fp8", "fp8-exact")


class PlainBits(Fp8):
    """Codes are unsigned integers; scales are float32, powers of two as well."""

    profiles = (*BITS, "recipe-deepseek-v3.1")

    def _outside(self, codes: Array, name: str) -> Array:
        made = super()._outside(codes, name)
        return made.view(np.uint16 if made.itemsize == 2 else np.uint8)

    def _scale_out(self, scale: Array, scale_format: str) -> Array:  # noqa: ARG002
        return scale.astype(np.float32)


class OtherNan(Fp8):
    """NaN has another code where a format has several."""

    profiles = NUMBERS

    def _nan(self, f: Format) -> int:
        if f.kind == "fn":
            return 2 * f.sign - 1
        return super()._nan(f) - (1 if f.kind == "ieee" and f.mantissa > 1 else 0)


class E2M1NanIsLargest(Fp8):
    """NaN becomes 6 in E2M1, and zeros have no sign."""

    profiles = NUMBERS

    def _nan(self, f: Format) -> int:
        return 7 if f.kind == "finite" else super()._nan(f)

    def _signed(self, f: Format, code: Array, negative: Array) -> Array:
        return super()._signed(f, code, negative & ((code > 0) | (f.kind != "finite")))


class SpoiltCodesAreZeros(Fp8):
    """The codes of a block with NaN are zeros; its scale says it."""

    profiles = (*NUMBERS, "recipe-deepseek-v3")
    ops = MAKING

    def _quantize(self, x: Array, how: How) -> Blocked:
        q = super()._quantize(x, how)
        odd = self._by_element(np.isnan(q.scale), how.block, x.shape)
        return q._replace(codes=np.where(odd, 0, q.codes).astype(q.codes.dtype))


class ScaleByMultiplying(Fp8):
    """amax * (1 / top)."""

    profiles = NUMBERS
    ops = MAKING

    def _block_scale(self, amax: Array, how: How) -> Array:
        return super()._block_scale(amax, how) if how.scales == "ue8m0" else amax * (1 / self._largest(how))


class NumberByMultiplying(Fp8):
    """x * (1 / scale)."""

    profiles = NUMBERS
    ops = MAKING

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        if how.scales == "ue8m0":
            return super()._numbers(x, amax, scale, how)
        return x * self._by_element(1 / scale, how.block, x.shape)


class InverseOfInverse(Fp8):
    """x * (top / amax), and 1 / (top / amax)."""

    profiles = NUMBERS
    ops = MAKING

    def _quantize(self, x: Array, how: How) -> Blocked:
        return super()._quantize(x, how._replace(recipe="torchao") if how.recipe == "none" else how)

    def _block_scale(self, amax: Array, how: How) -> Array:
        return super()._block_scale(amax, how) if how.scales == "ue8m0" else 1 / (self._largest(how) / amax)

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        if how.scales == "ue8m0" or how.format == "bfloat16":
            return super()._numbers(x, amax, scale, how)
        factor = self._special(self._largest(how) / self._floored(amax, how), amax, how)
        return x * self._by_element(factor, how.block, x.shape)


class InFloat64(Fp8):
    """Numbers are x / s in float64, rounded once."""

    profiles = NUMBERS
    ops = MAKING

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:  # noqa: ARG002
        return x.astype(np.float64) / self._by_element(scale, how.block, x.shape)


class RoundedUpByOneStep(Fp8):
    """float32 scales are one step larger than amax / top: a legal one."""

    profiles = NUMBERS
    ops = MAKING

    def _block_scale(self, amax: Array, how: How) -> Array:
        scale = super()._block_scale(amax, how)
        return scale if how.scales == "ue8m0" else np.nextafter(scale, np.float32(np.inf))
