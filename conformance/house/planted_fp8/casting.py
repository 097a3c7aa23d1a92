"""Planted bugs: numbers that become the wrong codes."""

from typing import ClassVar

import ml_dtypes
import numpy as np
from planted.arith import Array, bf16

from .honest import Fp8
from .honest_formats import BEYOND, FORMATS, Format, tables

PROFILES = ("fp8",)
OPS = ("cast",)
CLAUSES = ("FMT-1",)


class Truncates(Fp8):
    """Rounding is toward zero."""

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:  # noqa: ARG002
        return np.zeros(low.shape, np.bool)


class TiesAway(Fp8):
    """Halfway, the larger magnitude is taken."""

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:  # noqa: ARG002
        return below >= above


class TiesTowardZero(Fp8):
    """Halfway, the smaller magnitude is taken."""

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:  # noqa: ARG002
        return below > above


class E2M1TiesTowardZero(Fp8):
    """In E2M1 alone ties go toward zero: 0.75, 1.75, 3.5 become 0.5, 1.5, 3."""

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        tie = np.isin(np.abs(x), (0.75, 1.75, 3.5)) & (name == "e2m1")
        return super()._encode(np.where(tie, x * np.float32(0.999), x), name, overflow)


class RoundsAway(Fp8):
    """Whatever is not on the grid goes up."""

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:  # noqa: ARG002
        return below > 0


class WithoutCarry(Fp8):
    """A mantissa of ones that is rounded up becomes zeros, and the exponent stays."""

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:
        return super()._goes_up(below, above, low).astype(np.int64)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        made, f, finer = super()._encode(x, name, overflow), FORMATS[name], tables(type(self), name)[1]
        size = np.abs(np.where(np.isfinite(x), x, 0))
        low = np.minimum(np.searchsorted(finer, size, side="right") - 1, len(finer) - 2)
        ones = (1 << f.mantissa) - 1
        carried = (low & ones == ones) & ((made & (f.sign - 1)) == low + 1)
        return np.where(carried, made - ones - 1, made).astype(made.dtype)


class Flushed(Fp8):
    """Results of subnormal size are 0."""

    def _flushed(self, f: Format, code: Array) -> Array:
        return np.where(code < 1 << f.mantissa, 0, code)


class BFloat16Flushed(Flushed):
    """bfloat16 has no subnormals."""

    def _flushed(self, f: Format, code: Array) -> Array:
        return super()._flushed(f, code) if f.field == 8 else code


class SmallestLost(Fp8):
    """What would be the smallest subnormal is 0."""

    def _flushed(self, f: Format, code: Array) -> Array:  # noqa: ARG002
        return np.where(code == 1, 0, code)


class MinusZeroLost(Fp8):
    """A negative number that becomes 0 loses its sign."""

    def _signed(self, f: Format, code: Array, negative: Array) -> Array:
        return super()._signed(f, code, negative & (code > 0))


class FnuzMinusZero(Fp8):
    """A negative number that becomes 0 has the code of -0, which is NaN in the fnuz formats."""

    clauses = ("FMT-1", "FMT-2")

    def _signed(self, f: Format, code: Array, negative: Array) -> Array:
        return np.where((f.kind == "fnuz") & negative & (code == 0), f.sign, super()._signed(f, code, negative))


class ThroughBFloat16(Fp8):
    """float32 passes through bfloat16 and is rounded twice."""

    clauses = ("FMT-3", "FMT-1")

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(bf16(x), name, overflow)


class ThroughFloat16(Fp8):
    """Numbers pass through float16, cut toward zero, and small ones are rounded twice."""

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        if name != "e5m6":
            return super()._encode(x, name, overflow)
        near = np.clip(x, -65504, 65504).astype(np.float16)
        cut = np.where(np.abs(near) > np.abs(x), np.nextafter(near, np.float16(0)), near)
        return super()._encode(np.where(np.isfinite(x), cut, x), name, overflow)


class FnForFnuz(Fp8):
    """The fnuz formats are encoded as the others."""

    clauses = ("FMT-2", "FMT-4")

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(x, name.removesuffix("fnuz"), overflow)


class FnuzForFn(Fp8):
    """E4M3 is encoded as AMD's."""

    clauses = ("FMT-2", "FMT-4")

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(x, "e4m3fnuz" if name == "e4m3" else name, overflow)


class _Early(Fp8):
    clauses = ("FMT-4",)
    most: ClassVar[float] = 0

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(np.clip(x, -self.most, self.most) if name == "e4m3" else x, name, overflow)


class Saturates240(_Early):
    """E4M3 ends at 240, as if it had infinity."""

    most = 240


class Saturates256(_Early):
    """E4M3 ends at 256, the last power of two."""

    most = 256


class Saturates416(_Early):
    """E4M3 ends at 416: the last number is thought to be NaN."""

    most = 416


class E2M1EndsAt4(Fp8):
    """E2M1 ends at 4."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(np.clip(x, -4, 4) if name == "e2m1" else x, name, overflow)


class OverflowIsNan(Fp8):
    """What is too large is NaN, or infinity, although it should saturate."""

    clauses = ("FMT-4",)

    def _beyond(self, f: Format, last: int, overflow: str) -> int:  # noqa: ARG002
        return super()._beyond(f, last, "nan")


class E5M2OverflowIsInfinite(Fp8):
    """Of E5M2 61440 and more are infinity, although they should saturate."""

    clauses = ("FMT-4",)

    def _beyond(self, f: Format, last: int, overflow: str) -> int:
        return super()._beyond(f, last, "nan" if f.field == 5 and f.mantissa == 2 else overflow)


class AlwaysSaturates(Fp8):
    """What is too large is the largest, although it should be NaN."""

    clauses = ("FMT-4",)

    def _beyond(self, f: Format, last: int, overflow: str) -> int:  # noqa: ARG002
        return last


class InfinityIsNan(Fp8):
    """Infinity does not saturate, but becomes NaN."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(np.where(np.isinf(x) & (overflow == "saturate"), np.nan, x), name, overflow)


class BeyondIsCompared(Fp8):
    """Whatever exceeds the largest number overflows, also where it would be rounded down to it."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        beyond = (np.abs(x) > tables(type(self), name)[1][-2]) & (BEYOND[FORMATS[name].kind] != "largest")
        return super()._encode(np.where(beyond, np.sign(x) * np.float32(np.inf), x), name, overflow)


class NanSaturates(Fp8):
    """NaN becomes the largest number."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        made = super()._encode(np.where(np.isnan(x), 0, x), name, overflow)
        return np.where(np.isnan(x), len(tables(type(self), name)[1]) - 2, made).astype(made.dtype)


class NanIsZero(Fp8):
    """NaN becomes 0."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        return super()._encode(np.nan_to_num(x, posinf=np.inf, neginf=-np.inf), name, overflow)


class ByLibrary(Fp8):
    """E4M3 is cast by ml_dtypes, which never saturates."""

    clauses = ("FMT-4",)

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        if name != "e4m3":
            return super()._encode(x, name, overflow)
        return x.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
