"""Accumulators: each unit against a slow model in fractions, exact sums against whole numbers, and real outputs."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moespec import MoEConfig, ops
from moespec.accumulate import UNITS, fused
from moespec.formats import FORMATS, decode
from moespec.linear import Adding, Operand, matmul, transposed
from moespec.quant import Quantized, Scheme, dequantize
from moespec_conformance.cases.inputs import config

f32 = np.float32


def floor_log2(x: Fraction) -> int:
    """The exponent of |x|, x not 0."""
    size = abs(x)
    k = size.numerator.bit_length() - size.denominator.bit_length()
    return k if Fraction(2) ** k <= size else k - 1


def cut(x: Fraction, step: Fraction) -> Fraction:
    """The multiple of step at x or next to it toward zero."""
    whole = abs(x) // step * step
    return whole if x >= 0 else -whole


def to_float32(x: Fraction) -> Any:
    """Rounded once to float32, to nearest even."""
    if x == 0:
        return f32(0)
    step = Fraction(2) ** (max(floor_log2(x), -126) - 23)
    return f32(float(round(x / step) * step))


def by_fractions(a: Any, b: Any, c: Any, emin: tuple[int, int], unit: str) -> Any:
    """ACC-3 and ACC-4 from their text: one output."""
    length, term_bits, sum_bits = {"hopper": (32, 13, 13), "ada": (16, 13, 13), "blackwell": (32, 25, 23)}[unit]
    total = Fraction(float(c))
    for k in range(0, len(a), length):
        terms = [
            (
                Fraction(float(x)) * Fraction(float(y)),
                sum(max(floor_log2(Fraction(float(v))), e) for v, e in zip((x, y), emin, strict=True)),
            )
            for x, y in zip(a[k : k + length], b[k : k + length], strict=True)
            if x and y
        ]
        if unit != "blackwell" and total:
            terms.append((total, max(floor_log2(total), -126)))
        largest = max([-133, *(exponent for _, exponent in terms)])
        added = sum((cut(term, Fraction(2) ** (largest - term_bits)) for term, _ in terms), Fraction(0))
        kept = cut(added, Fraction(2) ** (max(floor_log2(added), -126) - sum_bits)) if added else added
        total = Fraction(float(to_float32(total + kept))) if unit == "blackwell" else kept
    return f32(float(total))


def agree(a: Any, b: Any, c: Any, formats: tuple[str, str], unit: str) -> None:
    """The reference gives every output the model gives."""
    x, y = (decode(codes, FORMATS[f]) for codes, f in zip((a, b), formats, strict=True))
    both = (FORMATS[formats[0]], FORMATS[formats[1]])
    emin = (both[0].emin, both[1].emin)
    want = [[by_fractions(x[m], y[n], c[m, n], emin, unit) for n in range(len(y))] for m in range(len(x))]
    np.testing.assert_array_equal(fused(x, y, c, both, UNITS[unit]), want)


def codes_of(rng: Any, fmt: str, *shape: int) -> Any:
    """Codes of finite numbers of any size, zeros and subnormal ones among them."""
    finite = np.flatnonzero(np.isfinite(decode(np.arange(1 << FORMATS[fmt].bits).astype(np.uint8), FORMATS[fmt])))
    return rng.choice(finite, shape).astype(np.uint8)


def near_one(rng: Any, fmt: str, *shape: int) -> Any:
    """Codes of numbers within 2^3 of each other, so that sums lose their last bits and little else."""
    half, ones = 1 << (FORMATS[fmt].bits - 1), FORMATS[fmt].bias << FORMATS[fmt].mantissa
    size = ones + rng.integers(0, 3 << FORMATS[fmt].mantissa, shape)
    return (size + half * rng.integers(0, 2, shape)).astype(np.uint8)


PAIRS = {
    "hopper": [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e4m3", "e5m2")],
    "ada": [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e5m2", "e4m3")],
    "blackwell": [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e2m1", "e2m1"), ("e4m3", "e2m1")],
}


@pytest.mark.spec("ACC-3")
@pytest.mark.parametrize(("unit", "formats"), [(unit, pair) for unit, pairs in PAIRS.items() for pair in pairs])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 130])
@pytest.mark.parametrize("draw", [codes_of, near_one])
def test_units_by_fractions(unit: str, formats: tuple[str, str], length: int, draw: Callable[..., Any]) -> None:
    """Whole and begun steps, from 0 and from accumulators of all sizes."""
    rng = np.random.default_rng(length)
    a, b = draw(rng, formats[0], 5, length), draw(rng, formats[1], 4, length)
    c = (rng.standard_normal((5, 4)) * 2.0 ** rng.integers(-20, 20, (5, 4))).astype(f32)
    c[0], c[1] = 0, c[1] * f32(2.0**-120)
    agree(a, b, c, formats, unit)


@pytest.mark.spec("ACC-3")
@pytest.mark.parametrize("unit", UNITS)
def test_tiles_change_nothing(unit: str) -> None:
    """More rows and columns than are computed at a time."""
    rng = np.random.default_rng(0)
    a, b = near_one(rng, "e4m3", 33, 5), near_one(rng, "e4m3", 65, 5)
    agree(a, b, np.zeros((33, 65), f32), ("e4m3", "e4m3"), unit)


# by name: products (x, y) in E4M3, and the accumulator; what Hopper makes of them
DESIGNED: dict[str, tuple[list[tuple[float, float]], float, float]] = {
    "nothing": ([(0, 0), (0, 448)], 0.0, 0.0),
    "an accumulator alone keeps 13 bits": ([(0, 1)], 1 + 2.0**-13 + 2.0**-14, 1 + 2.0**-13),
    "the same below 0, toward zero": ([(0, 1)], -1 - 2.0**-13 - 2.0**-14, -1 - 2.0**-13),
    "a one that meets 2^14 is lost": ([(128, 128), (1, 1)], 0.0, 16384.0),
    "a two is not": ([(128, 128), (2, 1)], 0.0, 16386.0),
    "two ones are lost both": ([(128, 128), (1, 1), (1, 1)], 0.0, 16384.0),
    "what cancels leaves what was cut": ([(128, 128), (-128, 128), (1, 1)], 0.0, 0.0),
    "the order means nothing": ([(1, 1), (128, 128), (-128, 128)], 0.0, 0.0),
    "two of 2^13 are cut as one": ([(64, 128), (64, 128), (1, 1)], 0.0, 16384.0),
    "products of 1.75 do not raise the exponent": ([(1.75, 1.75), *[(2.0**-9, 2.0**-4)] * 2], 0.0, 3.0625 + 2.0**-12),
    "a subnormal number's exponent is the least": ([(2.0**-9, 256), (2.0**-9, 2.0**-4)], 0.0, 0.5),
    "a normal number's is its own": ([(2.0**-6, 32), (2.0**-9, 2.0**-4)], 0.0, 0.5 + 2.0**-13),
    "an accumulator below all products": ([(1, 1)], 2.0**-14, 1.0),
    "a subnormal accumulator": ([(0, 1)], 2.0**-149, 0.0),
    "the least that is kept": ([(0, 1)], 2.0**-139, 2.0**-139),
}


@pytest.mark.spec("ACC-3")
@pytest.mark.parametrize("name", DESIGNED)
def test_designed_sums(name: str) -> None:
    """Worked out by hand, and by the model."""
    products, c, want = DESIGNED[name]
    x, y = (np.array([column], f32) for column in zip(*products, strict=True))
    e4m3, start = FORMATS["e4m3"], np.array([[c]], f32)
    assert by_fractions(x[0], y[0], c, (-6, -6), "hopper") == f32(want)
    assert fused(x, y, start, (e4m3, e4m3), UNITS["hopper"]) == f32(want)


@pytest.mark.spec("ACC-4")
@pytest.mark.parametrize(
    ("products", "c", "want"),
    [
        ([(2.0**-9, 2.0**-8)], 128.0, 128.0),
        ([(2.0**-9, 2.0**-8), (2.0**-9, 2.0**-9)], 128.0, 128 + 2.0**-16),
        ([(448, 448), (2.0**-6, 1)], 0.0, 200704 + 2.0**-6),
        ([(448, 448), (2.0**-7, 1)], 0.0, 200704.0),
        ([(448, 448), (-(2.0**-7), 1)], 0.0, 200704 - 2.0**-6),
    ],
    ids=["a tie", "above a tie", "23 bits of the sum", "and no more", "cut toward zero"],
)
def test_blackwell_adds_its_accumulator_apart(products: list[tuple[float, float]], c: float, want: float) -> None:
    """The accumulator comes in by a float32 addition, to nearest; the sum of products is cut."""
    x, y = (np.array([column], f32) for column in zip(*products, strict=True))
    e4m3 = FORMATS["e4m3"]
    assert by_fractions(x[0], y[0], c, (-6, -6), "blackwell") == f32(want)
    assert fused(x, y, np.array([[c]], f32), (e4m3, e4m3), UNITS["blackwell"]) == f32(want)


def product_config(**changed: Any) -> MoEConfig:
    """Both operands in E4M3, in blocks of 1x128, unless something else is said."""
    return MoEConfig.from_dict(config(**{"b_block": (1, 128), **changed}))


def product(cfg: MoEConfig, a: Any, b: Any, c: Any = None) -> Any:
    """Codes with scales of 1."""
    scales = {f"{o}_scale": np.ones((len(x), -(-x.shape[1] // 128)), f32) for o, x in (("a", a), ("b", b))}
    return ops.run("matmul_fp8", cfg, a_codes=a, b_codes=b, **scales, **({} if c is None else {"c": c}))["y"]


@pytest.mark.spec("ACC-5")
@pytest.mark.parametrize("accumulate", ["exact", "promoted", "hopper", "ada", "blackwell"])
@pytest.mark.parametrize("every", [0, 32, 64, 128])
def test_fingerprint(accumulate: str, every: int) -> None:
    """(128, 1, 1, …) by itself, over 1024: 17407, or less what the unit loses beside 16384."""
    if accumulate == "promoted" and not every:
        return
    codes = np.full((1, 1024), 0x38, np.uint8)
    codes[0, 0] = 0x70
    assert decode(codes, FORMATS["e4m3"])[0, :2].tolist() == [128, 1]
    got = product(product_config(accumulate=accumulate, promote_every=every), codes, codes)
    lossy = accumulate in {"hopper", "ada"}
    assert got == (16384 + (1024 - every if every else 0) if lossy else 17407)


@pytest.mark.spec("ACC-1")
@pytest.mark.parametrize("every", [0, 64, 128])
def test_exact_sums_are_whole_numbers_sums(every: int) -> None:
    """Stretches in whole numbers of 2^-18, one rounding, times fl(scale * scale), added in float32: LIN-1 by hand."""
    rng = np.random.default_rng(1)
    a, b = codes_of(rng, "e4m3", 3, 300), codes_of(rng, "e4m3", 260, 300)
    c = rng.standard_normal((3, 260)).astype(f32) * f32(2.0) ** rng.integers(-30, 30, (3, 260)).astype(f32)
    a_scale, b_scale = rng.random((3, 3)).astype(f32), rng.random((3, 3)).astype(f32)
    if not every:
        a_scale[:], b_scale[:] = a_scale[:, :1], b_scale[:, :1]
    a_of, b_of = Scheme("deepseek-v3", "e4m3", (1, 128), "float32", "saturate"), (128, 128)
    got = matmul(
        Operand(Quantized(a, a_scale), a_of),
        Operand(Quantized(b, b_scale), a_of._replace(block=b_of)),
        Adding("exact", every),
        c,
    )
    whole_a, whole_b = (
        [[int(v) for v in row] for row in decode(x, FORMATS["e4m3"]).astype(np.float64) * 512] for x in (a, b)
    )
    for m in range(3):
        for n in range(0, 260, 13):
            dot = [x * y for x, y in zip(whole_a[m], whole_b[n], strict=True)]
            if not every:
                total = to_float32(Fraction(sum(dot), 1 << 18) + Fraction(float(c[m, n]))) * (
                    a_scale[m, 0] * b_scale[n // 128, 0]
                )
            else:
                total = c[m, n]
                for k in range(0, 300, every):
                    part = to_float32(Fraction(sum(dot[k : k + every]), 1 << 18))
                    total = total + part * (a_scale[m, k // 128] * b_scale[n // 128, k // 128])
            assert got[m, n] == total, (m, n)


@pytest.mark.spec("ACC-1")
def test_exact_refuses_what_float64_does_not_hold() -> None:
    """E4M3 up to C = 171,196; E5M2 by E5M2 of wide exponents never, of near ones well; promotion shortens sums."""
    wide = np.full((1, 171_197), 0x7E, np.uint8)
    wide[0, 0] = 0x01
    cfg = product_config(accumulate="exact", promote_every=0)
    assert product(cfg, wide[:, 1:], wide[:, 1:]) == f32(448.0**2 * 171_196)
    assert product(cfg, wide[:, :-1], wide[:, :-1]) == f32(448.0**2 * 171_195)
    with pytest.raises(ValueError, match=r"^ACC-1: matmul_fp8: these exponents need 54 bits"):
        product(cfg, wide, wide)
    assert product(product_config(accumulate="exact"), wide, wide) > 0
    e5m2 = product_config(accumulate="exact", a_format="e5m2", b_format="e5m2")
    codes = np.array([[0x01, 0x7B]], np.uint8)
    with pytest.raises(ValueError, match=r"^ACC-1: .* float64 has 53"):
        product(e5m2, codes, codes)
    assert product(e5m2, codes[:, 1:], codes[:, 1:]) == 57344.0**2
    assert product(e5m2, codes[:, :0], codes[:, :0]) == 0
    assert np.isnan(product(e5m2, np.array([[0x7F]], np.uint8), np.array([[0x3C]], np.uint8)))


@pytest.mark.spec("ACC-1")
@pytest.mark.parametrize(("c", "want"), [(0.0, 0.0), (2.0**-60, 2.0**-6), (-(2.0**-60), 0.0), (2.0**-6, 2.0**-5)])
def test_an_accumulator_comes_in_before_the_one_rounding(c: float, want: float) -> None:
    """200704 + 2^-7 is a tie of float32, and a c that float64 would lose beside it decides."""
    codes = np.array([[0x7E, 0x04]], np.uint8), np.array([[0x7E, 0x38]], np.uint8)
    got = product(product_config(accumulate="exact", promote_every=0), *codes, np.array([[c]], f32))
    assert got == 200704 + want


@pytest.mark.spec("LIN-1")
@pytest.mark.parametrize("accumulate", ["exact", "float32", "promoted", "hopper", "ada", "blackwell"])
def test_empty_sums(accumulate: str) -> None:
    """No rows, no columns, no contraction: zeros, or what the accumulator held."""
    cfg = product_config(accumulate=accumulate)
    for m, n, k in ((0, 3, 5), (2, 0, 5), (2, 3, 0)):
        a, b = np.zeros((m, k), np.uint8), np.zeros((n, k), np.uint8)
        assert product(cfg, a, b).shape == (m, n)
        assert not product(cfg, a, b).any()
        assert np.array_equal(product(cfg, a, b, np.ones((m, n), f32)), np.ones((m, n), f32))


@pytest.mark.spec("LIN-4")
@pytest.mark.parametrize("accumulate", ["exact", "hopper", "float32"])
def test_a_transposed_operand_holds_the_same_numbers(accumulate: str) -> None:
    """Blocks of 128x64 become 64x128, the grid turns, and the product is that of the matrix turned by hand."""
    rng = np.random.default_rng(2)
    scheme = Scheme("deepseek-v3", "e4m3", (128, 64), "float32", "saturate")
    weight = Operand(Quantized(codes_of(rng, "e4m3", 200, 150), rng.random((2, 3)).astype(f32)), scheme)
    turned = transposed(weight)
    assert turned.scheme.block == (64, 128)
    assert np.array_equal(dequantize(*turned), dequantize(*weight).T)
    assert transposed(turned).scheme == weight.scheme
    dy = Operand(Quantized(codes_of(rng, "e4m3", 5, 200), np.ones((5, 2), f32)), scheme._replace(block=(1, 128)))
    by_hand = Operand(Quantized(weight.matrix.codes.T.copy(), weight.matrix.scale.T.copy()), turned.scheme)
    how = Adding(accumulate, 128)
    assert np.array_equal(matmul(dy, turned, how), matmul(dy, by_hand, how))


@pytest.mark.spec("LIN-3")
def test_without_promotion_scales_are_the_same_along_c() -> None:
    """Else it is refused; NaN, which a lost block has, is no other scale."""
    codes, cfg = np.full((1, 256), 0x38, np.uint8), product_config(accumulate="hopper", promote_every=0)
    given = {"a_codes": codes, "b_codes": codes, "b_scale": np.full((1, 2), 2, f32)}
    assert ops.run("matmul_fp8", cfg, **given, a_scale=np.full((1, 2), 0.5, f32))["y"] == 256
    with pytest.raises(ValueError, match=r"^LIN-3: matmul_fp8: without promotion a_scale"):
        ops.run("matmul_fp8", cfg, **given, a_scale=np.array([[1, 2]], f32))


@pytest.mark.spec("LIN-6")
def test_shares_of_other_widths() -> None:
    """Blocks of 32 and of 128 along C: each operand's scales are its own blocks'."""
    rng = np.random.default_rng(3)
    few = {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "group_score": None}
    cfg = product_config(accumulate="exact", promote_every=32, a_block=(1, 32), layout="k_grouped", **few)
    a, b = codes_of(rng, "e4m3", 3, 384), codes_of(rng, "e4m3", 4, 384)
    a_scale, b_scale = rng.random((3, 12)).astype(f32), rng.random((4, 3)).astype(f32)
    c, sizes = rng.random((2, 3, 4)).astype(f32), np.array([128, 256])
    given = {"a_codes": a, "a_scale": a_scale, "b_codes": b, "b_scale": b_scale}
    y = ops.run("grouped_matmul_fp8", cfg, **given, c=c, expert_size=sizes)["y"]
    for e, (at, a_at, b_at) in enumerate([(np.s_[:128], np.s_[:4], np.s_[:1]), (np.s_[128:], np.s_[4:], np.s_[1:])]):
        part = {"a_codes": a[:, at], "a_scale": a_scale[:, a_at], "b_codes": b[:, at], "b_scale": b_scale[:, b_at]}
        assert np.array_equal(y[e], ops.run("matmul_fp8", cfg, **part, c=c[e])["y"])
    with pytest.raises(ValueError, match=r"^LIN-6: expert_size must hold multiples of 128"):
        ops.run("grouped_matmul_fp8", cfg, **given, c=c, expert_size=np.array([96, 288]))


ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_accumulate import bits_of_products
print(bits_of_products())
"""


