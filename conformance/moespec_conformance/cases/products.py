"""Block-scaled products of two matrices: scales of their own, ragged sizes, one sign, sums exact in any order."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from moespec_conformance.cases.grids import GRIDS, any_codes, bytes_of, grid_of, numbers, powers, scales, stored
from moespec_conformance.cases.inputs import F32, Draw, Tensor, fp8_config
from moespec_conformance.protocol import Case, Tensors

NEAR, EXACT = ("fp8-products",), ("fp8-exact",)
Codes = Callable[[Draw, str, tuple[int, ...]], Tensor]
Scales = Callable[[Draw, tuple[int, int]], F32]
Config = dict[str, Any]
FIELDS = ("kind", "manner", "profiles", "note", "quick")


def codes_of(values: Tensor, name: str) -> Tensor:
    """The codes of numbers that a format holds."""
    grid = GRIDS[name]
    held = numbers(grid, np.arange(grid.finite))
    size = np.searchsorted(held, np.abs(values))
    if (held[size] != np.abs(values)).any():
        raise RuntimeError(f"{name} does not hold these numbers")
    return size + (np.signbit(values) & (size > 0)).astype(np.int64) * (1 << (grid.bits - 1))


def ordinary(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """All finite codes."""
    return any_codes(draw, name, *shape)


def one_sign(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers from 1/16 of the largest on, none negative: what an accumulator loses adds up."""
    grid = GRIDS[name]
    return np.asarray(grid.finite - 1 - draw.integers(*shape, bits=20) % min(4 << grid.mantissa, grid.finite - 1))


