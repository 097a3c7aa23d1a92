"""The judge of codes, scales and products: what it must let pass, what it must not, and what it says."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec.formats import FORMATS, encode
from moespec.ops import RUN
from moespec.quant import spread
from moespec.storage import inside, outside, scale_outside
from moespec_conformance import tensors
from moespec_conformance.asking import Reply, other, poison, strided
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import Draw, fp8_config
from moespec_conformance.judge.form import Malformed
from moespec_conformance.judging import verdict
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import BFLOAT16, Case, Result, to_numpy

ORDINARY = Draw("judge").normal(40, 300) * np.float32(1.0472)


def asked(x: Any = ORDINARY, kind: str = "bounded", op: str = "quantize", **how: Any) -> Case:
    """A question about blocks."""
    return Case("judged", op, fp8_config(**how), lambda: {"x": np.array(x)}, ("QNT-4",), kind)


def judged(case: Case, **given: Any) -> Result:
    """The verdict on the reference's answer, with changes."""
    return verdict(case, Reply("answered", {**RUN[case.op](case.cfg, **case.inputs), **given}))


def coded(case: Case, scale: Any, number: Any) -> dict[str, Any]:
    """These scales, and numbers rounded once."""
    fmt = FORMATS[case.cfg.format]
    return {"scale": scale, "codes": outside(encode(number.astype(np.float32), fmt, "saturate"), fmt)}


def honest(case: Case, how: str) -> dict[str, Any]:
    """Published ways to divide."""
    x, top, block = case.inputs["x"], np.float32(FORMATS[case.cfg.format].largest), case.cfg.block
    amax = np.abs(np.pad(x, ((0, 0), (0, -x.shape[1] % block[1])))).reshape(len(x), -1, block[1]).max(axis=-1)
    each = {
        "multiplied by 1 / s": (amax / top, 1 / (amax / top)),
        "multiplied by top / amax": (amax / top, top / amax),
        "scale by a constant": (amax * np.float32(1 / top), 1 / (amax * np.float32(1 / top))),
        "inverse": (1 / (top / amax), top / amax),
    }
    scale, factor = each[how]
    return coded(case, scale, x * spread(factor, block, x.shape))


@pytest.mark.parametrize("fmt", ["e4m3", "e5m2", "e4m3fnuz", "e2m1", "e5m6"])
@pytest.mark.parametrize("how", ["multiplied by 1 / s", "multiplied by top / amax", "scale by a constant", "inverse"])
def test_every_published_division_is_near(how: str, fmt: str) -> None:
    """QNT-2, QNT-4: scales within 2^-22, codes by their own scale."""
    x = np.concatenate([ORDINARY[:, :298], ORDINARY[:, :298] * np.float32(100)])
    case = asked(x, format=fmt)
    assert judged(case, **honest(case, how)).status == "pass"


def wrong_answers(case: Case) -> dict[str, dict[str, Any]]:
    """What published bugs make of a matrix, by name, and with the stage that must be named."""
    x, right, block = case.inputs["x"], answer(case).values, case.cfg.block
    scale, fmt = right["scale"], FORMATS[case.cfg.format]
    number = x / spread(scale, block, x.shape)
    coarse = scale.astype(BFLOAT16).astype(np.float32)
    part, power = np.frexp(number)
    toward_zero = np.ldexp(np.trunc(np.ldexp(part, fmt.mantissa + 1)), power - fmt.mantissa - 1)
    return {
        "scale: a bfloat16": coded(case, coarse, x / spread(coarse, block, x.shape)),
        "scale: its inverse": {"scale": 1 / scale},
        "scale: of another block": {"scale": scale[:, ::-1]},
        "scale: of 240": coded(case, scale * np.float32(448 / 240), number * np.float32(240 / 448)),
        "scale: one for all": coded(case, np.full_like(scale, scale.max()), x / scale.max()),
        "codes: truncated": coded(case, scale, toward_zero),
        "codes: by another block's scale": coded(case, scale, x / spread(scale[:, ::-1], block, x.shape)),
        "codes: in bfloat16 first": coded(case, scale, number.astype(BFLOAT16)),
        "codes: one off": {"codes": outside(one_off(right["codes"]), fmt)},
    }


def one_off(codes: Any) -> Any:
    """The next code, once."""
    codes = codes.copy()
    codes[7, 7] ^= 1
    return codes


@pytest.mark.parametrize("kind", ["bounded", "exact"])
@pytest.mark.parametrize("name", list(wrong_answers(asked())))
def test_wrong_blocks_fail_and_the_stage_is_named(name: str, kind: str) -> None:
    """Near or bit for bit."""
    case = asked(kind=kind)
    result = judged(case, **wrong_answers(case)[name])
    assert (result.status, result.stage) == ("fail", name.partition(":")[0])


