"""One expert: a feed-forward network without biases, gated in all of DeepSeek's models (SPEC: EXP)."""

from typing import NamedTuple

import numpy as np

from moespec.activation import opened, slopes
from moespec.arrays import Float, mapped
from moespec.config import MoEConfig


class ExpertWeights(NamedTuple):
    """Matrices of one expert, (out, in) as in checkpoints. A is F, or 0 for an expert without a gate (EXP-7)."""

    gate_proj: Float  # (A, H)
    up_proj: Float  # (F, H)
    down_proj: Float  # (H, F)


class ExpertCache(NamedTuple):
    """What expert_backward needs of expert_forward."""

    x: Float  # (N, H)
    gate: Float  # (N, A)
    up: Float  # (N, F)


class WeightedCache(NamedTuple):
    """What weighted_backward needs: also each row's weight, and what it multiplied (h before down_proj, y after)."""

    expert: ExpertCache
    row_weight: Float  # (N,)
    plain: Float


def hidden_forward(
    x: Float,  # (N, H)
    weights: ExpertWeights,
    cfg: MoEConfig,
) -> tuple[Float, ExpertCache]:
    """What goes into down_proj: h (N, F)."""
    # EXP-1: two linear maps of the same rows
    gate = mapped(x, weights.gate_proj)  # (N, A)
    up = mapped(x, weights.up_proj)  # (N, F)

    # EXP-2: one opens the other
    return opened(gate, up, cfg), ExpertCache(x, gate, up)


def hidden_backward(
    dh: Float,  # (N, F)
    by: tuple[Float, Float],
    x: Float,  # (N, H)
    weights: ExpertWeights,
    dweights: ExpertWeights,
) -> Float:
    """Gradient of x (N, H), given h's slopes by gate and up; those of gate_proj and up_proj go into dweights."""
    # EXP-2 was: h = opened(gate, up)
    by_gate, by_up = by
    dgate = dh[:, : by_gate.shape[1]] * by_gate  # (N, A)
    dup = dh * by_up  # (N, F)

    # EXP-1 was: gate = mapped(x, gate_proj), up = mapped(x, up_proj)
    np.matmul(dgate.T, x, out=dweights.gate_proj)
    np.matmul(dup.T, x, out=dweights.up_proj)
    dx = dgate @ weights.gate_proj  # (N, H)
    dx += dup @ weights.up_proj  # (N, H)
    return dx


def expert_forward(
    x: Float,  # (N, H)
    weights: ExpertWeights,
    cfg: MoEConfig,
) -> tuple[Float, ExpertCache]:
    """What the expert makes of its rows: y (N, H)."""
    h, cache = hidden_forward(x, weights, cfg)  # (N, F)

    # EXP-3: back to the model's width
    y = mapped(h, weights.down_proj)  # (N, H)
    return y, cache


def expert_backward(
    dy: Float,  # (N, H)
    cache: ExpertCache,
    weights: ExpertWeights,
    dweights: ExpertWeights,
    cfg: MoEConfig,
) -> Float:
    """Gradient of x (N, H); the weights' gradients are written into dweights (EXP-4: zeros where no row came)."""
    h, by_gate, by_up = slopes(cache.gate, cache.up, cfg)

    # EXP-3 was: y = mapped(h, down_proj)
    dh = dy @ weights.down_proj  # (N, F)
    np.matmul(dy.T, h, out=dweights.down_proj)
    return hidden_backward(dh, (by_gate, by_up), cache.x, weights, dweights)


def weighted_forward(
    x: Float,  # (N, H)
    row_weight: Float,  # (N,)
    weights: ExpertWeights,
    cfg: MoEConfig,
) -> tuple[Float, WeightedCache]:
    """EXP-6: the expert's output times each row's weight (N, H); the weight enters before down_proj, or after."""
    if cfg.weight_position == "before_down":
        h, cache = hidden_forward(x, weights, cfg)  # (N, F)
        return mapped(row_weight[:, None] * h, weights.down_proj), WeightedCache(cache, row_weight, h)
    y, cache = expert_forward(x, weights, cfg)  # (N, H)
    return row_weight[:, None] * y, WeightedCache(cache, row_weight, y)


def weighted_backward(
    dy: Float,  # (N, H)
    cache: WeightedCache,
    weights: ExpertWeights,
    dweights: ExpertWeights,
    cfg: MoEConfig,
) -> tuple[Float, Float]:
    """Gradients of x (N, H) and row_weight (N,); those of the weights are written into dweights."""
    expert, row_weight, plain = cache

    # EXP-6 was: y = row_weight * mapped(h, down_proj)
    if cfg.weight_position == "after_down":
        drow_weight = (dy * plain).sum(axis=-1)  # (N,)
        dy = row_weight[:, None] * dy  # (N, H)
        return expert_backward(dy, expert, weights, dweights, cfg), drow_weight

    # EXP-6 was: y = mapped(row_weight * h, down_proj)
    dweighted = dy @ weights.down_proj  # (N, F)
    h, by_gate, by_up = slopes(expert.gate, expert.up, cfg)
    np.matmul(dy.T, row_weight[:, None] * h, out=dweights.down_proj)
    drow_weight = (dweighted * h).sum(axis=-1)  # (N,)
    dh = dweighted * row_weight[:, None]  # (N, F)
    return hidden_backward(dh, (by_gate, by_up), expert.x, weights, dweights), drow_weight


def weighted(
    x: Float,  # (N, H)
    row_weight: Float,  # (N,)
    weights: ExpertWeights,
    cfg: MoEConfig,
) -> Float:
    """The lines of weighted_forward in place, nothing kept for a backward: (N, H)."""
    h, _ = hidden_forward(x, weights, cfg)  # (N, F)
    if cfg.weight_position == "before_down":
        h *= row_weight[:, None]  # (N, F)
        return mapped(h, weights.down_proj)
    y = mapped(h, weights.down_proj)  # (N, H)
    y *= row_weight[:, None]  # (N, H)
    return y
