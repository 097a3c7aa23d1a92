"""Formats: every code, every bfloat16, and float32 where roundings differ, against ml_dtypes and exact fractions."""

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec import MoEConfig, ops
from moespec.formats import (
    FORMATS,
    TABLES,
    Format,
    decode,
    encode,
    rounded,
)
from moespec.storage import inside, outside, pack, scale_inside, scale_outside, unpack
from moespec_conformance.cases.inputs import config

# ml_dtypes has all formats but e5m6; its e2m1 holds one code a byte
DTYPES: dict[str, Any] = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "bfloat16": ml_dtypes.bfloat16,
}


def every_code(fmt: Format) -> Any:
    """All codes of a format, in order."""
    return np.arange(1 << fmt.bits).astype(fmt.codes)


def every_bfloat16() -> Any:
    """All 65,536 bfloat16 as float32."""
    return (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)


def patterns() -> Any:
    """Every sign, every exponent, the 9 upper mantissa bits, and 8 patterns of the 14 below: 2,097,152 float32."""
    upper = np.arange(1 << 18, dtype=np.uint32) << np.uint32(14)
    below = np.array([0, 1, 0x1555, 0x1FFF, 0x2000, 0x2001, 0x2AAA, 0x3FFF], np.uint32)
    return (upper[:, None] | below).ravel().view(np.float32)


def around_ties(fmt: Format) -> Any:
    """What lies exactly halfway between two neighbours, and the float32 on both sides of it."""
    held = np.unique(TABLES[fmt][np.isfinite(TABLES[fmt])]).astype(np.float64)
    ties = ((held[1:] + held[:-1]) / 2).astype(np.float32)
    both = [np.nextafter(ties, np.float32(limit)) for limit in (-np.inf, np.inf)]
    return np.concatenate([ties, *both, held.astype(np.float32)])


def same_codes(got: Any, want: Any, fmt: Format) -> None:
    """Equal codes; a NaN may be any NaN of the format."""
    both_nan = np.isnan(decode(got, fmt)) & np.isnan(decode(want, fmt))
    wrong = np.flatnonzero((got != want) & ~both_nan)
    assert not wrong.size, [(hex(got[i]), hex(want[i])) for i in wrong[:5]]


@pytest.mark.spec("FMT-2")
@pytest.mark.parametrize("name", DTYPES)
def test_every_code_stands_for_ml_dtypes_number(name: str) -> None:
    """Also zeros' signs."""
    fmt = FORMATS[name]
    want = every_code(fmt).view(DTYPES[name]).astype(np.float32)
    got = decode(every_code(fmt), fmt)
    np.testing.assert_array_equal(got, want)
    assert np.array_equal(np.signbit(got[got == 0]), np.signbit(want[want == 0]))
    assert fmt.largest == np.max(want[np.isfinite(want)])
    np.testing.assert_array_equal(decode(every_code(fmt), fmt).astype(np.float64), got.astype(np.float64))


@pytest.mark.spec("FMT-2")
def test_every_code_of_e5m6_is_a_float16() -> None:
    """Without its last 4 bits."""
    fmt = FORMATS["e5m6"]
    want = (every_code(fmt) << np.uint16(4)).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(decode(every_code(fmt), fmt), want)
    assert fmt.largest == np.max(want[np.isfinite(want)])


@pytest.mark.spec("FMT-2")
@pytest.mark.parametrize("name", FORMATS)
def test_the_table_of_spec(name: str) -> None:
    """A code is sign, field and mantissa, by SPEC's two formulas in exact fractions."""
    fmt = FORMATS[name]
    values = decode(every_code(fmt), fmt).astype(np.float64)
    for code in range(1 << fmt.bits):
        sign, field = code >> (fmt.bits - 1), (code >> fmt.mantissa) & ((1 << fmt.exponent) - 1)
        part = Fraction(code & ((1 << fmt.mantissa) - 1), 1 << fmt.mantissa)
        if np.isfinite(values[code]):
            size = (1 + part) * Fraction(2) ** (field - fmt.bias) if field else part * Fraction(2) ** fmt.emin
            assert Fraction(float(values[code])) == (-1) ** sign * size, hex(code)


@pytest.mark.spec("FMT-1")
@pytest.mark.parametrize("name", DTYPES)
def test_every_bfloat16_becomes_ml_dtypes_code(name: str) -> None:
    """With overflow nan, as ml_dtypes does it; E2M1 always saturates, and what its NaN becomes is free."""
    fmt, x = FORMATS[name], every_bfloat16()
    if name == "e2m1":
        x = x[~np.isnan(x)]
    with np.errstate(invalid="ignore", over="ignore"):
        want = x.astype(DTYPES[name]).view(fmt.codes)
    same_codes(encode(x, fmt, "nan"), want, fmt)


