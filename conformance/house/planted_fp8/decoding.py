"""Planted bugs: codes and scales that are read wrong."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, bf16, fp16

from .honest import Fp8
from .honest_formats import FORMATS, Format

PROFILES = ("fp8",)
OPS = ("dequantize",)
CLAUSES = ("FMT-2",)


class SubnormalsAsNormals(Fp8):
    """A field of 0 is taken for that of a normal number."""

    def _subnormal(self, f: Format, part: float) -> float:
        return 0.0 if not part else 2.0 ** (1 - f.bias - 1) * (1 + part)


class SubnormalsAsZeros(Fp8):
    """A field of 0 is 0."""

    def _subnormal(self, f: Format, part: float) -> float:  # noqa: ARG002
        return 0.0


class SubnormalsHalved(Fp8):
    """A field of 0 has the exponent 0 - bias."""

    def _subnormal(self, f: Format, part: float) -> float:
        return super()._subnormal(f, part) / 2


class FnuzAsFn(Fp8):
    """Bits of the fnuz formats are read as the others: twice as large, and NaN is -0."""

    def _decode(self, codes: Array, name: str) -> Array:
        return super()._decode(codes, name.removesuffix("fnuz"))


class FnAsFnuz(Fp8):
    """E4M3 is read as AMD's: half as large, and -0 is NaN."""

    def _decode(self, codes: Array, name: str) -> Array:
        return super()._decode(codes, "e4m3fnuz" if name == "e4m3" else name)


class FnuzNanIsZero(Fp8):
    """0x80 is -0, in the fnuz formats too."""

    def _decode(self, codes: Array, name: str) -> Array:
        f = FORMATS[name]
        return super()._decode(np.where((f.kind == "fnuz") & (codes == f.sign), 0, codes), name)


class NanIs480(Fp8):
    """E4M3's NaN is read as the number that its bits would be."""

    def _size(self, name: str, code: int) -> float:
        return 480.0 if name == "e4m3" and code == 127 else super()._size(name, code)


class NegativeNanIsNumber(Fp8):
    """Only the positive NaN of E4M3 is one."""

    def _number(self, name: str, code: int) -> float:
        return -480.0 if name == "e4m3" and code == 255 else super()._number(name, code)


class InfinityIs65536(Fp8):
    """E5M2's infinity is read as the number that its bits would be."""

    def _size(self, name: str, code: int) -> float:
        return 65536.0 if name == "e5m2" and code == 124 else super()._size(name, code)


class E4M3WithInfinity(Fp8):
    """E4M3 is read as IEEE 754 would have it: infinity from 256 on."""

    def _size(self, name: str, code: int) -> float:
        size = super()._size(name, code)
        return np.inf if name == "e4m3" and size >= 256 else size


class E4M3AsE5M2(Fp8):
    """E4M3 is read as E5M2."""

    def _decode(self, codes: Array, name: str) -> Array:
        return super()._decode(codes, "e5m2" if name == "e4m3" else name)


class E2M1AsInteger(Fp8):
    """Four bits are a sign and a whole number."""

    def _size(self, name: str, code: int) -> float:
        return float(code) if name == "e2m1" else super()._size(name, code)


class HighHalfFirst(Fp8):
    """The number of even column stands in the high half of a byte."""

    clauses = ("FMT-5",)

    def _unpack(self, packed: Array) -> Array:
        return super()._unpack(packed // 16 + packed % 16 * 16)


class HighHalfWritten(Fp8):
    """The number of even column is put into the high half of a byte."""

    ops = ("cast", "quantize")
    clauses = ("FMT-5",)

    def _pack(self, codes: Array) -> Array:
        return super()._pack(codes.reshape(*codes.shape[:-1], -1, 2)[..., ::-1].reshape(codes.shape))


class SplitHalves(Fp8):
    """Byte j of sixteen holds the numbers j and j + 16."""

    clauses = ("FMT-5",)

    def _unpack(self, packed: Array) -> Array:
        plain = super()._unpack(packed)
        for i in range(0, packed.shape[-1] - 15, 16):
            part = packed[..., i : i + 16]
            plain[..., 2 * i : 2 * i + 32] = np.concatenate([part % 16, part // 16], axis=-1)
        return plain


class SignOfHighHalf(Fp8):
    """The high half of a byte loses its sign."""

    clauses = ("FMT-5",)

    def _unpack(self, packed: Array) -> Array:
        return super()._unpack(packed & 127)


class ByteAsNumber(Fp8):
    """A UE8M0 byte is taken for a number: 127 for 1."""

    clauses = ("FMT-6",)

    def _of_byte(self, byte: Array) -> Array:
        return byte.astype(np.float32)


class BiasOf128(Fp8):
    """A UE8M0 byte stands for 2^(byte - 128)."""

    clauses = ("FMT-6",)

    def _of_byte(self, byte: Array) -> Array:
        return super()._of_byte(byte) / 2


class ByteZeroIsZero(Fp8):
    """The byte 0 is the scale 0, as the bits of a float32 would be."""

    clauses = ("FMT-6",)

    def _of_byte(self, byte: Array) -> Array:
        return np.where(byte == 0, np.float32(0), super()._of_byte(byte))


class Byte255IsInfinite(Fp8):
    """The byte 255 is infinity, as the bits of a float32 would be."""

    clauses = ("FMT-6",)

    def _of_byte(self, byte: Array) -> Array:
        return np.where(byte == 255, np.float32(np.inf), super()._of_byte(byte))


class Divides(Fp8):
    """`weight_scale_inv` is taken by its name, and divided by."""

    clauses = ("QNT-1", "QNT-6")

    def _back(self, number: Array, scale: Array) -> Array:
        return number / scale


class RawCodes(Fp8):
    """The scale is not found."""

    clauses = ("QNT-6",)

    def _back(self, number: Array, scale: Array) -> Array:  # noqa: ARG002
        return number


class InBFloat16(Fp8):
    """Numbers come back in bfloat16."""

    clauses = ("QNT-6",)

    def _back(self, number: Array, scale: Array) -> Array:
        return bf16(number * scale)


class InFloat16(Fp8):
    """Numbers come back through float16."""

    clauses = ("QNT-6",)

    def _back(self, number: Array, scale: Array) -> Array:
        return fp16(number * scale)


class _ScaleRead(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("QNT-6", "QNT-1", "QNT-3")


class ScaleReadInBFloat16(_ScaleRead):
    """Scales are read in bfloat16."""

    def _back(self, number: Array, scale: Array) -> Array:
        return number * bf16(scale)


class ScaleMantissaDropped(_ScaleRead):
    """Only the exponent of a float32 scale is read."""

    def _back(self, number: Array, scale: Array) -> Array:
        return number * np.exp2(np.floor(np.log2(scale)))


class ScaleRoundedUp(_ScaleRead):
    """A float32 scale is rounded up to a power of two, and codes stay."""

    def _back(self, number: Array, scale: Array) -> Array:
        return number * np.exp2(np.ceil(np.log2(scale)))
