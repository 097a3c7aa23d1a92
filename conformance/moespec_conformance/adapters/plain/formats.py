"""Section 18: small formats as ladders of their numbers; a rounding is a search for the nearest rung."""

from functools import cache
from math import inf, ldexp, nan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moespec_conformance.adapters.plain.config import require

Array = npt.NDArray[Any]


class Format(NamedTuple):
    """FMT-2: one row of its table; `missing` is a code that is NaN, and `stored` what ml_dtypes calls the format."""

    exponent: int
    mantissa: int
    bias: int
    top: float
    missing: int
    infinity: int | None
    stored: str


FORMATS = {
    "e4m3": Format(4, 3, 7, 448, 0x7F, None, "float8_e4m3fn"),
    "e5m2": Format(5, 2, 15, 57344, 0x7E, 0x7C, "float8_e5m2"),
    "e4m3fnuz": Format(4, 3, 8, 240, 0x80, None, "float8_e4m3fnuz"),
    "e5m2fnuz": Format(5, 2, 16, 57344, 0x80, None, "float8_e5m2fnuz"),
    "e2m1": Format(2, 1, 1, 6, 0, None, ""),
    "e5m6": Format(5, 6, 15, 65024, 0x7E0, 0x7C0, ""),
    "bfloat16": Format(8, 7, 127, ldexp(255, 120), 0x7FC0, 0x7F80, "bfloat16"),
}

UNKNOWN = 255  # the NaN of UE8M0


def parts(form: Format, code: int) -> tuple[int, int, int]:
    """Split a code: its sign, its mantissa with the leading one, and the exponent of the mantissa's last bit."""
    field, rest = code >> form.mantissa & (1 << form.exponent) - 1, code & (1 << form.mantissa) - 1
    sign = -1 if code >> form.mantissa + form.exponent else 1
    return sign, rest + (bool(field) << form.mantissa), max(field, 1) - form.bias - form.mantissa


def number(name: str, code: int) -> float:
    """FMT-2: what one code stands for."""
    form = FORMATS[name]
    sign, mantissa, last = parts(form, code)
    if name.endswith("fnuz") and code == form.missing:
        return nan
    size = ldexp(mantissa, last)
    if size <= form.top:
        return sign * size
    above = code & (1 << form.mantissa + form.exponent) - 1
    return sign * inf if above == form.infinity else nan


@cache
def numbers(name: str) -> Array:
    """FMT-2: the numbers of all codes, in float64."""
    form = FORMATS[name]
    return np.array([number(name, code) for code in range(1 << 1 + form.exponent + form.mantissa)])


@cache
def ladder(name: str) -> Array:
    """The numbers from 0 to one rung above the largest, as if the grid went on (FMT-4); a rung's place is its code."""
    form, rungs = FORMATS[name], list[float]()
    while not rungs or rungs[-1] <= form.top:
        field, rest = divmod(len(rungs), 1 << form.mantissa)
        last = max(field, 1) - form.bias - form.mantissa
        rungs.append(ldexp(rest + (bool(field) << form.mantissa), last))
    return np.array(rungs)


def rungs_of(name: str, size: Array) -> Array:
    """FMT-1: the nearest rung to a magnitude; in the middle of two the one with the even code."""
    rungs = ladder(name)
    middles = (rungs[1:] + rungs[:-1]) / 2
    place: Array = np.searchsorted(middles, size)
    tie = np.append(middles, inf)[place] == size
    nearest: Array = place + (tie & (place % 2 == 1))
    return nearest


def encode(name: str, x: Array, overflow: str = "saturate") -> Array:
    """FMT-1, FMT-4: the code of each number, one to a place."""
    form, wide = FORMATS[name], x.astype(np.float64)
    empty = np.isnan(wide)
    codes = rungs_of(name, np.where(empty, 0, np.abs(wide)))
    top = len(ladder(name)) - 2
    over = codes > top
    beyond = top if overflow == "saturate" or name == "e2m1" else form.infinity
    codes = np.where(over, form.missing if beyond is None else beyond, codes)
    signed = np.signbit(wide) & ~(over & (beyond is None))
    if name.endswith("fnuz"):
        signed &= codes != 0
    codes = codes | (signed.astype(np.int64) << form.exponent + form.mantissa)
    return np.where(empty, form.missing, codes)


def decode(name: str, codes: Array) -> Array:
    """FMT-2: the number of each code, in float64."""
    x: Array = numbers(name)[codes]
    return x


def store(name: str, codes: Array) -> Array:
    """FMT-5: codes as bits, in memory of their own."""
    if name != "e2m1":
        return codes.astype(np.uint16 if name in ("e5m6", "bfloat16") else np.uint8)
    require(codes.shape[-1] % 2 == 0, "FMT-5: e2m1 needs an even number of columns")
    pairs: Array = codes[..., ::2] + 16 * codes[..., 1::2]
    return pairs.astype(np.uint8)


def load(name: str, stored: Array) -> Array:
    """FMT-5: codes, one to a place, of what a caller gives."""
    bits = "uint16" if name in ("e5m6", "bfloat16") else "uint8"
    require(stored.dtype.name in {bits, FORMATS[name].stored}, f"FMT-5: {name} is not kept in {stored.dtype}")
    plain = np.array(stored, order="C")
    codes = (plain if plain.dtype.kind == "u" else plain.view(bits)).astype(np.int64)
    if name == "e2m1":
        codes = np.stack([codes % 16, codes // 16], -1).reshape(*codes.shape[:-1], 2 * codes.shape[-1])
    require((codes < len(numbers(name))).all(), f"FMT-5: bits beyond {name}")
    return codes


def load_scale(stored: Array) -> Array:
    """FMT-6: scales in float32, of float32 or of UE8M0."""
    if stored.dtype == np.float32:
        return np.array(stored, order="C")
    require(stored.dtype.name == "float8_e8m0fnu", f"QNT-3: a scale is float32 or UE8M0, not {stored.dtype}")
    field = np.array(stored, order="C").view(np.uint8).astype(np.int64)
    return np.where(field == UNKNOWN, nan, np.ldexp(1.0, field - 127)).astype(np.float32)
