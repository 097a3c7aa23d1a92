"""The layer in FP8, forward and backward: every code beyond doubt where it can be, and exact sums where all are.

Ordinary numbers have 24 digits, so that few lie where rounding could turn a code; what remains is in the bounds.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec_conformance.cases.grids import GRIDS, bytes_of, grid_of, powers, scales, stored, whole_codes
from moespec_conformance.cases.inputs import Draw, Tensor, fp8_config, mixed, one_entry, shift_of, table
from moespec_conformance.cases.products import codes_of
from moespec_conformance.cases.sure import sure_tokens
from moespec_conformance.protocol import Case, Tensors

Config = dict[str, Any]
Change = Callable[[Draw, Tensors, Config], None]
FORWARD = ("MFP-1", "MFP-2", "MFP-3")
BACKWARD = ("MFP-1", "MFP-4", "MFP-5", "MFP-6", "MFP-7")
FIELDS = ("kind", "manner", "quick", "note")
DIGITS = np.float32(1.0472)  # makes 24 digits of 18
V4: Config = {
    "recipe": "deepseek-v4-fp4",
    "scoring_func": "sqrtsoftplus",
    "swiglu_limit": 10.0,
    "weight_position": "before_down",
    "routed_scaling_factor": 1.5,
}
SMALL: Config = {"hidden_size": 128, "moe_intermediate_size": 128, "n_routed_experts": 4, "num_experts_per_tok": 2}
ALONE: Config = {"n_group": 1, "topk_group": 1}
MX: Config = {"a_block": [1, 32], "b_block": [1, 32], "scale_format": "ue8m0"}


def shapes(cfg: MoEConfig) -> dict[str, tuple[int, ...]]:
    """The experts' matrices."""
    e, f, h, s = cfg.n_routed_experts, cfg.moe_intermediate_size, cfg.hidden_size, cfg.shared_width
    routed = {"gate_proj": (e, f, h), "up_proj": (e, f, h), "down_proj": (e, h, f)}
    shared = {"shared_gate_proj": (s, h), "shared_up_proj": (s, h), "shared_down_proj": (h, s)} if s else {}
    return {n: shape for n, shape in {**routed, **shared}.items() if cfg.gated or not n.endswith("gate_proj")}


