"""Small floating-point formats: which numbers they hold, and the one rule by which a number becomes one of them.

How it works
    A format is a grid. With a sign, x exponent bits and m mantissa bits its numbers are q * 2^(e - m), where q is a
    whole number below 2^(m + 1) and e at least `emin`: from there down the grid gets no finer, and these are the
    subnormals. Rounding asks for the step of the grid at x, 2^(max(floor(log2 |x|), emin) - m), and takes the nearest
    multiple of it; halfway, the even one (FMT-1). `rounded` is that sentence. Every operation in it is exact but the
    rounding itself, for float32 as for float64, so nothing is rounded twice.
    A code is the number's bits: sign, exponent with bias, mantissa. Between two neighbours of one sign it grows by 1,
    through subnormals, normals and carries alike. So `encode` needs no cases for them: it adds half of what will be
    cut off to a float32's bits and cuts (where the format is subnormal, the float32 adder does the same).
What is rounded where
    `encode` takes float32, once. A float64 must not pass through float32 on its way to a format: 1.0625 + 2^-40 would
    become 1.0625 and then 1.0, though 1.125 is nearer (FMT-3). ml_dtypes and torch do just that, so nothing here casts
    by them; their dtypes are only how codes look outside (`storage`).
What is left out
    Stochastic rounding. Formats without a sign bit but for UE8M0, which holds scales only and has no rounding of its
    own: a scale is a power of two by its recipe (QNT-3) before it is written.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from moespec.arrays import Float, on_host, read_table

Codes = npt.NDArray[np.unsignedinteger[Any]]
CHUNK = 1 << 15  # numbers that a cache holds with all that is made of them


class Format(NamedTuple):
    """One format: bits of exponent and mantissa, its bias, and what it has beside numbers (FMT-2)."""

    exponent: int
    mantissa: int
    bias: int
    largest: float
    inf: bool = False
    nan: int | None = None  # a code of NaN; None: the format has none
    minus_zero: bool = True  # fnuz formats use that code for NaN
    storage: Any = np.uint8  # how codes look outside

    @property
    def emin(self) -> int:
        """The exponent of the smallest normal number."""
        return 1 - self.bias

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 1 + self.exponent + self.mantissa

    @property
    def codes(self) -> type[np.unsignedinteger[Any]]:
        """What holds a code: uint8 or uint16."""
        return np.uint8 if self.bits <= 8 else np.uint16  # noqa: PLR2004 - bits of a byte


FORMATS = {
    "e4m3": Format(4, 3, 7, 448.0, nan=0x7F, storage=ml_dtypes.float8_e4m3fn),
    "e5m2": Format(5, 2, 15, 57344.0, inf=True, nan=0x7E, storage=ml_dtypes.float8_e5m2),
    "e4m3fnuz": Format(4, 3, 8, 240.0, nan=0x80, minus_zero=False, storage=ml_dtypes.float8_e4m3fnuz),
    "e5m2fnuz": Format(5, 2, 16, 57344.0, nan=0x80, minus_zero=False, storage=ml_dtypes.float8_e5m2fnuz),
    "e2m1": Format(2, 1, 1, 6.0),
    "e5m6": Format(5, 6, 15, 65024.0, inf=True, nan=0x7E0, storage=np.uint16),
    "bfloat16": Format(8, 7, 127, 3.3895313892515355e38, inf=True, nan=0x7FC0, storage=ml_dtypes.bfloat16),
}


def rounded(x: Float, fmt: Format) -> Float:
    """FMT-1, FMT-4: the nearest number of the format, of two the even one; beyond the largest, the largest."""
    _, exponent = np.frexp(x)  # |x| lies in 2^(exponent - 1) … 2^exponent
    step = np.maximum(exponent - 1, fmt.emin) - fmt.mantissa
    nearest = np.ldexp(np.rint(np.ldexp(x, -step)), step)
    within: Float = np.minimum(np.maximum(nearest, -fmt.largest), fmt.largest)
    return within


def encode(x: Float, fmt: Format, overflow: str) -> Codes:
    """Codes of float32 x: FMT-1. Beyond the largest: `saturate`, or `nan`: what the format has there (FMT-4)."""
    source = np.ravel(x)
    codes = np.empty_like(source, dtype=fmt.codes)
    room = np.empty_like(source, shape=(3, min(CHUNK, source.shape[0])), dtype=np.uint32)
    for start in range(0, source.shape[0], CHUNK):
        part = source[start : start + CHUNK]
        codes[start : start + CHUNK] = encoded(part, fmt, overflow, room[:, : part.shape[0]])
    return codes.reshape(x.shape)


def encoded(x: Float, fmt: Format, overflow: str, room: Codes) -> Codes:
    """One chunk of `encode`: float32 x (n,), whose bits are rounded where the format's mantissa ends; `room` is (3, n)."""
    cut, sign, least = 23 - fmt.mantissa, 1 << (fmt.bits - 1), (127 + fmt.emin) << 23
    size, code, below = room[0], room[1], room[2]
    bits = x.view(np.uint32)
    np.bitwise_and(bits, 0x7FFFFFFF, out=size)

    # FMT-4: as a float32, the number of code c has the bits (c << cut) + ((127 - bias) << 23)
    largest, above = limits(fmt)
    bound = ((largest if overflow == "saturate" else above) << cut) + ((127 - fmt.bias) << 23)
    most = np.maximum.reduce(size)
    if most > bound:
        np.minimum(size, bound, out=size)

    # FMT-1, what lies above the least normal number: add half of what is cut off, less a little if what stays is even
    np.clip(size, np.uint32(0), np.uint32(least), out=below)
    size -= below
    np.right_shift(size, cut, out=code)
    code &= 1
    code += size
    code += (1 << (cut - 1)) - 1
    code >>= cut

    # what lies below it is counted in steps: a float32 from 2^(23) steps on is a whole number of them
    origin = np.float32(2.0 ** (fmt.emin - fmt.mantissa + 23))
    np.add(below.view(np.float32), origin, out=below.view(np.float32))
    below -= origin.view(np.uint32)
    code += below

    signs = np.right_shift(bits, 32 - fmt.bits, out=below)
    signs &= sign
    if not fmt.minus_zero:
        signs *= code > 0
    code |= signs
    if most > 0x7F800000:  # noqa: PLR2004 - infinity's bits
        np.copyto(code, fmt.nan or 0, where=np.isnan(x))
    return code


