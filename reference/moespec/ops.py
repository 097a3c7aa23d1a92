"""The ops: checked tensors by name in, tensors by name out. The maths stands in the files of lower floors.

Every op takes a MoEConfig and named arrays of one float dtype (float32 or float64), and gives a dict of arrays
of that dtype; shapes are in `signatures.OPS`. Bad input raises a ValueError that begins with the clause it breaks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from moespec.activation import opened
from moespec.arrays import Float, Int
from moespec.checks import check
from moespec.config import MoEConfig
from moespec.dispatch import Rows, combine_forward
from moespec.expert import (
    ExpertCache,
    ExpertWeights,
    expert_backward,
    expert_forward,
    weighted_backward,
    weighted_forward,
)
from moespec.moe import MoEWeights, RoutedCache, layer_backward, layer_forward, layer_weights, routed_forward, shared_of
from moespec.ops_balance import BALANCE_OPS
from moespec.ops_fp8 import FP8_OPS
from moespec.ops_gate import gate, gate_backward
from moespec.ops_layout import LAYOUT_OPS
from moespec.ops_moe_fp8 import MOE_FP8_OPS
from moespec.ops_norm import NORM_OPS
from moespec.ops_ranks import RANKS_OPS
from moespec.ops_router import mixture_loss, mixture_loss_backward
from moespec.ops_routing import chance, routed_backward_by, routed_by, split

Tensors = dict[str, Any]


def expert(cfg: MoEConfig, *, x: Float, row_weight: Float | None = None, **given: Float) -> Tensors:
    """One expert on its rows (N, H): y (N, H), and h (N, F), what entered down_proj (EXP-6)."""
    w = ExpertWeights(**ungated(cfg, x, given))
    if row_weight is None:
        y, cache = expert_forward(x, w, cfg)
        return {**halves(cache), "h": opened(cache.gate, cache.up, cfg), "y": y}
    y, weighted = weighted_forward(x, row_weight, w, cfg)
    return {**halves(weighted.expert), "h": row_weight[:, None] * weighted.plain, "y": y}


def halves(cache: ExpertCache) -> Tensors:
    """EXP-1: what gate_proj and up_proj gave (N, F)."""
    return {"gate_out": cache.gate, "up_out": cache.up}


def expert_backward_op(
    cfg: MoEConfig, *, x: Float, dy: Float, row_weight: Float | None = None, **given: Float
) -> Tensors:
    """Gradients of an expert's rows and weights, and of the rows' weights where they enter before down_proj."""
    w = ExpertWeights(**ungated(cfg, x, given))
    dw = ExpertWeights(*map(np.zeros_like, w))
    named = {"d" + name: dw._asdict()[name] for name in given}
    if row_weight is None:
        cache = expert_forward(x, w, cfg)[1]
        return {**halves(cache), "dx": expert_backward(dy, cache, w, dw, cfg), **named}
    weighted = weighted_forward(x, row_weight, w, cfg)[1]
    dx, drow_weight = weighted_backward(dy, weighted, w, dw, cfg)
    return {**halves(weighted.expert), "dx": dx, **named, "drow_weight": drow_weight}


def ungated(cfg: MoEConfig, x: Float, given: dict[str, Float]) -> dict[str, Float]:
    """EXP-7: an expert without a gate has a gate matrix of width zero."""
    return given if cfg.gated else {"gate_proj": np.zeros_like(x, shape=(0, x.shape[1])), **given}


def combine(  # noqa: PLR0913 - the op's tensors
    cfg: MoEConfig,
    *,
    rows: Float,
    row_token: Int,
    row_slot: Int,
    topk_weight: Float | None = None,
    topk_idx: Int | None = None,
) -> Tensors:
    """Add rows (N, H) up by token: y (T, H); times their weights, unless these are inside already (EXP-6)."""
    uncounted = np.zeros_like(row_token, shape=(cfg.n_routed_experts,))  # a sum by token asks for no counts
    if topk_idx is not None:
        topk_weight = np.ones_like(rows, shape=topk_idx.shape)
    assert topk_weight is not None
    return {"y": combine_forward(rows, Rows(row_token, row_slot, uncounted), topk_weight)}


def moe(cfg: MoEConfig, *, x: Float, **given: Any) -> Tensors:  # noqa: ANN401 - arrays
    """The layer on x (T, H), part by part: y (T, H), and its routing and parts as traces."""
    routing, weights = split(given)
    w, noise = layer_weights(cfg, x, weights), chance(cfg, routing)
    chosen, (sent_idx, sent_weight, _) = routed_by(cfg, noise, x=x, weight=w.gate_weight, **routing)
    routed, cache = routed_forward(x, sent_idx, sent_weight, w, cfg)
    shared, _ = expert_forward(x, shared_of(w), cfg)
    return {**chosen, **passed(cache, cfg), "routed": routed, "shared": shared, "y": routed + shared}  # MOE-1


def passed(cache: RoutedCache, cfg: MoEConfig) -> Tensors:
    """What passed through the routed experts: rows (N, H), and what each made of them, by expert, then token."""
    rows, gate, up = (np.concatenate(each) for each in zip(*(c.expert for c in cache.experts), strict=True))
    h = opened(gate, up, cfg)
    if cfg.weight_position == "before_down":
        h = np.concatenate([c.row_weight for c in cache.experts])[:, None] * h
    return {"rows": rows, "gate_out": gate, "up_out": up, "h": h}


def moe_backward_op(cfg: MoEConfig, *, x: Float, dy: Float, **given: Any) -> Tensors:  # noqa: ANN401 - arrays
    """Gradients of x and of every trained tensor, for given ids."""
    routing, weights = split(given)
    w, noise = layer_weights(cfg, x, weights), chance(cfg, routing)
    dw = MoEWeights(*map(np.zeros_like, w))
    _, (sent_idx, sent_weight, dropped) = routed_by(cfg, noise, x=x, weight=w.gate_weight, **routing)
    dx_routed, dx_shared, d = layer_backward(dy, layer_forward(x, sent_idx, sent_weight, w, cfg)[1], w, dw, cfg)
    through = routed_backward_by(cfg, d, dropped, x=x, weight=w.gate_weight, **routing)
    named = {"d" + name: dw._asdict()[name] for name in weights}
    named["dgate_weight"] = through.pop("dweight")
    return {**named, **through, "dtopk_weight": d, "dx": through["dx"] + dx_routed + dx_shared}  # MOE-5


RUN: dict[str, Callable[..., Tensors]] = {
    "gate": gate,
    "gate_backward": gate_backward,
    "expert": expert,
    "expert_backward": expert_backward_op,
    "combine": combine,
    "moe": moe,
    "moe_backward": moe_backward_op,
    "mixture_loss": mixture_loss,
    "mixture_loss_backward": mixture_loss_backward,
    **LAYOUT_OPS,
    **RANKS_OPS,
    **NORM_OPS,
    **BALANCE_OPS,
    **FP8_OPS,
    **MOE_FP8_OPS,
}


def run(op: str, cfg: MoEConfig, **tensors: Any) -> Tensors:  # noqa: ANN401 - any array library's
    """Check the tensors, then compute the op."""
    check(op, cfg, tensors)
    with np.errstate(over="ignore"):  # EXP-2: exp(-gate) may overflow, and nothing is lost
        return RUN[op](cfg, **tensors)
