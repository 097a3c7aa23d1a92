"""Section 21: the layer with experts in small formats, one expert's rows at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

from moespec_conformance.adapters.plain.blocks import (
    Matrix,
    check_formats,
    lifted,
    matrix,
    quantised,
    transpose,
    values,
)
from moespec_conformance.adapters.plain.capacity import capacity_backward
from moespec_conformance.adapters.plain.config import Config, require
from moespec_conformance.adapters.plain.expert import limited
from moespec_conformance.adapters.plain.gate import gate_backward
from moespec_conformance.adapters.plain.layer import MATRICES, route
from moespec_conformance.adapters.plain.maths import ACTIVATIONS
from moespec_conformance.adapters.plain.products import product, prove, rows_of
from moespec_conformance.adapters.plain.tensors import Floats, Tensors

Array = npt.NDArray[Any]
Expert = dict[str, Matrix]
FROM_CODES = ("deepseek-v3", "deepseek-v3.1", "deepgemm", "tilekernels", "deepseek-v4-fp4")  # MFP-6
TILE = (128, 128)


def weights_of(c: Config, codes: Array, grid: Array) -> Matrix:
    """One matrix, lifted where its format is E2M1 (MFP-8)."""
    if c["b_format"] != "e2m1":
        return matrix(codes, grid, c["b_format"], c["b_block"])
    wide_grid, wide = lifted(codes, grid, c["b_block"], TILE)
    return matrix(wide, wide_grid, "e4m3", TILE)


def experts(c: Config, t: Tensors) -> list[tuple[str, int | None, Expert]]:
    """Each expert's prefix and number, and its matrices; the shared one comes last, and has no number."""
    names = [n for n in MATRICES if f"{n}_codes" in t]
    many: list[tuple[str, int | None, Expert]] = [
        ("", e, {n: weights_of(c, t[f"{n}_codes"][e], t[f"{n}_scale"][e]) for n in names})
        for e in range(c["n_routed_experts"])
    ]
    if c["n_shared_experts"]:
        own = {n: weights_of(c, t[f"shared_{n}_codes"], t[f"shared_{n}_scale"]) for n in names}
        many.append(("shared_", None, own))
    return many


def check_layer(c: Config) -> None:
    """Check LIN-3, MFP-1, MFP-2 and MFP-5."""
    check_formats(c)
    narrow = {c["a_format"], c["b_format"]} <= {"e4m3", "e4m3fnuz", "e2m1"}
    require(narrow or c["accumulate"] != "exact", "MFP-1: exact sums of these formats may not fit")
    require(c["a_block"][0] == 1, "MFP-2: rows of an expert share a scale with others")
    if c["accumulate"] != "float32":
        require(c["promote_every"] > 0, "LIN-3: one accumulator over scales that differ")
    height = TILE[0] if c["b_format"] == "e2m1" else c["b_block"][0]
    sizes = c["a_block"][1], height, *([c["promote_every"]] if c["promote_every"] else [])
    require(all(size % min(sizes) == 0 for size in sizes), "MFP-5: blocks that do not fit turned around")


def forced(c: Config) -> bool:
    """MFP-2: whether the scales of x and dy are powers of two anyway."""
    return bool(c["recipe"] == "deepseek-v3")


def multiplied(c: Config, a: Matrix, b: Matrix) -> Floats:
    """LIN-1: one product of the layer."""
    prove(c, a, b)
    return product(c, a, b)


def halves(c: Config, x: Matrix, m: Expert) -> tuple[Floats, Floats]:
    """MFP-3, EXP-7: what the activation takes, and what it is multiplied by."""
    up = multiplied(c, x, m["up_proj"])
    return (multiplied(c, x, m["gate_proj"]), up) if c["gated"] else (up, np.ones_like(up))


def activated(c: Config, g: Floats, up: Floats) -> Floats:
    """EXP-2, EXP-5."""
    g, up = limited(c, g, up)
    return ACTIVATIONS[c["hidden_act"]][0](g) * up


def run(c: Config, x: Matrix, m: Expert, weight: Floats) -> Floats:
    """MFP-3: rows through an expert, with their weights (N,1) in h if that is their place."""
    h = activated(c, *halves(c, x, m))
    if c["weight_position"] == "before_down":
        h = weight * h
    return multiplied(c, quantised(c, h), m["down_proj"])


def kept(c: Config, x: Matrix, m: Expert) -> tuple[Floats, Floats]:
    """MFP-4: gate and up as the backward has them."""
    g, up = halves(c, x, m)
    g = values(quantised(c, g))
    return g, values(quantised(c, up)) if c["gated"] else up


def slopes(c: Config, raw: tuple[Floats, Floats], dh: Floats) -> list[Floats]:
    """EXP-2, EXP-5 upward: the gradients of gate and up, or of up alone where there is no gate."""
    g, up = limited(c, *raw)
    act, slope = ACTIVATIONS[c["hidden_act"]]
    dgate, dup, limit = dh * up * slope(g), dh * act(g), c["swiglu_limit"]
    if limit is not None:
        dgate, dup = np.where(raw[0] > limit, 0, dgate), np.where(np.abs(raw[1]) > limit, 0, dup)
    return [dgate, dup] if c["gated"] else [dgate]


