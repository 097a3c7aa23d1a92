"""Small floating-point formats: which numbers they hold, and the one rule by which a number becomes one of them.

How it works
    A format is a grid. With a sign, x exponent bits and m mantissa bits its numbers are q * 2^(e - m), where q is a
    whole number below 2^(m + 1) and e at least `emin`: from there down the grid gets no finer, and these are the
    subnormals. Rounding asks for the step of the grid at x, 2^(max(floor(log2 |x|), emin) - m), and takes the nearest
    multiple of it; halfway, the even one (FMT-1). `nearest` is that sentence. Every operation in it is exact but the
    rounding itself, for float32 as for float64, so nothing is rounded twice.
    A code is the number's bits: sign, exponent with bias, mantissa. So codes of one sign stand in the order of their
    numbers, and a number's code is its place among them. `encode` reads codes from a table, which the same rule has
    made. It keeps two bits more of a float32 than the format's mantissa has, and sets the last of them if anything is
    cut off: they tell less than half, half and more than half apart, and so few bits have few enough patterns.
What is rounded where
    `encode` takes float32, once. A float64 must not pass through float32 on its way to a format: 1.0625 + 2^-40 would
    become 1.0625 and then 1.0, though 1.125 is nearer (FMT-3). ml_dtypes and torch do just that, so nothing here casts
    by them; their dtypes are only how codes look outside (`storage`).
What is left out
    Stochastic rounding. Formats without a sign, but for UE8M0: it holds scales, and these are powers of two before they
    are written (QNT-3).
"""

import math
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


def nearest(x: Float, fmt: Format) -> Float:
    """FMT-1: the nearest number of the format's grid, of two the even one, as if the grid went on for ever."""
    _, exponent = np.frexp(x)  # |x| lies in 2^(exponent - 1) … 2^exponent
    step = np.maximum(exponent - 1, fmt.emin) - fmt.mantissa
    on_grid: Float = np.ldexp(np.rint(np.ldexp(x, -step)), step)
    return on_grid


def rounded(x: Float, fmt: Format) -> Float:
    """FMT-1, FMT-4: the nearest number of the format; beyond the largest, the largest."""
    within: Float = np.minimum(np.maximum(nearest(x, fmt), -fmt.largest), fmt.largest)
    return within


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


def pairs(fmt: Format) -> npt.NDArray[np.complex64]:
    """What each two bytes of codes stand for, the first and lower one as the real part, the second as the imaginary."""
    size = 1 << fmt.bits
    table = np.stack([np.tile(TABLES[fmt], size), np.repeat(TABLES[fmt], size)], axis=-1)
    return table.view(np.complex64)[:, 0]


TABLES = {fmt: numbers(fmt) for fmt in FORMATS.values()}
BYTES = [fmt for fmt in FORMATS.values() if fmt.bits == 8]  # noqa: PLR2004
PAIRS = {fmt: pairs(fmt) for fmt in BYTES}


def rounding(fmt: Format, overflow: str) -> Codes:
    """FMT-1, FMT-4: the code of each pattern of the bits that are kept of a float32, in order of the patterns."""
    cut = 23 - (fmt.mantissa + 2)
    patterns, infinity = np.arange(1 << (31 - cut), dtype=np.uint32), 0x7F800000 >> cut
    size = (np.minimum(patterns, infinity) << cut).view(np.float32).astype(np.float64)
    largest, above = limits(fmt)
    code = np.searchsorted(TABLES[fmt][: largest + 1], nearest(size, fmt))
    code = np.where(code > largest, above if overflow == "nan" else largest, code)
    code = np.where(patterns > infinity, fmt.nan or 0, code)  # NaN
    sign = np.where(fmt.minus_zero | (code > 0), 1 << (fmt.bits - 1), 0)
    return np.concatenate([code, code | sign]).astype(fmt.codes)


ROUNDING = {(fmt, overflow): rounding(fmt, overflow) for fmt in FORMATS.values() for overflow in ("saturate", "nan")}


def encode(x: Float, fmt: Format, overflow: str) -> Codes:
    """Codes of float32 x: FMT-1. Beyond the largest: `saturate`, or `nan`: what the format has there (FMT-4)."""
    table, cut = np.asarray(ROUNDING[fmt, overflow], like=x), 23 - (fmt.mantissa + 2)
    source = np.ravel(x)
    codes = np.empty_like(source, dtype=fmt.codes)
    for start in range(0, source.shape[0], CHUNK):
        bits = source[start : start + CHUNK].view(np.uint32)
        pattern = bits & ((1 << cut) - 1)
        pattern += (1 << cut) - 1  # carries into the last bit that is kept, unless all that is cut off is 0
        pattern |= bits
        pattern >>= cut
        read_table(table, pattern, codes[start : start + CHUNK])
    return codes.reshape(x.shape)


def decode(codes: Codes, fmt: Format) -> Float:
    """FMT-2: the numbers that codes stand for, exactly, in float32."""
    values: Float = np.empty_like(codes, dtype=np.float32, order="C")
    table: Any = TABLES[fmt]
    source: Any = codes
    target: Any = values
    if on_host(codes) and fmt.bits == 8 and codes.shape[-1] % 2 == 0 and codes.strides[-1] == 1:  # noqa: PLR2004
        table = PAIRS[fmt]  # two at a time
        source, target = codes.view(np.uint16), values.view(np.complex64)
    table = np.asarray(table, like=codes)
    band = max(1, CHUNK // max(1, math.prod(source.shape[1:])))
    for start in range(0, source.shape[0], band):
        read_table(table, source[start : start + band], target[start : start + band])
    return values