def bits_of_products() -> str:
    """The hash of exact products of E4M3 of every exponent, with and without promotion."""
    rng, held = np.random.default_rng(4), hashlib.sha256()
    a, b = codes_of(rng, "e4m3", 70, 1030), codes_of(rng, "e4m3", 150, 1030)
    c = rng.standard_normal((70, 150)).astype(f32)
    for every in (0, 128, 1):
        held.update(product(product_config(accumulate="exact", promote_every=every), a, b, c).tobytes())
    return held.hexdigest()


def machines() -> dict[str, dict[str, str]]:
    """Other kernels of OpenBLAS, numbers of threads, NumPy without its vector code: those this machine can run."""
    from numpy._core import _multiarray_umath as umath  # noqa: PLC0415

    features: dict[str, bool] = umath.__cpu_features__
    needs = {"PRESCOTT": "SSE3", "HASWELL": "AVX2", "SKYLAKEX": "AVX512_SKX"}
    found = {
        f"{core} {threads}": {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": threads}
        for core, feature in needs.items()
        for threads in ("1", "2")
        if features.get(feature)
    }
    plain = " ".join(name for name in umath.__cpu_dispatch__ if features.get(name))
    return {**found, "without vectors": {"NPY_DISABLE_CPU_FEATURES": plain}}


@pytest.mark.spec("ACC-1")
@pytest.mark.parametrize("machine", machines())
def test_exact_products_are_the_same_on_every_machine(machine: str) -> None:
    """Whatever kernel, threads, and vector code."""
    command = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent)]
    environment = {**os.environ, **machines()[machine]}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == bits_of_products()


UNIT_OF = {"H100": "hopper", "H200": "hopper", "L40S": "ada", "RTX": "ada", "B200": "blackwell"}


@pytest.mark.tensor_core
@pytest.mark.spec("ACC-3")
def test_units_give_what_tensor_cores_gave(request: pytest.FixtureRequest) -> None:
    """Real outputs, bit for bit: files NAME_FORMAT.npz with codes a, b (n, L), and float32 c, d (n,)."""
    files = sorted(Path(request.config.getoption("--tensor-core-data")).glob("*_*.npz"))
    assert files
    for path in files:
        name, fmt = path.stem.split("_")[:2]
        cfg = product_config(accumulate=UNIT_OF[name], promote_every=0, a_format=fmt.lower(), b_format=fmt.lower())
        held = np.load(path)
        for at in range(0, len(held["d"]), 50):
            a, b, c, d = (held[key][at : at + 50] for key in "abcd")
            got = np.diagonal(product(cfg, a, b, np.diag(c)))
            assert np.array_equal(got.view(np.uint32), d.view(np.uint32)), (path.name, at)
