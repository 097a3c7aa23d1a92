"""The layer: gate, routed experts, shared expert (SPEC: MOE).

`moe`, `moe_forward` and `moe_given` route by DeepSeek's gate. Other routers, tables, masks and capacities stand before
`layer_forward`; the op `moe` puts them there.
"""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.dispatch import Rows, rows_by_expert, segments
from moespec.expert import (
    ExpertCache,
    ExpertWeights,
    WeightedCache,
    expert_backward,
    expert_forward,
    weighted,
    weighted_backward,
    weighted_forward,
)
from moespec.gate import GateCache, gate_backward, gate_forward, gate_given


class MoEWeights(NamedTuple):
    """All trained tensors of the layer. Their gradients have the same form. Without shared experts SF and SA are 0."""

    gate_weight: Float  # (E, H)
    gate_proj: Float  # (E, A, H)
    up_proj: Float  # (E, F, H)
    down_proj: Float  # (E, H, F)
    shared_gate_proj: Float  # (SA, H)
    shared_up_proj: Float  # (SF, H)
    shared_down_proj: Float  # (H, SF)


class RoutedCache(NamedTuple):
    """What routed_backward needs: rows, the shape of the routing, and each expert's cache in order of ids."""

    topk_weight: Float  # (T, K)
    rows: Rows
    experts: list[WeightedCache]


class LayerCache(NamedTuple):
    """What layer_backward needs of layer_forward."""

    routed: RoutedCache
    shared: ExpertCache


class MoECache(NamedTuple):
    """What moe_backward needs of moe_forward."""

    gate: GateCache
    layer: LayerCache


def expert_of(weights: MoEWeights, e: int) -> ExpertWeights:
    """Views of routed expert e's matrices."""
    return ExpertWeights(weights.gate_proj[e], weights.up_proj[e], weights.down_proj[e])


def shared_of(weights: MoEWeights) -> ExpertWeights:
    """MOE-3: n_shared_experts experts are one expert of n_shared_experts times the width."""
    return ExpertWeights(weights.shared_gate_proj, weights.shared_up_proj, weights.shared_down_proj)


def layer_weights(cfg: MoEConfig, x: Float, given: dict[str, Float]) -> MoEWeights:
    """MOE-3, EXP-7: what a layer does not have is a matrix of width zero."""
    none, none_down = np.zeros_like(x, shape=(0, x.shape[1])), np.zeros_like(x, shape=(x.shape[1], 0))
    no_gates = np.zeros_like(x, shape=(cfg.n_routed_experts, 0, x.shape[1]))
    absent = {"shared_gate_proj": none, "shared_up_proj": none, "shared_down_proj": none_down, "gate_proj": no_gates}
    return MoEWeights(**{**absent, **given})


def routed_forward(
    x: Float,  # (T, H)
    topk_idx: Int,  # (T, K)
    topk_weight: Float,  # (T, K)
    weights: MoEWeights,
    cfg: MoEConfig,
) -> tuple[Float, RoutedCache]:
    """MOE-2: each token's experts in order of id, each output times its weight: (T, H)."""
    rows = rows_by_expert(topk_idx, weights.gate_weight.shape[0])
    routed = np.zeros_like(x)  # (T, H)
    experts: list[WeightedCache] = []
    for e, (t, k) in enumerate(segments(rows)):
        y_e, cache = weighted_forward(x[t], topk_weight[t, k], expert_of(weights, e), cfg)  # (n, H)
        routed[t] += y_e  # (n, H): a token meets an expert once, so += is safe
        experts.append(cache)
    return routed, RoutedCache(topk_weight, rows, experts)


def routed_backward(
    drouted: Float,  # (T, H)
    cache: RoutedCache,
    weights: MoEWeights,
    dweights: MoEWeights,
    cfg: MoEConfig,
) -> tuple[Float, Float]:
    """Gradients of x (T, H) and topk_weight (T, K); those of the experts go into dweights."""
    topk_weight, rows, experts = cache
    dx = np.zeros_like(drouted)  # (T, H)
    dtopk_weight = np.zeros_like(topk_weight)  # (T, K)
    for e, (t, k) in enumerate(segments(rows)):
        # MOE-2 was: routed[t] += y_e, which weighted_forward made of x[t] and topk_weight[t, k]
        w, dw = expert_of(weights, e), expert_of(dweights, e)
        dx_e, drow_weight = weighted_backward(drouted[t], experts[e], w, dw, cfg)
        dx[t] += dx_e  # (n, H)
        dtopk_weight[t, k] = drow_weight  # (n,)
    return dx, dtopk_weight


