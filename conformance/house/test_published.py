"""Published quantisers as their authors compute them, block by block, with bits and doubles: each passes its profile.

So QNT-2 and QNT-3 say what they do, and the cases ask nothing of a recipe that its published arithmetic does not give.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from moespec_conformance import check
from moespec_conformance.cases import recipes

TOP = {"e4m3": 448.0, "e5m2": 57344.0, "e2m1": 6.0}
STORED: dict[str, Any] = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
F32 = np.float32
FLT_MAX = np.finfo(F32).max


class Made(NamedTuple):
    """A block's scale, and what its numbers are multiplied by; `divides`: divided by."""

    scale: F32
    factor: F32
    divides: bool = False


def bits(x: F32) -> int:
    """A float32's bits."""
    return int(np.asarray(x, F32).view(np.uint32))


def of_bits(pattern: int) -> F32:
    """A float32 by its bits."""
    return F32(np.asarray(pattern, np.uint32).view(F32))


def power(byte: int) -> Made:
    """A scale of 2^(byte - 127), and the multiplication with its inverse."""
    return Made(F32(2.0 ** (byte - 127)), F32(2.0 ** (127 - byte)))


def deepseek_v3(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:
    """Act_quant of the inference code, with the ceiling of DeepGEMM's utilities: exponent, one more if bits follow."""
    scale = max(amax, F32(6 * 2.0**-126 if fp4 else 1e-4)) / top
    if powers:
        return power((bits(scale) >> 23) + bool(bits(scale) & 0x7FFFFF))
    return Made(scale, scale, divides=True)


def deepgemm(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:  # noqa: ARG001 - one floor for all
    """per_token_cast_to_fp8: one over the scale, then a multiplication; ceil_to_ue8m0 keeps within 1 … 254."""
    scale = max(amax, F32(1e-4)) / top
    if powers:
        return power(min(max((bits(scale) >> 23) + bool(bits(scale) & 0x7FFFFF), 1), 254))
    return Made(scale, F32(1) / scale)


def tilekernels(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:
    """get_sf_and_inv: the other quotient; the ceiling is that of the bits before."""
    amax = max(amax, F32(6 * 2.0**-126 if fp4 else 1e-4))
    if powers:
        return power((bits(amax / top) - 1 >> 23) + 1)
    return Made(amax / top, top / amax)


def transformer_engine(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:  # noqa: ARG001
    """compute_scale_from_amax: no floor, 1 for nothing and for infinity; powers of two by clearing the mantissa."""
    if amax == 0 or not np.isfinite(amax):
        return Made(F32(1), F32(1))
    factor = min(top / amax, FLT_MAX)
    factor = of_bits(bits(factor) & 0xFF800000) if powers else factor
    return Made(F32(1) / factor, factor)


def torchao(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:  # noqa: ARG001
    """The Triton kernels of blockwise training: the quotient in float64, rounded once."""
    factor = F32(float(top) / float(max(amax, F32(1e-12))))
    return Made(F32(1) / factor, factor)


def mx_floor(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:  # noqa: ARG001
    """OCP: the exponent's field of the largest magnitude less that of the largest number."""
    return power(max((bits(amax) >> 23) - (bits(top) >> 23) + 127, 0))


def mx_rceil(amax: F32, top: F32, *, powers: bool, fp4: bool) -> Made:  # noqa: ARG001
    """RCEIL, and cvt.rp: magnitude times one over the largest number, rounded up to a power of two."""
    pattern = bits(amax * (F32(1) / top))
    field, digits = pattern >> 23, pattern & 0x7FFFFF
    return power(field + (digits > 0x400000 if field == 0 else digits > 0))


PUBLISHED: dict[str, Callable[..., Made]] = {
    "deepseek-v3": deepseek_v3,
    "deepseek-v3.1": deepseek_v3,
    "deepgemm": deepgemm,
    "tilekernels": tilekernels,
    "transformer-engine": transformer_engine,
    "torchao": torchao,
    "mx-floor": mx_floor,
    "mx-rceil": mx_rceil,
    "deepseek-v4-fp4": tilekernels,
}


def quantized(x: Any, config: dict[str, Any], of_block: Callable[..., Made]) -> dict[str, Any]:
    """A matrix, block by block; casts are ml_dtypes', of numbers that were clamped before."""
    (m, c), (bm, bn), name = x.shape, config["block"], config["format"]
    top, powers = F32(TOP[name]), config["scale_format"] == "ue8m0"
    scale = np.zeros((-(-m // bm), -(-c // bn)), F32)
    numbers = np.zeros((m, c), F32)
    for i, j in np.ndindex(scale.shape):
        at = slice(i * bm, (i + 1) * bm), slice(j * bn, (j + 1) * bn)
        largest = np.fmax if of_block is transformer_engine else np.maximum  # fmaxf drops NaN
        amax = largest.reduce(np.abs(x[at]), axis=None, initial=F32(0))
        if np.isfinite(amax) or of_block is transformer_engine:
            made = of_block(amax, top, powers=powers, fp4=name == "e2m1")
            numbers[at] = x[at] / made.factor if made.divides else x[at] * made.factor
            scale[i, j] = made.scale
        else:
            scale[i, j] = np.nan
    codes = np.clip(numbers, -top, top).astype(STORED[name])
    if name == "e2m1":
        plain = codes.view(np.uint8) & 15
        codes = plain[:, ::2] | plain[:, 1::2] << 4
    return {"scale": scale, "codes": codes}


class Published:
    """The quantiser of one recipe, as published."""

    name, version = "published", "1"

    def __init__(self, recipe: str) -> None:
        """Choose the recipe."""
        self.of_block = PUBLISHED[recipe]

    def quantize(self, config: dict[str, Any], x: Any) -> dict[str, Any]:
        """Quantise with its arithmetic."""
        with np.errstate(all="ignore"):
            return quantized(x, config, self.of_block)


@pytest.mark.parametrize("recipe", recipes.WAYS)
def test_published_arithmetic_passes_its_profile(recipe: str) -> None:
    """Bit for bit, in all formats, blocks and kinds of scales that the profile asks."""
    report = check(Published(recipe), f"recipe-{recipe}", ["quantize"])
    assert [(r.case, r.message) for r in report.results if r.status != "pass"] == []
    assert report.ok


def test_a_float32_logarithm_is_no_ceiling() -> None:
    """QNT-3: the inference kernel of DeepSeek-V3 takes a logarithm, and misses powers just above the largest number."""

    class Logarithm(Published):
        """Powers of two by exp2(ceil(log2(s)))."""

        def quantize(self, config: dict[str, Any], x: Any) -> dict[str, Any]:
            """Quantise by the logarithm."""

            def of_block(amax: F32, top: F32, **_: bool) -> Made:
                exponent = np.ceil(np.log2(max(amax, F32(1e-4)) / top))
                return Made(F32(2) ** exponent, F32(2) ** -exponent)

            with np.errstate(all="ignore"):
                return quantized(x, config, of_block)

    results = check(Logarithm("deepseek-v3.1"), "recipe-deepseek-v3.1", ["quantize"]).results
    wrong = {r.case for r in results if r.status != "pass"}
    assert wrong
    assert all("ends-of-scales" in case for case in wrong)