def test_the_place_the_code_and_what_was_legal_are_said() -> None:
    """All that is needed to see the rounding."""
    case = asked()
    says = judged(case, **wrong_answers(case)["codes: one off"]).message
    assert "codes[7, 7] is 0x" in says
    assert "rounds to" in says
    assert "1 of 12000 elements" in says


def test_a_power_of_two_is_exact_even_near() -> None:
    """QNT-3: the ceiling; QNT-4: then x 2^-k has no rounding of its own."""
    case = asked(scale_format="ue8m0")
    scale = answer(case).values["scale"]
    assert judged(case, scale=scale).status == "pass"  # float32 serves as well
    assert judged(case, scale=scale_outside(scale, "ue8m0")).status == "pass"
    down = coded(case, scale / 2, case.inputs["x"] / spread(scale / 2, case.cfg.block, case.inputs["x"].shape))
    assert judged(case, **down).stage == "scale"
    tie = np.zeros((1, 128), np.float32)
    tie[0, :3] = 448, 17, 17 * (1 + 2.0**-23)
    case = asked(tie, scale_format="ue8m0")
    codes = answer(case).values["codes"].copy()
    assert codes[0, 1] + 1 == codes[0, 2]
    codes[0, 1] += 1
    assert judged(case, codes=outside(codes, FORMATS["e4m3"])).stage == "codes"


def test_codes_are_numbers_and_come_in_any_dtype_of_their_bits() -> None:
    """FMT-5: uint8 or ml_dtypes; any NaN is one; the sign of zero counts, but in E2M1."""
    x = np.array([[np.nan, 0.0, -0.0, 1.0]], np.float32)
    case = asked(x, "exact", "cast")
    codes = RUN["cast"](case.cfg, x=x)["codes"].view(np.uint8)
    for given in (codes, codes.view(ml_dtypes.float8_e4m3fn), codes | np.array([[0x80, 0, 0, 0]], np.uint8)):
        assert judged(case, codes=given).status == "pass"
    assert judged(case, codes=codes & np.uint8(0x7F)).stage == "codes"
    case = asked(x, "exact", "cast", format="e2m1")
    packed = RUN["cast"](case.cfg, x=x)["codes"]
    assert judged(case, codes=packed ^ np.array([[0x87, 0x08]], np.uint8)).status == "pass"
    assert judged(case, codes=packed ^ np.array([[0, 0x10]], np.uint8)).stage == "codes"


@pytest.mark.parametrize("kind", ["bounded", "exact"])
def test_a_block_of_nan_is_free_where_its_scale_is_nan(kind: str) -> None:
    """QNT-5: its codes may be anything; near, only what was NaN or infinite must not come back finite."""
    x = ORDINARY[:4, :256].copy()
    x[1, 7], x[2, 200] = np.nan, np.inf
    case = asked(x, kind)
    given = RUN["quantize"](case.cfg, x=x)
    noise = given["codes"].view(np.uint8).copy()
    noise[1, :128], noise[2, 128:] = 5, 9
    assert judged(case, codes=noise).status == "pass"
    scale = given["scale"].copy()
    scale[1, 0] = 1
    assert judged(case, scale=scale, codes=noise).status == "fail"
    alone = given["codes"].view(np.uint8).copy()
    alone[1, :128] = inside(RUN["quantize"](case.cfg, x=np.nan_to_num(x))["codes"], FORMATS["e4m3"])[1, :128]
    alone[1, 7] = 0x7F
    legal = judged(case, scale=scale, codes=alone)
    assert legal.status == ("pass" if kind == "bounded" else "fail")


OTHER_DTYPES = {
    "codes-signed": lambda t: t["codes"].view(np.int8),
    "codes-of-another-format": lambda t: t["codes"].view(ml_dtypes.float8_e5m2),
    "codes-as-numbers": lambda t: t["codes"].astype(np.float32),
    "codes-of-two-bytes": lambda t: t["codes"].view(np.uint8).astype(np.uint16),
    "scale-of-float64": lambda t: t["scale"].astype(np.float64),
    "scale-of-bfloat16": lambda t: t["scale"].astype(BFLOAT16),
}


@pytest.mark.parametrize("change", list(OTHER_DTYPES))
def test_other_dtypes_are_no_answer(change: str) -> None:
    """FMT-5, FMT-6."""
    case, name = asked(), change.partition("-")[0]
    with pytest.raises(Malformed) as wrong:
        judged(case, **{name: OTHER_DTYPES[change](RUN["quantize"](case.cfg, **case.inputs))})
    assert (wrong.value.kind, wrong.value.stage) == ("dtype", name)