def layer_forward(
    x: Float,  # (T, H)
    topk_idx: Int,  # (T, K)
    topk_weight: Float,  # (T, K)
    weights: MoEWeights,
    cfg: MoEConfig,
) -> tuple[Float, LayerCache]:
    """The layer after its router: y (T, H)."""
    routed, routed_cache = routed_forward(x, topk_idx, topk_weight, weights, cfg)  # (T, H)

    # MOE-1: the shared expert sees every token, has no weight and no scale
    shared, shared_cache = expert_forward(x, shared_of(weights), cfg)  # (T, H)
    return routed + shared, LayerCache(routed_cache, shared_cache)


def layer_backward(
    dy: Float,  # (T, H)
    cache: LayerCache,
    weights: MoEWeights,
    dweights: MoEWeights,
    cfg: MoEConfig,
) -> tuple[Float, Float, Float]:
    """Gradients of x through the routed and the shared experts (T, H) each, and of topk_weight (T, K)."""
    # MOE-1 was: y = routed + shared
    dx_shared = expert_backward(dy, cache.shared, shared_of(weights), shared_of(dweights), cfg)  # (T, H)
    dx_routed, dtopk_weight = routed_backward(dy, cache.routed, weights, dweights, cfg)
    return dx_routed, dx_shared, dtopk_weight


def moe_forward(
    x: Float,  # (T, H)
    weights: MoEWeights,
    bias: Float,  # (E,)
    cfg: MoEConfig,
) -> tuple[Float, MoECache]:
    """The layer with its own routing: y (T, H)."""
    topk_idx, topk_weight, gate = gate_forward(x, weights.gate_weight, bias, cfg)  # (T, K)
    y, layer = layer_forward(x, topk_idx, topk_weight, weights, cfg)  # (T, H)
    return y, MoECache(gate, layer)


def moe_given(
    x: Float,  # (T, H)
    weights: MoEWeights,
    topk_idx: Int,  # (T, K)
    cfg: MoEConfig,
) -> tuple[Float, MoECache]:
    """The layer with given routing (GATE-9): y (T, H)."""
    topk_weight, gate = gate_given(x, weights.gate_weight, topk_idx, cfg)  # (T, K)
    y, layer = layer_forward(x, topk_idx, topk_weight, weights, cfg)  # (T, H)
    return y, MoECache(gate, layer)


def moe_backward(
    dy: Float,  # (T, H)
    cache: MoECache,
    weights: MoEWeights,
    dweights: MoEWeights,
    cfg: MoEConfig,
) -> Float:
    """Gradient of x (T, H); the weights' gradients are written into dweights (MOE-4)."""
    # MOE-1 was: y = layer_forward(x, *gate_forward(x))
    dx_routed, dx_shared, dtopk_weight = layer_backward(dy, cache.layer, weights, dweights, cfg)
    dx_gate, dgate_weight = gate_backward(dtopk_weight, cache.gate, cfg)
    dweights.gate_weight[...] = dgate_weight  # (E, H)

    # MOE-5: x was used three times, and its gradients are added in this order
    return dx_gate + dx_routed + dx_shared


def moe(
    x: Float,  # (T, H)
    weights: MoEWeights,
    bias: Float,  # (E,)
    cfg: MoEConfig,
) -> Float:
    """y (T, H) alone: the lines of moe_forward in place, nothing kept for a backward."""
    topk_idx, topk_weight, _ = gate_forward(x, weights.gate_weight, bias, cfg)  # (T, K)
    y = np.zeros_like(x)  # (T, H)
    for e, (t, k) in enumerate(segments(rows_by_expert(topk_idx, cfg.n_routed_experts))):
        y[t] += weighted(x[t], topk_weight[t, k], expert_of(weights, e), cfg)  # (n, H)
    if cfg.n_shared_experts:
        y += expert_forward(x, shared_of(weights), cfg)[0]  # (T, H)
    return y
