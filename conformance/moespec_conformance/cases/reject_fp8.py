"""Profile `reject`, for small formats and blocks: words, blocks, storage, scales and shapes that must be refused."""

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from moespec_conformance.cases import formats, matrices
from moespec_conformance.cases.grids import bytes_of, powers, scales
from moespec_conformance.cases.lift import lift
from moespec_conformance.cases.quant import quantize, requantize
from moespec_conformance.cases.reject import bad_tensor, cast, cut, drop
from moespec_conformance.protocol import Case, Tensors

Spoil = Callable[[Tensors], None]
WORDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unknown-recipe", {"recipe": "deepseek-v2"}),
    ("unknown-format", {"format": "e4m3fn"}),
    ("unknown-format-of-a", {"a_format": "e3m4"}),
    ("unknown-format-of-b", {"b_format": None}),
    ("unknown-scale-format", {"scale_format": "e8m0"}),
    ("unknown-overflow", {"overflow": "clip"}),
)
WIDE = (("blocks-of-bfloat16", {"format": "bfloat16"}),)
BLOCKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("block-of-nothing", {"block": [0, 128]}),
    ("block-negative", {"block": [1, -128]}),
    ("block-one-number", {"block": 128}),
    ("block-one-side", {"block": [128]}),
    ("block-three-sides", {"block": [1, 1, 128]}),
    ("block-with-a-point", {"block": [1, 128.0]}),
    ("block-of-true", {"block": [True, 128]}),
    ("block-of-a-zero", {"a_block": [1, 0]}),
    ("block-of-b-a-word", {"b_block": "128x128"}),
)


def configs() -> Iterator[Case]:
    """Good tensors, impossible config: of quantize, since the neutral values are good for all."""
    good = quantize("for-rejects", matrices.ordinary, ())
    for clause, table in (("CFG-17", WORDS), ("CFG-18", BLOCKS), ("QNT-1", WIDE)):
        for slug, changed in table:
            bad = {**good.config, **changed}
            yield Case(f"reject-{slug}", good.op, bad, good.build, (clause,), "reject", profiles=("reject",), good=good)


def read_as(name: str, dtype: Any) -> Spoil:  # noqa: ANN401 - a dtype
    """The same bits as another dtype."""

    def spoil(t: Tensors) -> None:
        t[name] = t[name].view(dtype)

    return spoil


def two_bytes(t: Tensors) -> None:
    """The same codes, each in two bytes."""
    t["codes"] = t["codes"].view(np.uint8).astype(np.uint16)


def wide_bits(t: Tensors) -> None:
    """One code has a thirteenth bit."""
    t["codes"][2, 3] |= 1 << 12


def storage() -> Iterator[Case]:
    """Codes of another format, in another dtype, or with bits beyond; numbers that were rounded before."""
    for op, good in (
        ("cast", formats.cast("e2m1", "for-rejects", formats.of_all_sizes, ())),
        ("quantize", quantize("e2m1-for-rejects", matrices.ordinary, (), (8, 64), format="e2m1", block=(1, 32))),
    ):
        yield bad_tensor(f"{op}-odd-columns", "FMT-5", good, cut("x", 1))
        yield bad_tensor(f"{op}-float64", "ARR-4", good, cast("x", "float64"))
        yield bad_tensor(f"{op}-float16", "ARR-4", good, cast("x", "float16"))
        yield bad_tensor(f"{op}-one-axis", "ARR-5", good, lambda t: t.update(x=t["x"][0]))
    good = requantize("odd-for-rejects", scales, -3, 3, b_format="e2m1", b_block=(1, 32))
    yield bad_tensor("requantize-odd-columns", "FMT-5", good, cut("codes", 1))
    good = formats.dequantize("e4m3", "for-rejects", formats.digits, (9, 256))
    yield bad_tensor("codes-of-e5m2", "FMT-5", good, read_as("codes", ml_dtypes.float8_e5m2))
    yield bad_tensor("codes-of-fnuz", "FMT-5", good, read_as("codes", ml_dtypes.float8_e4m3fnuz))
    yield bad_tensor("codes-with-a-sign", "FMT-5", good, read_as("codes", np.int8))
    yield bad_tensor("codes-as-numbers", "FMT-5", good, cast("codes", "float32"))
    yield bad_tensor("codes-two-bytes", "FMT-5", good, two_bytes)
    good = formats.dequantize("e5m6", "for-rejects", formats.digits, (9, 256))
    yield bad_tensor("codes-of-thirteen-bits", "FMT-5", good, wide_bits)
    yield bad_tensor("codes-of-float16", "FMT-5", good, read_as("codes", np.float16))
    good = formats.dequantize("e2m1", "for-rejects", formats.digits, (9, 256), block=(1, 32))
    yield bad_tensor("codes-of-e2m1-signed", "FMT-5", good, read_as("codes", np.int8))


