"""The honest implementation's small formats: a list of numbers each, looked through for the two nearest; and back."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from planted.arith import Array

Config: TypeAlias = Mapping[str, Any]


class Format(NamedTuple):
    """One format: bits of exponent field and mantissa, bias, what stands outside, and what it has beside numbers."""

    field: int
    mantissa: int
    bias: int
    storage: Any
    kind: str  # ieee: infinity and NaN above; fn: NaN at the end; fnuz: NaN for -0; finite: nothing

    @property
    def sign(self) -> int:
        """The bit of the sign."""
        return 1 << (self.field + self.mantissa)


FORMATS = {
    "e4m3": Format(4, 3, 7, ml_dtypes.float8_e4m3fn, "fn"),
    "e5m2": Format(5, 2, 15, ml_dtypes.float8_e5m2, "ieee"),
    "e4m3fnuz": Format(4, 3, 8, ml_dtypes.float8_e4m3fnuz, "fnuz"),
    "e5m2fnuz": Format(5, 2, 16, ml_dtypes.float8_e5m2fnuz, "fnuz"),
    "e2m1": Format(2, 1, 1, np.uint8, "finite"),
    "e5m6": Format(5, 6, 15, np.uint16, "ieee"),
    "bfloat16": Format(8, 7, 127, ml_dtypes.bfloat16, "ieee"),
}
BEYOND = {"ieee": "infinity", "fn": "nan", "fnuz": "nan", "finite": "largest"}


class Blocked(NamedTuple):
    """A quantised matrix (M, C), or a stack of them: codes one by one, a float32 scale a block; format and block."""

    codes: Array
    scale: Array
    format: str
    block: tuple[int, int]

    def at(self, index: Any) -> "Blocked":
        """One matrix of a stack, or some rows of a matrix whose blocks are one row high."""
        return self._replace(codes=self.codes[index], scale=self.scale[index])


class Formats:
    """Numbers to codes and codes to numbers."""

    def _size(self, name: str, code: int) -> float:
        """What a code without its sign stands for."""
        f = FORMATS[name]
        field, part = code >> f.mantissa, (code & ((1 << f.mantissa) - 1)) / (1 << f.mantissa)
        if f.kind == "ieee" and field == (1 << f.field) - 1:
            return math.nan if part else math.inf
        if f.kind == "fn" and code == f.sign - 1:
            return math.nan
        return self._subnormal(f, part) if field == 0 else math.ldexp(1 + part, field - f.bias)

    def _subnormal(self, f: Format, part: float) -> float:
        return math.ldexp(part, 1 - f.bias)

    def _number(self, name: str, code: int) -> float:
        f = FORMATS[name]
        if f.kind == "fnuz" and code == f.sign:
            return math.nan
        return -self._size(name, code - f.sign) if code >= f.sign else self._size(name, code)

    def _decode(self, codes: Array, name: str) -> Array:
        return tables(type(self), name)[0][codes]

    def _ladder(self, name: str) -> Array:
        """The finite numbers from 0 up, and one more, the next if the grid went on."""
        sizes = [self._size(name, code) for code in range(FORMATS[name].sign)]
        steps = [size for size in sizes if math.isfinite(size)]
        return np.array([*steps, 2 * steps[-1] - steps[-2]])

    def _encode(self, x: Array, name: str, overflow: str) -> Array:
        """Codes of x, float32 or an exact float64."""
        f, ladder = FORMATS[name], tables(type(self), name)[1]
        size, last = np.abs(x).astype(np.float64), len(ladder) - 2
        low = np.minimum(np.searchsorted(ladder, np.where(np.isnan(size), 0, size), side="right") - 1, last)
        up = self._goes_up(size - ladder[low], ladder[low + 1] - size, low)
        code = low + up
        code = np.where(code > last, self._beyond(f, last, overflow), self._flushed(f, code))
        code = self._signed(f, code, np.signbit(x))
        return np.where(np.isnan(x), self._nan(f), code).astype(np.uint16 if f.sign > 128 else np.uint8)

    def _goes_up(self, below: Array, above: Array, low: Array) -> Array:
        """Whether the upper neighbour is taken, by how far both are: the nearer, and of two the even code."""
        return (below > above) | ((below == above) & (low % 2 == 1))

    def _flushed(self, f: Format, code: Array) -> Array:  # noqa: ARG002 - for overriding
        return code

    def _beyond(self, f: Format, last: int, overflow: str) -> int:
        """The code of what is too large."""
        kind = "largest" if overflow == "saturate" else BEYOND[f.kind]
        return last if kind == "largest" else last + 1 if kind == "infinity" else self._nan(f)

    def _nan(self, f: Format) -> int:
        return {"ieee": f.sign - 1, "fn": f.sign - 1, "fnuz": f.sign, "finite": 0}[f.kind]

    def _signed(self, f: Format, code: Array, negative: Array) -> Array:
        return code + np.where(negative & ((code > 0) | (f.kind != "fnuz")), f.sign, 0) * (code < f.sign)

    def _outside(self, codes: Array, name: str) -> Array:
        f = FORMATS[name]
        return self._pack(codes.astype(np.uint8)) if name == "e2m1" else codes.view(f.storage)

    def _inside(self, codes: Array, name: str) -> Array:
        plain = np.ascontiguousarray(codes)
        plain = plain.view(np.uint8 if plain.itemsize == 1 else np.uint16)
        return self._unpack(plain) if name == "e2m1" else plain

    def _pack(self, codes: Array) -> Array:
        return codes[..., 0::2] + 16 * codes[..., 1::2]

    def _unpack(self, packed: Array) -> Array:
        return np.stack([packed % 16, packed // 16], axis=-1).reshape(*packed.shape[:-1], 2 * packed.shape[-1])

    def _byte(self, scale: Array) -> Array:
        """UE8M0 bytes of powers of two."""
        power = np.log2(np.where(np.isnan(scale), 1, scale).astype(np.float64))
        return np.where(np.isnan(scale), 255, np.rint(power) + 127).astype(np.uint8)

    def _of_byte(self, byte: Array) -> Array:
        return np.where(byte == 255, np.nan, 2.0 ** (byte.astype(np.float64) - 127)).astype(np.float32)

    def _scale_out(self, scale: Array, scale_format: str) -> Array:
        return scale if scale_format == "float32" else self._byte(scale).view(ml_dtypes.float8_e8m0fnu)

    def _scale_in(self, scale: Array) -> Array:
        if scale.dtype == ml_dtypes.float8_e8m0fnu:
            return self._of_byte(np.ascontiguousarray(scale).view(np.uint8))
        return np.array(scale, np.float32, order="C")


@cache
def tables(of: type[Formats], name: str) -> tuple[Array, Array]:
    """What every code stands for, in float32; and the ladder of numbers, as an implementation has them."""
    made = of()
    numbers = [made._number(name, code) for code in range(2 * FORMATS[name].sign)]  # noqa: SLF001
    return np.array(numbers, np.float32), made._ladder(name)  # noqa: SLF001