def test_bits_beyond_a_format_and_grids_of_another_shape_are_no_answer() -> None:
    """FMT-5, QNT-1."""
    case = asked(format="e5m6", block=[1, 64])
    codes = RUN["quantize"](case.cfg, **case.inputs)["codes"]
    for change, kind in (({"codes": codes | 0x8000}, "dtype"), ({"scale": np.ones((40, 4), np.float32)}, "shape")):
        with pytest.raises(Malformed) as wrong:
            judged(case, **change)
        assert wrong.value.kind == kind


@pytest.mark.parametrize("layout", ["contiguous", "psum", "masked"])
def test_what_stands_at_empty_places_is_free(layout: str) -> None:
    """LIN-5: NaN as well; but not in an expert's own row."""
    case = all_cases()[f"grouped-matmul-fp8-{layout}-ordinary"]
    y = RUN[case.op](case.cfg, **case.inputs)["y"]
    empty = (y == 0).all(axis=-1)
    assert empty.any()
    y[empty] = np.nan
    assert judged(case, y=y).status == "pass"
    y[tuple(np.argwhere(~empty)[3])] = np.nan
    with pytest.raises(Malformed) as wrong:
        judged(case, y=y)
    assert wrong.value.kind == "nan"


def test_nan_is_right_where_it_should_be_and_only_there() -> None:
    """Dequantising a block without a scale."""
    x = ORDINARY[:4, :256].copy()
    x[1, 7] = np.nan
    made = RUN["quantize"](asked().cfg, x=x)
    case = Case("d", "dequantize", fp8_config(), lambda: dict(made), ("QNT-6",), "exact")
    right = RUN["dequantize"](case.cfg, **made)["x"]
    assert np.isnan(right).any()
    assert judged(case).status == "pass"
    assert judged(case, x=np.nan_to_num(right)).status == "fail"
    right[3, 3] = np.nan
    with pytest.raises(Malformed, match="not finite"):
        judged(case, x=right)


@pytest.mark.spec("MOE-8")
def test_codes_are_moved_copied_poisoned_and_strided_as_bits(tmp_path: Path) -> None:
    """Every dtype of codes and scales, in files too."""
    given = {name: np.arange(12, dtype=np.uint8).reshape(3, 4).view(t) for name, t in STORED.items()}
    given |= {"wide_codes": np.arange(12, dtype=np.uint16).reshape(3, 4), "flag": np.array([True, False])}
    poison(given)
    for name, tensor in strided(given).items():
        assert tensor.tobytes() == given[name].tobytes()
        assert name == "flag" or not tensor.flags.c_contiguous
    for name, tensor in given.items():
        assert np.array_equal(other(name, tensor, 16), np.roll(tensor, 1, axis=0))
    tensors.write(tmp_path / "t.safetensors", given)
    for name, tensor in tensors.read(tmp_path / "t.safetensors").items():
        assert (tensor.dtype, tensor.tobytes()) == (given[name].dtype, given[name].tobytes())


STORED = {
    "codes": ml_dtypes.float8_e4m3fn,
    "b_codes": ml_dtypes.float8_e5m2,
    "c_codes": ml_dtypes.float8_e4m3fnuz,
    "d_codes": ml_dtypes.float8_e5m2fnuz,
    "packed_codes": np.uint8,
    "scale": ml_dtypes.float8_e8m0fnu,
}


@pytest.mark.peers
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu", "bfloat16"])
def test_small_floats_of_torch_come_as_their_bits(name: str) -> None:
    """FMT-5: by view, never by a conversion."""
    torch = pytest.importorskip("torch")
    bits = np.arange(128, dtype=np.uint8).reshape(4, 32)
    array = to_numpy(torch.from_numpy(bits.copy()).view(getattr(torch, name)))
    assert array.dtype == getattr(ml_dtypes, name)
    assert array.tobytes() == bits.tobytes()


def test_a_recipe_that_has_a_scale_for_odd_blocks_is_judged_by_it() -> None:
    """QNT-5 of transformer-engine: nothing is free, and an infinity saturates."""
    x = ORDINARY[:4, :256].copy()
    x[1, 7], x[2, 200] = np.nan, np.inf
    case = asked(x, recipe="transformer-engine")
    assert judged(case).status == "pass"
    scale = answer(case).values["scale"]
    assert np.isfinite(scale).all()
    assert judged(case, scale=np.where(scale == scale[2, 1], np.float32(np.nan), scale)).stage == "scale"