def limits(fmt: Format) -> tuple[int, int]:
    """FMT-4: the code of the largest number, and what stands above it: infinity, or NaN, or the largest again."""
    top = (1 << (fmt.bits - 1)) - 1
    if fmt.inf:
        above = ((1 << fmt.exponent) - 1) << fmt.mantissa
        return above - 1, above
    if fmt.nan is None or not fmt.minus_zero:
        return top, top if fmt.nan is None else fmt.nan
    return top - 1, top


def numbers(fmt: Format) -> Float:
    """FMT-2: what each code stands for, in float32, in order of the codes."""
    code = np.arange(1 << fmt.bits)
    field, fraction = (code >> fmt.mantissa) % (1 << fmt.exponent), code % (1 << fmt.mantissa)
    whole = fraction + np.where(field > 0, 1 << fmt.mantissa, 0)
    size = np.ldexp(whole.astype(np.float64), np.maximum(field, 1) - fmt.bias - fmt.mantissa)
    value: Float = np.where(code < 1 << (fmt.bits - 1), size, -size)
    if fmt.inf:
        full = field == (1 << fmt.exponent) - 1
        value = np.where(full, np.where(fraction == 0, np.copysign(np.inf, value), np.nan), value)
    elif fmt.nan is not None:
        value = np.where(code == fmt.nan if not fmt.minus_zero else code % (fmt.nan + 1) == fmt.nan, np.nan, value)
    return value.astype(np.float32)


TABLES = {fmt: numbers(fmt) for fmt in FORMATS.values()}
SCALES = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.float32(np.nan))  # FMT-6: by byte


def decode(codes: Codes, fmt: Format, dtype: type[np.floating[Any]] = np.float32) -> Float:
    """FMT-2: the numbers that codes stand for, exactly, in float32 or wider."""
    table = np.asarray(TABLES[fmt].astype(dtype), like=codes)
    source = np.ravel(codes)
    values = np.empty_like(source, dtype=dtype)
    for start in range(0, source.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        read_table(table, source[part], values[part])
    return values.reshape(codes.shape)


def outside(codes: Any, fmt: Format) -> Any:  # noqa: ANN401 - an array of ml_dtypes
    """FMT-5: how codes look to others: of their ml_dtypes type, E2M1 two to a byte; on a GPU unsigned integers."""
    if fmt.bits == 4:  # noqa: PLR2004
        return pack(codes)
    return codes.view(fmt.storage) if on_host(codes) else codes


def inside(codes: Any, fmt: Format) -> Any:  # noqa: ANN401 - an array of ml_dtypes, codes, or numbers of a reading
    """FMT-5 was: outside = codes in their storage. Codes as unsigned integers, one each; numbers stay numbers."""
    if codes.dtype in (np.float32, np.float64):
        return codes
    plain = codes.view(fmt.codes)
    return unpack(plain) if fmt.bits == 4 else plain  # noqa: PLR2004


def scale_outside(scale: Any, scale_format: str) -> Any:  # noqa: ANN401 - an array of ml_dtypes, or float32
    """FMT-6: a power of two 2^k as the byte k + 127, NaN as 255: the exponent field of its float32."""
    if scale_format == "float32" or not on_host(scale):
        return scale
    return (scale.view(np.uint32) >> 23).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


def scale_inside(scale: Any) -> Any:  # noqa: ANN401 - an array of ml_dtypes, or float32
    """FMT-6 was: outside = k + 127. The scale as a float32; bytes 0 and 255 are 2^-127 and NaN."""
    if scale.dtype != ml_dtypes.float8_e8m0fnu:
        return scale
    return SCALES[scale.view(np.uint8)]


def pack(codes: Codes) -> Codes:
    """FMT-5: four-bit codes two to a byte along the last axis, the one of even index in the low half."""
    pairs: Codes = codes[..., ::2] | codes[..., 1::2] << codes.dtype.type(4)
    return pairs


def unpack(packed: Codes) -> Codes:
    """FMT-5 was: packed = even | odd << 4."""
    codes = np.zeros_like(packed, shape=(*packed.shape[:-1], 2 * packed.shape[-1]))
    codes[..., ::2] = packed & 15
    codes[..., 1::2] = packed >> 4
    return codes