def matrix(draw: Draw, cfg: Config, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Codes and scales of one matrix, or of a stack, such that its products are of about the size of what enters."""
    fmt, block = cfg["b_format"], cfg["b_block"]
    *stack, rows, columns = shape
    grid = grid_of((rows, columns), block)
    size = -shift_of(columns) - int(np.log2(GRIDS[fmt].top)) - 1
    make = powers if cfg["scale_format"] == "ue8m0" or fmt == "e2m1" else scales
    each = [make(draw, grid, size, size + 2) for _ in range(int(np.prod(stack)))]
    scale = np.stack(each).reshape(*stack, *grid)
    kept = bytes_of(scale) if cfg["scale_format"] == "ue8m0" else scale
    return stored(whole_codes(draw, fmt, *shape), fmt), kept


def tensors_of(name: str, cfg: Config, tokens: int, change: Change | None) -> Tensors:
    """Ordinary inputs, changed."""
    draw, made = Draw(name), MoEConfig.from_dict(cfg)
    hidden = made.hidden_size
    t = {"x": draw.normal(tokens, hidden) * DIGITS, "dy": draw.normal(tokens, hidden) * DIGITS}
    t["gate_weight"] = draw.normal(made.n_routed_experts, hidden, shift=shift_of(hidden))
    if made.selection_bias:
        t["bias"] = draw.normal(made.n_routed_experts, shift=4)
    for matrix_name, shape in shapes(made).items():
        t[f"{matrix_name}_codes"], t[f"{matrix_name}_scale"] = matrix(draw, cfg, shape)
    t |= table(draw, made, tokens)
    if change:
        change(Draw(name + "/change"), t, cfg)
    return t


def one(op: str, slug: str, clauses: tuple[str, ...], change: Change | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case; `how` holds tokens, given ids, masked tokens, config fields, and fields of Case."""
    tokens, ids, masked = how.pop("tokens", 32), how.pop("ids", None), how.pop("masked", False)
    fields: Config = {"profiles": ("fp8-layer",), **{name: how.pop(name) for name in FIELDS if name in how}}
    name, cfg = f"{op.replace('_', '-')}-{slug}", fp8_config(**{**SMALL, **ALONE, **how})
    backward = op.endswith("backward")

    def build() -> Tensors:
        t = tensors_of(f"moe-fp8-{slug}", cfg, 2 * tokens, change)
        if ids is None:
            t, topk_idx = sure_tokens(cfg, t, tokens, "gate_weight", "float32")
        else:
            topk_idx = ids(Draw(f"moe-fp8-{slug}/ids")).astype(np.int64)
        t |= {key: t[key][: len(topk_idx)] for key in ("x", "dy", "token_ids") if key in t}
        if masked and not backward:
            t["mask"] = np.arange(len(topk_idx)) % 3 != 1
        elif masked:
            topk_idx = np.where((np.arange(len(topk_idx)) % 3 != 1)[:, None], topk_idx, -1)
        unused = () if backward else ("dy",)
        given = {"topk_idx": topk_idx} if backward or ids is not None else {}
        return {**{key: tensor for key, tensor in t.items() if key not in unused}, **given}

    return Case(name, op, cfg, build, clauses, **fields)


def magnitudes(draw: Draw, t: Tensors, _: Config) -> None:
    """Every token has a size of its own: one scale for all of them would lose the small ones."""
    for name in ("x", "dy"):
        t[name] = mixed(draw, t[name], -9, 1)


def channels(draw: Draw, t: Tensors, _: Config) -> None:
    """Every channel has a size of its own, which blocks along tokens see and blocks along channels do not."""
    for name in ("x", "dy"):
        t[name] = mixed(draw, t[name].T.copy(), -6, 1).T.copy()


def outliers(draw: Draw, t: Tensors, _: Config) -> None:
    """Every token has one large number, as activations do."""
    column = draw.integers(len(t["x"]), 1, bits=20) % t["x"].shape[1]
    np.put_along_axis(t["x"], column, np.take_along_axis(t["x"], column, axis=1) * np.float32(64), axis=1)


def zero_tokens(_: Draw, t: Tensors, __: Config) -> None:
    """Some tokens are zeros: their blocks have the floor's scale, and give zeros."""
    t["x"][::5] = 0


def zero_gradients(_: Draw, t: Tensors, __: Config) -> None:
    """Some tokens have no gradient."""
    t["dy"][::5] = 0


def tiny(_: Draw, t: Tensors, __: Config) -> None:
    """Largest magnitudes below the floor of 1e-4: codes are smaller than they might be."""
    t["dy"] *= np.float32(2.0**-18)


def favourite(_: Draw, t: Tensors, __: Config) -> None:
    """The bias sends every token to expert 1, and nobody to expert 3."""
    t["bias"][:] = 0
    t["bias"][1], t["bias"][3] = 3, -3


def steep(_: Draw, t: Tensors, __: Config) -> None:
    """Gates and ups beyond the limit of 10."""
    t["x"] *= np.float32(8)


def exact(draw: Draw, t: Tensors, cfg: Config) -> None:
    """Exact in any order, if scales are powers of two.

    A token is one 1, its router is certain, gates are +128 or -128, ups undo their size, and downs are small.
    """
    (tokens, hidden), experts = t["x"].shape, cfg["n_routed_experts"]
    t["x"] = one_entry(draw.integers(tokens, 1, bits=20) % hidden, hidden)
    t["dy"] = one_entry(draw.ids(tokens, 1, hidden), hidden, 2)
    favoured = np.zeros((experts, hidden), np.bool)
    np.put_along_axis(favoured, draw.ids(hidden, 2, experts).T, values=True, axis=0)
    t["gate_weight"], t["bias"] = np.where(favoured, np.float32(128), np.float32(-128)), np.zeros(experts, np.float32)
    for name, shape in shapes(MoEConfig.from_dict(cfg)).items():
        sign = 1.0 - 2 * draw.integers(*shape, bits=1)
        size = np.exp2(-7.0 - draw.integers(*shape, bits=1)) if name.endswith("up_proj") else np.full(shape, 128.0)
        if name.endswith("down_proj"):
            size = np.where(draw.integers(*shape, bits=2) == 0, 1.0 + draw.integers(*shape, bits=1), 0.0)
        put(t, name, sign * size, cfg)


def certain(draw: Draw, t: Tensors, cfg: Config) -> None:
    """As `exact`, but with an open router, and gradients of 24 digits: what outputs weigh is nearly exact, too."""
    kept = t["gate_weight"], t["bias"], t["dy"][:, :1]
    exact(draw, t, cfg)
    t["gate_weight"], t["bias"], t["dy"] = *kept[:2], kept[2] * t["dy"]


def put(t: Tensors, name: str, values: Tensor, cfg: Config) -> None:
    """A matrix of dyadic numbers, its scales half of the largest."""
    unit = np.abs(values).max() / 2
    scale = np.full(t[f"{name}_scale"].shape, unit, np.float32)
    t[f"{name}_codes"] = stored(codes_of(values / unit, cfg["b_format"]), cfg["b_format"])
    t[f"{name}_scale"] = bytes_of(scale) if cfg["scale_format"] == "ue8m0" else scale


def few_holes(draw: Draw) -> Tensor:
    """One slot in five is empty; some tokens go nowhere."""
    ids = draw.ids(40, 2, 4)
    ids[draw.integers(40, 2, bits=16) % 5 == 0] = -1
    ids[::7] = -1
    return ids


def crowd_of(draw: Draw) -> Tensor:
    """Over 128 tokens on one expert: blocks along tokens begin anew."""
    return np.stack([np.full(150, 1), 2 * draw.integers(150, bits=1)], axis=1)


def all_to_one(_: Draw) -> Tensor:
    """Every token goes to expert 2, and to no other."""
    return np.stack([np.full(40, 2), np.full(40, -1)], axis=1)


def cases() -> Iterator[Case]:
    """The same families forward and backward."""
    for op, clauses in (("moe_fp8", FORWARD), ("moe_fp8_backward", BACKWARD)):
        yield from recipes(op, clauses)
        yield from families(op, clauses)
        yield from sums(op, clauses)
    yield one("moe_fp8", "wide", FORWARD, hidden_size=384, moe_intermediate_size=256, tokens=40)


def recipes(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """How codes are made."""
    yield one(op, "ordinary", clauses)
    yield one(op, "any-order", clauses, accumulate="float32")
    yield one(op, "v3.1", clauses, recipe="deepseek-v3.1", scale_format="ue8m0")
    yield one(op, "transformer-engine", clauses, recipe="transformer-engine")
    yield one(op, "transformer-engine-float32", clauses, recipe="transformer-engine", scale_format="float32")
    for recipe in ("deepgemm", "tilekernels", "torchao"):
        yield one(op, recipe, clauses, recipe=recipe)
    yield one(op, "mx-rceil", clauses, recipe="mx-rceil", **MX)
    yield one(op, "v4", (*clauses, "MFP-8"), **V4)
    yield one(op, "v4-clamped", (*clauses, "MFP-8", "EXP-5"), steep, **V4)
    yield one(op, "v4-hash", (*clauses, "MFP-8", "GATE-12"), **V4, hash_routing=True, selection_bias=False)
    yield one(op, "e4m3fnuz", ("FMT-2", *clauses), a_format="e4m3fnuz", b_format="e4m3fnuz")
    yield one(op, "e5m2", ("FMT-2", *clauses), a_format="e5m2")


def families(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """Sizes, weights, routings."""
    yield one(op, "before-down", ("EXP-6", *clauses), weight_position="before_down")
    yield one(op, "magnitudes", clauses, magnitudes)
    yield one(op, "channels", clauses, channels)
    yield one(op, "outliers", clauses, outliers)
    yield one(op, "zero-tokens", ("QNT-2", *clauses), zero_tokens)
    yield one(op, "zero-gradients", ("QNT-2", *clauses), zero_gradients)
    yield one(op, "tiny-gradients", ("QNT-2", *clauses), tiny)
    yield one(op, "favourite", clauses, favourite)
    yield one(op, "one-expert", clauses, ids=all_to_one)
    yield one(op, "holes", ("GATE-9", *clauses), ids=few_holes)
    yield one(op, "mask", ("GATE-13", *clauses), masked=True)
    yield one(op, "no-token", clauses, tokens=0)
    yield one(op, "one-token", clauses, tokens=1)
    yield one(op, "no-shared", ("MOE-3", *clauses), n_shared_experts=0)
    yield one(op, "two-shared", ("MOE-3", *clauses), n_shared_experts=2)
    yield one(op, "ungated", ("EXP-7", *clauses), gated=False, hidden_act="relu")
    yield one(op, "odd-sizes", ("QNT-1", *clauses), hidden_size=192, moe_intermediate_size=160, tokens=19)
    yield one(op, "crowd", clauses, ids=crowd_of, tokens=150)
    for manner in ("strided", "again"):
        yield one(op, manner, ("MOE-8", *clauses), manner=manner)


def sums(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """Exact through the whole layer, where scales are powers of two."""
    how: Config = {"kind": "exact", "routed_scaling_factor": 2.0, "scale_format": "ue8m0"}
    for recipe in ("deepseek-v3", "transformer-engine", "deepgemm", "tilekernels", "torchao"):
        yield one(op, f"exact-{recipe}", clauses, exact, recipe=recipe, **how)
    yield one(op, "exact-any-order", clauses, exact, accumulate="float32", **how)
    yield one(op, "exact-before-down", ("EXP-6", *clauses), exact, weight_position="before_down", **how)
    for recipe in ("mx-floor", "mx-rceil"):
        yield one(op, f"exact-{recipe}", clauses, exact, recipe=recipe, **{**how, **MX})
    yield one(op, "certain", clauses, certain, **{**how, "kind": "bounded", "tokens": 10})
    v4: Config = {"recipe": "deepseek-v4-fp4", "weight_position": "before_down"}
    yield one(op, "exact-v4", ("MFP-8", *clauses), exact, **v4, **how)