@pytest.mark.spec("FMT-1")
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("some", ["patterns", "ties"])
def test_float32_becomes_ml_dtypes_code(name: str, some: str) -> None:
    """Every sign, exponent and upper mantissa with what decides below, and every tie with its neighbours."""
    fmt = FORMATS[name]
    x = patterns() if some == "patterns" else around_ties(fmt)
    x = x[~np.isnan(x)]
    with np.errstate(invalid="ignore", over="ignore"):
        want = x.astype(DTYPES[name]).view(fmt.codes)
    same_codes(encode(x, fmt, "nan"), want, fmt)


@pytest.mark.spec("FMT-1")
@pytest.mark.parametrize("name", FORMATS)
def test_encode_is_rounded(name: str) -> None:
    """The bits' way and the sentence of FMT-1 agree, in float32 and in float64, for NaN and infinities too."""
    fmt = FORMATS[name]
    with np.errstate(over="ignore"):
        for x in (patterns(), around_ties(fmt), every_bfloat16()):
            number = x[~np.isnan(x)]
            got = decode(encode(number, fmt, "saturate"), fmt)
            for wide in (np.float32, np.float64):
                want = rounded(number.astype(wide), fmt)
                np.testing.assert_array_equal(got, want)
                signs = got != 0 if not fmt.minus_zero else np.ones_like(got, bool)
                assert np.array_equal(np.signbit(got[signs]), np.signbit(want[signs]))
    nan = np.array([np.nan, -np.nan], np.float32)
    assert np.isnan(rounded(nan, fmt)).all()
    assert name == "e2m1" or np.isnan(decode(encode(nan, fmt, "saturate"), fmt)).all()


@pytest.mark.spec("FMT-1")
@pytest.mark.parametrize("name", FORMATS)
def test_every_code_survives(name: str) -> None:
    """Decoded and encoded again; and codes grow with the numbers."""
    fmt = FORMATS[name]
    codes = every_code(fmt)
    number = ~np.isnan(decode(codes, fmt))
    for overflow in ("saturate", "nan"):
        finite = number & np.isfinite(decode(codes, fmt))
        assert np.array_equal(encode(decode(codes, fmt)[finite], fmt, overflow), codes[finite])
    half = 1 << (fmt.bits - 1)
    assert (np.diff(decode(codes, fmt)[:half][number[:half]]) > 0).all()


@pytest.mark.spec("FMT-4")
@pytest.mark.parametrize(
    ("name", "x", "saturate", "nan"),
    [
        ("e4m3", 464.0, 448, 448),
        ("e4m3", 464.1, 448, np.nan),
        ("e4m3", np.inf, 448, np.nan),
        ("e4m3", -np.inf, -448, np.nan),
        ("e5m2", 61439.9, 57344, 57344),
        ("e5m2", 61440.0, 57344, np.inf),
        ("e5m2", -np.inf, -57344, -np.inf),
        ("e4m3fnuz", 247.9, 240, 240),
        ("e4m3fnuz", 248.0, 240, np.nan),
        ("e4m3fnuz", np.inf, 240, np.nan),
        ("e5m2fnuz", 61440.0, 57344, np.nan),
        ("e2m1", 1e30, 6, 6),
        ("e2m1", -np.inf, -6, -6),
        ("e5m6", 65279.9, 65024, 65024),
        ("e5m6", 65280.0, 65024, np.inf),
        ("bfloat16", 3.4e38, 3.3895313892515355e38, np.inf),
    ],
)
def test_beyond_the_largest(name: str, x: float, saturate: float, nan: float) -> None:
    """x is rounded as if the grid went on, and then it saturates or is what the format has there."""
    for overflow, want in (("saturate", saturate), ("nan", nan)):
        got = decode(encode(np.array([x], np.float32), FORMATS[name], overflow), FORMATS[name])
        np.testing.assert_array_equal(got, np.array([want], np.float32))


@pytest.mark.spec("FMT-1")
@pytest.mark.parametrize("name", FORMATS)
def test_zeros(name: str) -> None:
    """A zero keeps its sign, but in the formats that have one zero only."""
    fmt, least = FORMATS[name], float(np.float32(2.0**-149))
    codes = encode(np.array([0.0, -0.0, least, -least], np.float32), fmt, "saturate")
    if name != "bfloat16":
        assert not decode(codes, fmt).any()
    assert np.signbit(decode(codes, fmt)).tolist() == [False, fmt.minus_zero, False, fmt.minus_zero]