def along(c: Config, codes: Matrix, original: Floats, *, powers: bool = False) -> Matrix:
    """MFP-6: channels by tokens, from the codes along the channels or from what these were made of."""
    x = values(codes) if c["recipe"] in FROM_CODES else original
    return quantised(c, x.T, powers=powers)


def run_backward(
    c: Config, x: tuple[Matrix, Floats], m: Expert, out: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Tensors]:
    """MFP-4 to MFP-6: dx of the rows, the gradients of their weights, and those of the matrices."""
    (x_codes, x_values), (dy, weight), before = x, out, c["weight_position"] == "before_down"
    raw = kept(c, x_codes, m)
    h, dy_in = activated(c, *raw), dy if before else weight * dy
    dy_codes = quantised(c, dy_in, powers=forced(c))
    dh = multiplied(c, dy_codes, transpose(m["down_proj"]))
    dweight = np.sum(dh * h if before else dy * run(c, x_codes, m, weight), -1)
    h_in, dh_in = (weight * h, weight * dh) if before else (h, dh)
    dhalves = slopes(c, raw, dh_in)
    dhalf_codes = [quantised(c, d) for d in dhalves]
    names = ["gate_proj", "up_proj"] if c["gated"] else ["up_proj"]
    dx = np.zeros_like(x_values)
    x_along = along(c, x_codes, x_values, powers=forced(c))
    grads: Tensors = {}
    for name, codes, original in zip(names, dhalf_codes, dhalves, strict=True):
        dx = dx + multiplied(c, codes, transpose(m[name]))
        grads[f"d{name}"] = multiplied(c, along(c, codes, original), x_along)
    dy_along = along(c, dy_codes, dy_in, powers=forced(c))
    grads["ddown_proj"] = multiplied(c, dy_along, quantised(c, h_in.T))
    return dx, dweight, grads


def meet(ids: Array, e: int | None) -> tuple[list[int], list[int]]:
    """DSP-1: the tokens of an expert, and in which slot; the shared one has all."""
    if e is None:
        return [*range(len(ids))], []
    tokens, slots = np.nonzero(ids == e)
    return tokens.tolist(), slots.tolist()


def row_weights(weights: Floats, tokens: list[int], slots: list[int]) -> Floats:
    """Give each row its weight, 1 on the shared expert (MOE-1)."""
    return weights[tokens, slots][:, None] if slots else np.ones((len(tokens), 1), weights.dtype)


def moe_fp8(c: Config, t: Tensors) -> Tensors:
    """MFP-1 to MFP-3."""
    check_layer(c)
    x, (routing, left) = t["x"], route(c, t)
    codes, sums = quantised(c, x, powers=forced(c)), {"": np.zeros_like(x), "shared_": np.zeros_like(x)}
    with np.errstate(all="ignore"):
        for kind, e, m in experts(c, t):
            tokens, slots = meet(left["topk_idx"], e)
            weight = row_weights(left["topk_weight"], tokens, slots)
            y = run(c, rows_of(codes, tokens), m, weight)
            sums[kind][tokens] += y if c["weight_position"] == "before_down" else weight * y
    trace = {n: routing[n] for n in ("topk_idx", "topk_weight")}
    return {**trace, "routed": sums[""], "shared": sums["shared_"], "y": sums[""] + sums["shared_"]}


def empty_grads(t: Tensors) -> Tensors:
    """MOE-4: the gradients of the matrices before any row was seen."""
    names = [n.removesuffix("_codes") for n in t if n.endswith("_proj_codes")]
    return {"d" + n: np.zeros(t[f"{n}_codes"].shape, np.float32) for n in names}


def moe_fp8_backward(c: Config, t: Tensors) -> Tensors:
    """MFP-4 to MFP-8, and back through the gate as `moe` does."""
    check_layer(c)
    x, dy, (routing, left) = t["x"], t["dy"], route(c, t)
    ids, weights, codes = left["topk_idx"], left["topk_weight"], quantised(c, t["x"], powers=forced(c))
    dx, dweights, grads = np.zeros_like(x), np.zeros_like(weights), empty_grads(t)
    with np.errstate(all="ignore"):
        for kind, e, m in experts(c, t):
            tokens, slots = meet(ids, e)
            if not tokens:
                continue
            out = dy[tokens], row_weights(weights, tokens, slots)
            dx_rows, dweight, own = run_backward(c, (rows_of(codes, tokens), x[tokens]), m, out)
            dx[tokens] += dx_rows
            for name, grad in own.items():
                whole = grads[f"d{kind}{name[1:]}"]
                whole[... if e is None else e] = grad
            if slots:
                dweights[tokens, slots] = dweight
    back: Tensors = {"dtopk_weight": dweights}
    if c["drop_policy"]:
        back = capacity_backward(c, {**t, **routing, **back})
    through_gate = gate_backward(c, {**t, "weight": t["gate_weight"], **back})
    trained: Tensors = {n: through_gate[n] for n in ("dnoise_weight", "dgroup_weight") if n in through_gate}
    return {"dx": through_gate["dx"] + dx, "dgate_weight": through_gate["dweight"], **trained, **grads}
