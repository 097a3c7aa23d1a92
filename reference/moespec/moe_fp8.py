"""The layer with FP8 experts, after its router: DeepSeek-V3's training recipe, and V4's FP4 experts (SPEC: MFP).

In FP8 are the operands of every expert's matrix products: forward, gradient of the input, gradient of the weights. The
router, the weights of the sum, what is added up and all gradients that leave are float32. What the report keeps in
higher precision beside the layer (embedding, head, norms, attention; master weights and their gradients) is not here;
the input of the product after attention is E5M6 in blocks of 1x128 (QNT-9), and AdamW's moments are in optim.py.
"""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.dispatch import Rows, rows_by_expert, segments
from moespec.expert_fp8 import (
    Fp8Cache,
    Fp8Expert,
    expert_backward,
    expert_forward,
    operand,
    sent_scheme,
    write_gradients,
)
from moespec.linear import expert_of, rows_of
from moespec.moe import MoEWeights
from moespec.moe import expert_of as gradients_of
from moespec.moe import shared_of as shared_gradients_of


class Fp8Weights(NamedTuple):
    """The experts' matrices as codes and scales: a stack (E, …), and the shared experts' as one; None without any."""

    routed: Fp8Expert
    shared: Fp8Expert | None


class Fp8LayerCache(NamedTuple):
    """What layer_backward needs of layer_forward; an expert without rows has no cache."""

    topk_weight: Float  # (T, K)
    rows: Rows
    experts: list[Fp8Cache | None]
    shared: Fp8Cache | None


def one_of(stack: Fp8Expert, e: int) -> Fp8Expert:
    """Routed expert e."""
    gate = None if stack.gate_proj is None else expert_of(stack.gate_proj, e)
    return Fp8Expert(gate, expert_of(stack.up_proj, e), expert_of(stack.down_proj, e))


def layer_forward(
    x: Float,  # (T, H)
    topk_idx: Int,  # (T, K)
    topk_weight: Float,  # (T, K)
    weights: Fp8Weights,
    cfg: MoEConfig,
) -> tuple[Float, Float, Fp8LayerCache]:
    """What the routed and the shared experts give (T, H) each."""
    # MFP-2: x is quantised once, before it is sent; the shared expert reads the same codes
    x_codes = operand(x, sent_scheme(cfg))  # (T, H)
    routed, rows = np.zeros_like(x), rows_by_expert(topk_idx, cfg.n_routed_experts)  # (T, H)
    experts = list[Fp8Cache | None]()
    for e, (t, k) in enumerate(segments(rows)):
        cache = None
        if t.shape[0]:
            # MOE-2: add expert e's output, weighted, to its tokens
            expert = one_of(weights.routed, e)
            y_e, cache = expert_forward(x[t], rows_of(x_codes, t), topk_weight[t, k], expert, cfg)
            routed[t] += y_e  # (n, H)
        experts.append(cache)

    # MOE-1: the shared expert has no weight
    shared_cache = None
    shared = np.zeros_like(x)  # (T, H)
    if weights.shared is not None and x.shape[0]:
        shared, shared_cache = expert_forward(x, x_codes, np.ones_like(x[:, 0]), weights.shared, cfg)  # (T, H)
    return routed, shared, Fp8LayerCache(topk_weight, rows, experts, shared_cache)


def layer_backward(
    dy: Float,  # (T, H)
    cache: Fp8LayerCache,
    weights: Fp8Weights,
    dweights: MoEWeights,
    cfg: MoEConfig,
) -> tuple[Float, Float, Float]:
    """Gradients of x through the routed and the shared experts (T, H) each, and of topk_weight (T, K)."""
    # MOE-1 was: y = routed + shared
    dx_shared = np.zeros_like(dy)  # (T, H)
    if weights.shared is not None and cache.shared is not None:
        dx_shared, _, products = expert_backward(dy, cache.shared, weights.shared, cfg)
        write_gradients(products, shared_gradients_of(dweights), cfg)

    # MOE-2 was: routed[t] += y_e
    dx = np.zeros_like(dy)  # (T, H)
    dtopk_weight = np.zeros_like(cache.topk_weight)  # (T, K)
    for e, (t, k) in enumerate(segments(cache.rows)):
        kept = cache.experts[e]
        if kept is not None:
            dx_e, drow_weight, products = expert_backward(dy[t], kept, one_of(weights.routed, e), cfg)
            write_gradients(products, gradients_of(dweights, e), cfg)
            dx[t] += dx_e  # (n, H)
            dtopk_weight[t, k] = drow_weight  # (n,)
    return dx, dx_shared, dtopk_weight