@pytest.mark.spec("FMT-3")
@pytest.mark.parametrize("name", FORMATS)
def test_float64_is_rounded_once(name: str) -> None:
    """Just beside a tie, where a float64 that passes through float32 lands on the tie, and goes to the even side."""
    fmt = FORMATS[name]
    held = np.unique(TABLES[fmt][np.isfinite(TABLES[fmt])]).astype(np.float64)
    held = held[held >= 2.0**-100]
    low, high = held[:-1], held[1:]
    tie = (low + high) / 2
    traps = np.concatenate([tie * (1 + 2.0**-40), tie * (1 - 2.0**-40)])
    exact = [Fraction(float(x)) for x in traps]
    nearest = [
        min((low[i % len(tie)], high[i % len(tie)]), key=lambda h: abs(Fraction(float(h)) - x))
        for i, x in enumerate(exact)
    ]
    assert np.array_equal(rounded(traps, fmt), nearest)
    twice = rounded(traps.astype(np.float32), fmt)
    assert not np.array_equal(twice, nearest)


@pytest.mark.spec("FMT-3")
def test_ml_dtypes_rounds_float64_twice() -> None:
    """The number of the text: its cast goes through float32; `cast` refuses float64."""
    x = np.array([[1.0625 + 2.0**-40]])
    assert rounded(x, FORMATS["e4m3"]) == 1.125
    assert x.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) == 1.0
    cfg = MoEConfig.from_dict(config())
    with pytest.raises(ValueError, match=r"^ARR-4: cast: x must be float32, not float64"):
        ops.run("cast", cfg, x=x)


@pytest.mark.spec("FMT-5")
def test_two_codes_a_byte() -> None:
    """The number of even column in the low half, as ml_dtypes' codes paired by hand."""
    codes = np.arange(16, dtype=np.uint8).reshape(2, 8)
    packed = pack(codes)
    assert packed.tolist() == [[0x10, 0x32, 0x54, 0x76], [0x98, 0xBA, 0xDC, 0xFE]]
    assert np.array_equal(unpack(packed), codes)
    assert np.array_equal(inside(outside(codes, FORMATS["e2m1"]), FORMATS["e2m1"]), codes)


@pytest.mark.spec("FMT-5")
@pytest.mark.parametrize("name", FORMATS)
def test_storage(name: str) -> None:
    """Outside codes have the type of their format, and come back in as they were; bare bits serve as well."""
    fmt = FORMATS[name]
    codes = every_code(fmt).reshape(2, -1)
    out = outside(codes, fmt)
    assert out.dtype == fmt.storage
    assert np.array_equal(inside(out, fmt), codes)
    assert np.array_equal(inside(out.view(fmt.codes), fmt), codes)


@pytest.mark.spec("FMT-5")
@pytest.mark.parametrize(
    ("op", "changed", "columns"),
    [
        ("cast", {"format": "e2m1"}, 3),
        ("quantize", {"format": "e2m1"}, 5),
        ("requantize", {"a_format": "e4m3", "b_format": "e2m1"}, 7),
    ],
)
def test_odd_columns_fill_no_bytes(op: str, changed: dict[str, str], columns: int) -> None:
    """What becomes E2M1 has an even number of columns."""
    cfg = MoEConfig.from_dict(config(**changed))
    given = {"x": np.ones((2, columns), np.float32)}
    if op == "requantize":
        given = {"codes": np.ones((2, columns), np.uint8), "scale": np.ones((2, 1), np.float32)}
    with pytest.raises(ValueError, match=rf"^FMT-5: {op}: {columns} columns of e2m1"):
        ops.run(op, cfg, **given)


@pytest.mark.spec("FMT-6")
def test_every_scale() -> None:
    """All 256 bytes of UE8M0 stand for ml_dtypes' numbers, and come back; float32 stays as it is."""
    bytes_ = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu)
    scale = scale_inside(bytes_)
    assert scale.dtype == np.float32
    np.testing.assert_array_equal(scale, bytes_.astype(np.float32))
    assert np.array_equal(scale_outside(scale, "ue8m0").view(np.uint8), np.arange(256))
    assert scale_outside(scale, "float32") is scale
    assert scale_inside(scale) is scale
