"""Profile `reject`, for products and the layer in FP8: rules that do not fit, ids, counts and scales."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from moespec_conformance.cases import grouped_products, layer_fp8, products
from moespec_conformance.cases.reject import bad_tensor, cast, cut, drop, put
from moespec_conformance.protocol import Case, Tensors

SUMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unknown-sum", {"accumulate": "float64"}),
    ("promotion-negative", {"promote_every": -128}),
    ("promotion-with-a-point", {"promote_every": 128.0}),
    ("promotion-of-true", {"promote_every": True}),
    ("promotion-between-blocks", {"promote_every": 96}),
    ("mx-with-float32", {"recipe": "mx-floor", "scale_format": "float32"}),
)
# what units do not multiply: the tensors suit any other way to add
UNITS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("hopper-of-e2m1", {"b_format": "e2m1", "b_block": [1, 32]}),
    ("ada-of-fnuz", {"a_format": "e4m3fnuz"}),
    ("blackwell-of-e5m6", {"a_format": "e5m6"}),
)
SIZE = (24, 136, 384)


def changed(slug: str, clause: str, good: Case, **fields: Any) -> Case:  # noqa: ANN401 - config values
    """Good tensors, a config that does not suit them."""
    bad = {**good.config, **fields}
    return Case(f"reject-{slug}", good.op, bad, good.build, (clause,), "reject", profiles=("reject",), good=good)


def itself(slug: str, clause: str, bad: Case, good: Case) -> Case:
    """A config that no tensors suit; these would, if any did."""
    return Case(f"reject-{slug}", bad.op, bad.config, bad.build, (clause,), "reject", profiles=("reject",), good=good)


def of_products() -> Iterator[Case]:
    """Two matrices."""
    good = products.one("for-rejects", (), SIZE, c="any")
    for slug, fields in SUMS:
        yield changed(f"product-{slug}", "CFG-19", good, **fields)
    parted = products.one("blocks-for-rejects", (), SIZE, a_block=[1, 48])
    yield itself("product-blocks-of-no-common-width", "CFG-19", parted, good)
    for slug, fields in UNITS:
        some = products.one(f"{slug}-for-rejects", (), SIZE, **fields)
        yield changed(f"product-{slug}", "CFG-19", some, accumulate=slug.partition("-")[0])
    still = products.one("unpromoted-for-rejects", (), SIZE, accumulate="exact", promote_every=0, scale=products.by_row)
    yield changed("product-sum-without-promotion", "CFG-19", still, accumulate="promoted")
    yield bad_tensor("unpromoted-scales-of-a", "LIN-3", still, put("a_scale", (3, 1), 2.0**20))
    yield bad_tensor("unpromoted-scale-is-nan", "LIN-3", still, put("a_scale", (3, 1), np.nan))
    yield bad_tensor("unpromoted-scales-of-b", "LIN-3", still, put("b_scale", (0, 2), 2.0**20))
    wide: dict[str, Any] = {"a_format": "e5m2", "b_format": "e5m2", "accumulate": "exact"}
    narrow = products.one("e5m2-for-rejects", (), SIZE, codes=products.narrow, **wide)
    yield bad_tensor("exact-sum-too-wide", "ACC-1", narrow, both_ends)
    for name, axis in (("b_codes", 1), ("b_scale", 0), ("b_scale", 1), ("a_scale", 1), ("a_scale", 0), ("c", 1)):
        yield bad_tensor(f"product-{name.replace('_', '-')}-short-{axis}", "ARR-5", good, cut(name, axis))
    yield bad_tensor("product-scale-missing", "ARR-3", good, drop("b_scale"))
    yield bad_tensor("product-c-of-bfloat16", "ARR-4", good, cast("c", "bfloat16"))
    yield bad_tensor("product-codes-of-another-format", "FMT-5", good, viewed("b_codes", ml_dtypes.float8_e5m2))
    yield bad_tensor("product-codes-as-numbers", "FMT-5", good, cast("a_codes", "float32"))
    yield bad_tensor("product-scale-of-bytes", "QNT-3", good, cast("a_scale", "uint8"))
    square = products.one("square-for-rejects", (), (256, 200, 320), b_block=[64, 128])
    yield bad_tensor("product-grid-transposed", "ARR-5", square, lambda t: t.update(b_scale=t["b_scale"].T.copy()))


def both_ends(t: Tensors) -> None:
    """The largest and the smallest number of E5M2 beside each other, in both matrices."""
    for name in ("a_codes", "b_codes"):
        t[name].view(np.uint8)[0, :2] = 0x7B, 0x01


def viewed(name: str, dtype: Any) -> Any:  # noqa: ANN401 - what spoils
    """The same bits, named otherwise."""

    def spoil(t: Tensors) -> None:
        t[name] = t[name].view(dtype)

    return spoil


def of_experts() -> Iterator[Case]:
    """Many experts."""
    one, counts = grouped_products.one, grouped_products.COUNTS["ordinary"]
    rows = one("for-rejects", (), counts, layout="contiguous", alignment=16)
    yield bad_tensor("grouped-expert-too-large", "LIN-5", rows, put("group_index", 3, 6))
    yield bad_tensor("grouped-expert-too-small", "LIN-5", rows, put("group_index", 3, -2))
    yield bad_tensor("grouped-index-short", "ARR-5", rows, cut("group_index", 0))
    yield bad_tensor("grouped-index-of-numbers", "ARR-4", rows, cast("group_index", "float32"))
    yield bad_tensor("grouped-expert-missing", "ARR-5", rows, cut("b_codes", 0))
    high = one("high-for-rejects", (), counts, layout="contiguous", alignment=16, a_block=[8, 128])
    yield itself("grouped-high-blocks", "LIN-5", high, rows)
    ends = one("psum-for-rejects", (), counts, layout="psum", alignment=16)
    yield bad_tensor("grouped-ends-too-far", "LIN-5", ends, put("expert_end", 5, 10_000))
    yield bad_tensor("grouped-ends-fall", "LIN-5", ends, put("expert_end", 4, 1))
    boxes = one("masked-for-rejects", (), counts, layout="masked")
    yield bad_tensor("grouped-count-too-large", "LIN-5", boxes, put("expert_count", 4, 10_000))
    yield bad_tensor("grouped-count-negative", "LIN-5", boxes, put("expert_count", 3, -1))
    shares = one("k-grouped-for-rejects", (), grouped_products.SHARES["ordinary"], layout="k_grouped", b_block=[1, 128])
    yield bad_tensor("grouped-shares-ragged", "LIN-6", shares, lambda t: moved(t, 64))
    yield bad_tensor("grouped-shares-negative", "LIN-6", shares, lambda t: moved(t, 256))
    yield bad_tensor("grouped-shares-too-few", "LIN-6", shares, put("expert_size", 1, 128))
    yield bad_tensor("grouped-shares-too-many", "LIN-6", shares, put("expert_size", 1, 384))
    yield bad_tensor("grouped-c-missing", "ARR-3", shares, drop("c"))


def moved(t: Tensors, size: int) -> None:
    """Some of the first expert's share goes to the second."""
    t["expert_size"][:2] += -size, size


