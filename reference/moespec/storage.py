"""Codes and scales as others store them, and as they are here: unsigned integers, one each, and float32 (SPEC: FMT)."""

from typing import Any

import ml_dtypes
import numpy as np

from moespec.arrays import on_host
from moespec.formats import Codes, Format

SCALES = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.float32(np.nan))  # FMT-6: by byte


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