def subnormal(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Subnormal codes, but for every 16th."""
    grid = GRIDS[name]
    small = draw.integers(*shape, bits=20) % (1 << grid.mantissa)
    size = np.where(draw.integers(*shape, bits=4) == 0, 1 << grid.mantissa, small)
    return np.asarray(size + (draw.integers(*shape, bits=1) * (size > 0) << (grid.bits - 1)))


def narrow(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers of four binades around 1, so that exact sums need few bits."""
    grid = GRIDS[name]
    middle = codes_of(np.asarray(1.0), name)
    size = middle + draw.integers(*shape, bits=20) % (4 << grid.mantissa) - (2 << grid.mantissa)
    return size + (draw.integers(*shape, bits=1) << (grid.bits - 1))


def whole(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Small whole numbers, -4 … 4, one in four 0."""
    return codes_of(np.clip(draw.integers(*shape, bits=20) % 12 - 6, -4, 4) * 1.0, name)


def holed(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Zeros in 32 of each 160 columns, and in every fifth row."""
    codes = any_codes(draw, name, *shape)
    codes[..., np.arange(shape[-1]) % 160 < 32] = 0  # noqa: PLR2004
    codes[..., ::5, :] = 0
    return codes


def apart(draw: Draw, shape: tuple[int, int]) -> F32:
    """Every block has a scale of its own, 2**(3 i mod 11) with 24 digits: whoever takes another's is wrong."""
    steps = (3 * np.arange(shape[0] * shape[1]) % 11).reshape(shape) - 5
    return scales(draw, shape, 0, 0) * np.exp2(steps).astype(np.float32)


def of_two(draw: Draw, shape: tuple[int, int]) -> F32:
    """Powers of two, 1/4 … 4."""
    return powers(draw, shape, -2, 2)


def ones(_: Draw, shape: tuple[int, int]) -> F32:
    """No scale."""
    return np.ones(shape, np.float32)


def by_row(draw: Draw, shape: tuple[int, int]) -> F32:
    """One scale a row of blocks, the same along C."""
    return np.repeat(apart(draw, (shape[0], 1)), shape[1], axis=1)


class Made(NamedTuple):
    """How the numbers of a product are made."""

    codes: Codes = ordinary
    scale: Scales = apart
    c: str = ""  # what was there before: nothing, `any` numbers, or `whole` ones


def operand(draw: Draw, cfg: Config, name: str, size: tuple[int, ...], made: Made) -> Tensors:
    """Codes (…, R, C) of one operand and their scales."""
    fmt = cfg[f"{name}_format"]
    *stack, rows, columns = size
    grid = grid_of((rows, columns), cfg[f"{name}_block"])
    scale = np.stack([made.scale(draw, grid) for _ in range(int(np.prod(stack)))]).reshape(*stack, *grid)
    kept = bytes_of(scale) if cfg["scale_format"] == "ue8m0" else scale
    return {f"{name}_codes": stored(made.codes(draw, fmt, size), fmt), f"{name}_scale": kept}


def product(draw: Draw, cfg: Config, size: tuple[int, int, int], made: Made) -> Tensors:
    """Both operands, a (M, C) and b (N, C), and c (M, N) if there is one."""
    m, n, width = size
    t = operand(draw, cfg, "a", (m, width), made) | operand(draw, cfg, "b", (n, width), made)
    if made.c:
        t["c"] = draw.dyadic(m, n, bits=6) if made.c == "whole" else draw.normal(m, n, shift=-12) * np.float32(1.0472)
    return t


def one(slug: str, clauses: tuple[str, ...], size: tuple[int, int, int], **how: Any) -> Case:  # noqa: ANN401
    """One case; `how` holds codes, scales, c, fields of Case and of the config."""
    fields: Config = {"profiles": NEAR, **{name: how.pop(name) for name in FIELDS if name in how}}
    made = Made(**{name: how.pop(name) for name in Made._fields if name in how})
    name, cfg = f"matmul-fp8-{slug}", fp8_config(**how)

    def build() -> Tensors:
        return product(Draw(name), cfg, size, made)

    return Case(name, "matmul_fp8", cfg, build, clauses, **fields)


SIZES = {
    "ordinary": (40, 192, 576),
    "ragged": (33, 130, 192),
    "two-over": (5, 200, 130),
    "one-row": (1, 256, 384),
    "one-column": (40, 1, 256),
    "no-row": (0, 128, 256),
    "small": (7, 5, 24),
    "square": (128, 256, 256),
    "long": (8, 24, 4096),
}
HOW: dict[str, tuple[tuple[str, ...], Config]] = {
    "wgrad": (("LIN-4",), {"b_block": [1, 128]}),
    "transposed-blocks": (("LIN-4",), {"b_block": [128, 64]}),
    "columns-in-blocks": (("LIN-1",), {"a_block": [1, 32], "b_block": [1, 32], "scale_format": "ue8m0"}),
    "powers": (("FMT-6", "QNT-3"), {"scale_format": "ue8m0", "scale": of_two}),
    "accumulated": (("LIN-1",), {"c": "any"}),
    "wgrad-accumulated": (("LIN-1", "LIN-4"), {"b_block": [1, 128], "c": "any"}),
    "zeros": (("LIN-1",), {"codes": holed}),
    "subnormal": (("FMT-2",), {"codes": subnormal}),
    "promoted-32": (("LIN-2",), {"promote_every": 32}),
    "promoted-256": (("LIN-2",), {"promote_every": 256}),
    "e4m3-by-e2m1": (("FMT-5", "LIN-1"), {"b_format": "e2m1", "b_block": [1, 32]}),
    "e2m1": (("FMT-5",), {"a_format": "e2m1", "b_format": "e2m1", "a_block": [1, 32], "b_block": [1, 32]}),
    "e5m2": (("FMT-2",), {"a_format": "e5m2", "b_format": "e5m2", "codes": narrow}),
    "e5m2-by-e4m3": (("FMT-2",), {"a_format": "e5m2"}),
    "fnuz": (("FMT-2",), {"a_format": "e4m3fnuz", "b_format": "e5m2fnuz"}),
    "e5m6": (("QNT-9",), {"a_format": "e5m6"}),
}


def near() -> Iterator[Case]:
    """Profile fp8-products: promoted, or in any order; within bounds."""
    for slug, size in SIZES.items():
        yield one(slug, ("LIN-1", "ACC-2"), size)
        yield one(f"{slug}-float32", ("ACC-2",), size, accumulate="float32")
    for slug, (clauses, how) in HOW.items():
        yield one(slug, (*clauses, "ACC-2"), (24, 136, 384), **how)
    for fmt in ("e4m3", "e5m2"):
        both = {"a_format": fmt, "b_format": fmt, "codes": one_sign}
        yield one(f"one-sign-{fmt}", ("LIN-2",), (8, 24, 4096), **both)
        yield one(f"one-sign-{fmt}-float32", ("ACC-2",), (8, 24, 4096), accumulate="float32", **both)
    for manner in ("strided", "again"):
        yield one(manner, ("LIN-1", "MOE-8"), (24, 136, 384), manner=manner)
        packed: Config = {"b_format": "e2m1", "b_block": [1, 32], "scale_format": "ue8m0", "scale": of_two}
        yield one(f"{manner}-e2m1", ("FMT-5", "MOE-8"), (24, 136, 384), manner=manner, **packed)
    yield one("unpromoted", ("LIN-3",), (24, 136, 384), accumulate="float32", promote_every=0, c="any", scale=by_row)
    yield from dyadic()


def dyadic() -> Iterator[Case]:
    """Whole numbers and powers of two: every legal order gives the same bits."""
    how: Config = {"kind": "exact", "codes": whole, "scale": of_two}
    variants: dict[str, Config] = {
        "dyadic": {},
        "dyadic-float32": {"accumulate": "float32"},
        "dyadic-powers": {"scale_format": "ue8m0"},
        "dyadic-accumulated": {"c": "whole"},
        "dyadic-wgrad": {"c": "whole", "b_block": [1, 128]},
        "dyadic-e2m1": {"b_format": "e2m1", "b_block": [1, 32]},
        "dyadic-e5m2": {"a_format": "e5m2", "b_format": "e5m2"},
        "dyadic-fnuz": {"a_format": "e4m3fnuz", "b_format": "e4m3fnuz"},
    }
    for slug, more in variants.items():
        yield one(slug, ("LIN-1", "ACC-2"), (40, 136, 576), **{**how, **more})
    yield one("fingerprint", ("ACC-5",), (16, 16, 1024), **{**how, "codes": fingerprint, "scale": ones})


def fingerprint(_: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """ACC-5: 128, and then 1 throughout."""
    return codes_of(np.where(np.arange(shape[-1]) == 0, 128.0, 1.0) * np.ones(shape), name)


def exact() -> Iterator[Case]:
    """Profile fp8-exact: exact stretches, and everything after them in LIN-1's order, bit for bit."""
    how: Config = {"accumulate": "exact", "kind": "exact", "profiles": EXACT}
    for slug, size in SIZES.items():
        yield one(f"exact-{slug}", ("ACC-1", "LIN-1"), size, **how)
    for slug, (clauses, more) in HOW.items():
        yield one(f"exact-{slug}", (*clauses, "ACC-1", "LIN-1"), (24, 136, 384), **{**how, **more, "codes": fits(more)})
    yield one("exact-one-sign", ("ACC-1", "LIN-2"), (8, 24, 4096), codes=one_sign, **how)
    yield one("exact-unpromoted", ("ACC-1", "LIN-3"), (24, 136, 384), promote_every=0, scale=by_row, **how)
    began: Config = {**how, "promote_every": 0, "scale": by_row, "c": "any"}
    yield one("exact-unpromoted-accumulated", ("ACC-1", "LIN-3"), (24, 136, 384), **began)
    yield one("exact-fingerprint", ("ACC-5",), (16, 16, 1024), **{**how, "codes": fingerprint, "scale": ones})


def fits(more: Config) -> Codes:
    """Codes whose exact sums float64 holds: wide formats have few binades of them (ACC-1)."""
    wide = {more.get("a_format"), more.get("b_format")} & {"e5m2", "e5m2fnuz", "e5m6"}
    return narrow if wide else more.get("codes", ordinary)


def cases() -> Iterator[Case]:
    """Every product of two matrices."""
    yield from near()
    yield from exact()