def of_layers() -> Iterator[Case]:
    """The layer."""
    for op in ("moe_fp8", "moe_fp8_backward"):
        slug = op.replace("_", "-")
        good = layer_fp8.one(op, "for-rejects", ())
        yield bad_tensor(f"{slug}-bfloat16", "ARR-4", good, cast("x", "bfloat16"))
        yield bad_tensor(f"{slug}-matrix-missing", "ARR-3", good, drop("up_proj_codes"))
        yield bad_tensor(f"{slug}-scale-short", "ARR-5", good, cut("down_proj_scale", 0))
        yield bad_tensor(
            f"{slug}-codes-of-another-format", "FMT-5", good, viewed("gate_proj_codes", ml_dtypes.float8_e5m2)
        )
        yield changed(f"{slug}-high-blocks", "MFP-2", good, a_block=[8, 128])
        yield changed(f"{slug}-unpromoted", "LIN-3", good, accumulate="hopper", promote_every=0)
        of_v4: dict[str, Any] = {**layer_fp8.V4, "hidden_size": 256, "scale_format": "float32"}
        v4 = layer_fp8.one(op, "v4-for-rejects", (), **of_v4)
        yield bad_tensor(f"{slug}-not-liftable", "QNT-8", v4, apart)
        yield bad_tensor(f"{slug}-no-power", "QNT-8", v4, put("up_proj_scale", (0, 0, 0), 0.75))
    high = layer_fp8.one("moe_fp8", "high-for-rejects", (), b_block=[96, 128])
    yield itself("moe-fp8-block-height", "MFP-5", high, layer_fp8.one("moe_fp8", "for-rejects", ()))


def apart(t: Tensors) -> None:
    """Two scales in what becomes one block are 2**40 times apart."""
    t["up_proj_scale"][0, 0, 0] *= np.float32(2.0**40)


def cases() -> Iterator[Case]:
    """Everything that products and layers refuse."""
    yield from of_products()
    yield from of_experts()
    yield from of_layers()