def grids() -> Iterator[Case]:
    """Scales of another dtype, and grids of another shape than the blocks'."""
    good = formats.dequantize("e4m3", "for-rejects", formats.in_e8m0, (9, 256))
    yield bad_tensor("scale-of-bytes", "QNT-3", good, read_as("scale", np.uint8))
    yield bad_tensor("scale-of-e4m3", "QNT-3", good, read_as("scale", ml_dtypes.float8_e4m3fn))
    good = formats.dequantize("e4m3", "for-rejects", formats.digits, (192, 320), block=(128, 128))
    yield bad_tensor("scale-float64", "QNT-3", good, cast("scale", "float64"))
    yield bad_tensor("scale-bfloat16", "QNT-3", good, lambda t: t.update(scale=t["scale"].astype(ml_dtypes.bfloat16)))
    yield bad_tensor("scale-of-integers", "QNT-3", good, cast("scale", "int32"))
    yield bad_tensor("scale-missing", "ARR-3", good, drop("scale"))
    yield bad_tensor("scale-floor-of-rows", "ARR-5", good, cut("scale", 0))
    yield bad_tensor("scale-floor-of-columns", "ARR-5", good, cut("scale", 1))
    yield bad_tensor("scale-transposed", "ARR-5", good, lambda t: t.update(scale=t["scale"].T.copy()))
    yield bad_tensor("scale-one-for-all", "ARR-5", good, lambda t: t.update(scale=t["scale"][:1, :1]))
    yield bad_tensor("scale-one-axis", "ARR-5", good, lambda t: t.update(scale=t["scale"][0]))
    good = requantize("for-rejects", powers, -3, 3, scale_format="ue8m0")
    yield bad_tensor("requantize-scale-of-b", "ARR-5", good, lambda t: t.update(scale=t["scale"].T.copy()))
    yield bad_tensor("requantize-codes-missing", "ARR-3", good, drop("codes"))


def put_scale(value: float) -> Spoil:
    """One scale becomes another number."""

    def spoil(t: Tensors) -> None:
        t["scale"][0, 1] = value

    return spoil


def lifts() -> Iterator[Case]:
    """What E4M3 cannot hold without loss, and what is no lift."""
    good = lift("for-rejects", 14, floats=True)
    yield bad_tensor("lift-15-apart", "QNT-8", good, put_scale(2.0**8))
    yield bad_tensor("lift-15-apart-below", "QNT-8", good, put_scale(2.0**-8))
    yield bad_tensor("lift-100-apart", "QNT-8", good, put_scale(2.0**93))
    yield bad_tensor("lift-no-power", "QNT-8", good, put_scale(1.5))
    yield bad_tensor("lift-negative-scale", "QNT-8", good, put_scale(-2.0))
    yield bad_tensor("lift-scale-zero", "QNT-8", good, put_scale(0.0))
    yield bad_tensor("lift-scale-nan", "QNT-8", good, put_scale(float("nan")))
    yield bad_tensor("lift-scale-infinite", "QNT-8", good, put_scale(float("inf")))
    in_bytes = lift("bytes-for-rejects", 14)

    def one_more(t: Tensors) -> None:
        t["scale"][0, 1] = bytes_of(np.asarray(2.0**8))

    yield bad_tensor("lift-15-apart-in-bytes", "QNT-8", in_bytes, one_more)
    for slug, changed in (("to-e5m2", {"b_format": "e5m2"}), ("to-fnuz", {"b_format": "e4m3fnuz"})):
        bad = {**good.config, **changed}
        yield Case(
            f"reject-lift-{slug}", good.op, bad, good.build, ("QNT-8",), "reject", profiles=("reject",), good=good
        )


def cases() -> Iterator[Case]:
    """Everything that small formats and blocks refuse."""
    yield from configs()
    yield from storage()
    yield from grids()
    yield from lifts()
