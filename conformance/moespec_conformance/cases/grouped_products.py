"""Products of many experts in one call: padding, experts without rows, boxes, shares of a contraction."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases.inputs import Draw, Tensor, fp8_config
from moespec_conformance.cases.products import EXACT, FIELDS, NEAR, Config, Made, of_two, operand, whole
from moespec_conformance.protocol import Case, Tensors

E, N, C = 6, 136, 256
COUNTS = {
    "ordinary": (40, 16, 3, 0, 128, 9),
    "even": (16, 16, 16, 16, 16, 16),
    "one-expert": (0, 0, 50, 0, 0, 0),
    "last-expert": (0, 0, 0, 0, 0, 33),
    "nothing": (0, 0, 0, 0, 0, 0),
    "single-rows": (1, 1, 1, 1, 1, 1),
}


def rising(counts: tuple[int, ...], alignment: int) -> list[int]:
    """Where each expert's rows begin, and where all end."""
    ends = np.cumsum([-(-n // alignment) * alignment for n in counts])
    return [0, *ends.tolist()]


def index_of(counts: tuple[int, ...], alignment: int) -> Tensor:
    """The expert of each place, -1 of an empty one."""
    starts = rising(counts, alignment)
    index = np.full(starts[-1], -1, np.int64)
    for e, n in enumerate(counts):
        index[starts[e] : starts[e] + n] = e
    return index


def mixed_up(draw: Draw) -> Tensor:
    """Rows in no order, some of nobody: what a row's expert is, only its index says."""
    return draw.integers(90, bits=20) % (E + 1) - 1


def spoiled(tensors: Tensors, empty: Tensor) -> Tensors:
    """Places of nobody hold NaN, codes and scales alike."""
    codes, scale = tensors["a_codes"].copy(), tensors["a_scale"].copy()
    codes.view(np.uint8)[empty] = 0x7F
    scale[empty] = np.nan
    return {**tensors, "a_codes": codes, "a_scale": scale}


def boxed(draw: Draw, cfg: Config, counts: tuple[int, ...], made: Made, *, spoil: bool) -> Tensors:
    """Tensors of the layout masked: boxes that are larger than any expert needs."""
    size, count = max(*counts, 1) + 5, np.asarray(counts)
    b, a = operand(draw, cfg, "b", (E, N, C), made), operand(draw, cfg, "a", (E, size, C), made)
    empty = np.arange(size) >= count[:, None]
    return {**(spoiled(a, empty) if spoil else a), **b, "expert_count": count}


def by_row(draw: Draw, cfg: Config, index: Tensor, made: Made, *, spoil: bool) -> Tensors:
    """Operands of the layouts contiguous and psum."""
    b, a = operand(draw, cfg, "b", (E, N, C), made), operand(draw, cfg, "a", (len(index), C), made)
    return {**(spoiled(a, index < 0) if spoil else a), **b}


def by_share(draw: Draw, cfg: Config, sizes: tuple[int, ...], made: Made) -> Tensors:
    """Tensors of the layout k_grouped: gradients of weights, and what was there before."""
    m, n, width = 24, 40, sum(sizes)
    a, b = (operand(draw, cfg, name, (rows, width), made) for name, rows in (("a", m), ("b", n)))
    c = draw.dyadic(E, m, n, bits=6) if made.codes is whole else draw.normal(E, m, n, shift=-8) * np.float32(1.0472)
    return {**a, **b, "expert_size": np.asarray(sizes), "c": c}


def one(slug: str, clauses: tuple[str, ...], counts: tuple[int, ...] = (), **how: Any) -> Case:  # noqa: ANN401
    """One case; `how` holds what is Made, NaN in padding, rows in no order, fields of Case and of the config."""
    fields: Config = {"profiles": NEAR, **{name: how.pop(name) for name in FIELDS if name in how}}
    spoil, mixed = how.pop("spoil", False), how.pop("mixed", False)
    made = Made(**{name: how.pop(name) for name in Made._fields if name in how})
    name = f"grouped-matmul-fp8-{slug}"
    cfg = fp8_config(n_routed_experts=E, num_experts_per_tok=2, n_group=1, topk_group=1, **how)

    def build() -> Tensors:
        draw = Draw(name)
        if cfg["layout"] == "k_grouped":
            return by_share(draw, cfg, counts, made)
        if cfg["layout"] == "masked":
            return boxed(draw, cfg, counts, made, spoil=spoil)
        index = mixed_up(draw) if mixed else index_of(counts, cfg["alignment"])
        t = by_row(draw, cfg, index, made, spoil=spoil)
        if cfg["layout"] == "contiguous":
            return {**t, "group_index": index}
        return {**t, "expert_end": np.asarray(rising(counts, cfg["alignment"])[:-1]) + np.asarray(counts)}

    return Case(name, "grouped_matmul_fp8", cfg, build, clauses, **fields)


SHARES = {
    "ordinary": (128, 256, 128, 384, 128, 256),
    "empty-experts": (0, 256, 0, 128, 0, 0),
    "one-expert": (0, 0, 512, 0, 0, 0),
    "nothing": (0, 0, 0, 0, 0, 0),
}
EACH: Config = {"accumulate": "exact", "kind": "exact", "profiles": EXACT}


def cases() -> Iterator[Case]:
    """Every layout, near and exact."""
    for rule, how in (("", {}), ("exact-", EACH)):
        also = ("ACC-1",) if rule else ("ACC-2",)
        for layout in ("contiguous", "psum", "masked"):
            for slug, counts in COUNTS.items():
                kept: Config = {"layout": layout, "alignment": 16, **how}
                yield one(f"{rule}{layout}-{slug}", ("LIN-5", *also), counts, **kept)
            spoil: Config = {"layout": layout, "alignment": 32, "spoil": True, **how}
            yield one(f"{rule}{layout}-nan-in-padding", ("LIN-5", *also), COUNTS["ordinary"], **spoil)
        yield one(f"{rule}in-no-order", ("LIN-5", *also), mixed=True, layout="contiguous", **how)
        yield one(f"{rule}powers", ("LIN-5", *also), COUNTS["ordinary"], scale=of_two, scale_format="ue8m0", **how)
        packed: Config = {"b_format": "e2m1", "b_block": [1, 32], **how}
        yield one(f"{rule}e2m1", ("LIN-5", "FMT-5", *also), COUNTS["ordinary"], **packed)
        for slug, sizes in SHARES.items():
            shares: Config = {"layout": "k_grouped", "b_block": [1, 128], **how}
            yield one(f"{rule}k-grouped-{slug}", ("LIN-6", *also), sizes, **shares)
    for layout in ("contiguous", "psum", "masked"):
        dyadic: Config = {"layout": layout, "alignment": 16, "codes": whole, "scale": of_two, "kind": "exact"}
        yield one(f"{layout}-dyadic", ("LIN-5", "ACC-2"), COUNTS["ordinary"], **dyadic)
    shares = {"layout": "k_grouped", "b_block": [1, 128], "codes": whole, "scale": of_two, "kind": "exact"}
    yield one("k-grouped-dyadic", ("LIN-6", "ACC-2"), SHARES["ordinary"], **shares)
    for manner in ("strided", "again"):
        yield one(manner, ("LIN-5", "MOE-8"), COUNTS["ordinary"], manner=manner, alignment=16)
