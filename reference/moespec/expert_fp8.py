"""One expert whose matrix products are FP8, forward and backward (SPEC: MFP).

What is quantised is said where it happens; everything between two products is float32, and may be stored in bfloat16.
The slope of a rounding is taken as 1: gradients go through a quantiser as if it were not there (MFP-7).
"""

from typing import NamedTuple

import numpy as np

from moespec.activation import opened, slopes
from moespec.arrays import Float
from moespec.config import MoEConfig
from moespec.expert import ExpertWeights
from moespec.linear import Adding, Operand, matmul, transposed, values
from moespec.quant import Quantized, Scheme, quantized_numbers

Products = dict[str, tuple[Operand, Operand]]  # MFP-6: by a matrix's name, the operands that its gradient is made of


class Fp8Expert(NamedTuple):
    """Quantised matrices of one expert, or of a stack of them, (out, in) as in checkpoints.

    gate_proj (F, H), None without a gate (EXP-7); up_proj (F, H); down_proj (H, F).
    """

    gate_proj: Operand | None
    up_proj: Operand
    down_proj: Operand


class Fp8Cache(NamedTuple):
    """What the backward needs: inputs as codes, gate and up as codes (MFP-4), and each row's weight and product."""

    x: Float  # (N, H)
    x_codes: Operand  # (N, H)
    gate: Float  # (N, A)
    up: Float  # (N, F)
    row_weight: Float  # (N,)
    y: Float  # (N, H)


def adding(cfg: MoEConfig) -> Adding:
    """The config's way to add."""
    return Adding(cfg.accumulate, cfg.promote_every)


def scheme_a(cfg: MoEConfig) -> Scheme:
    """How activations and gradients are quantised, along their last axis."""
    return Scheme(cfg.recipe, cfg.a_format, cfg.a_block, cfg.scale_format, "saturate")


def sent_scheme(cfg: MoEConfig) -> Scheme:
    """MFP-2: how rows are quantised that are sent to their experts, and gradients on their way to them."""
    scheme = scheme_a(cfg)
    return scheme._replace(scale_format=scheme.rule.dispatch_scale or cfg.scale_format)


def scheme_b(cfg: MoEConfig) -> Scheme:
    """How weights are quantised."""
    return Scheme(cfg.recipe, cfg.b_format, cfg.b_block, cfg.scale_format, "saturate")


def operand(x: Float, scheme: Scheme) -> Operand:
    """Quantise x (R, C): its codes as the numbers they stand for, and scales."""
    return Operand(Quantized(*quantized_numbers(x, scheme)), scheme)


def by_token(
    x: Float,  # (N, C)
    codes: Operand,  # (N, C)
    cfg: MoEConfig,
) -> Operand:
    """MFP-6: rows (N, C) as (C, N) in blocks along the tokens: made of their codes, or of the values themselves."""
    source = values(codes) if codes.scheme.rule.wgrad_from == "codes" else x  # (N, C)
    return operand(source.T, codes.scheme._replace(block=cfg.a_block))


def expert_forward(
    x: Float,  # (N, H)
    x_codes: Operand,  # (N, H)
    row_weight: Float,  # (N,)
    weights: Fp8Expert,
    cfg: MoEConfig,
) -> tuple[Float, Fp8Cache]:
    """MFP-3: what the expert makes of its rows, times their weights (N, H)."""
    # EXP-1 in FP8: two products of the same codes
    how, none = adding(cfg), np.zeros_like(x, shape=(x.shape[0], 0))  # of (N, 0)
    gate = none if weights.gate_proj is None else matmul(x_codes, weights.gate_proj, how)  # (N, A)
    up = matmul(x_codes, weights.up_proj, how)  # (N, F)

    # EXP-2, and EXP-6: a weight that enters before down_proj enters before quantisation
    h = opened(gate, up, cfg)  # (N, F)
    if cfg.weight_position == "before_down":
        h = row_weight[:, None] * h  # (N, F)

    # EXP-3 in FP8
    y = matmul(operand(h, scheme_a(cfg)), weights.down_proj, how)  # (N, H)
    cache = Fp8Cache(x, x_codes, cached(gate, cfg), cached(up, cfg), row_weight, y)
    return (y if cfg.weight_position == "before_down" else row_weight[:, None] * y), cache


def cached(a: Float, cfg: MoEConfig) -> Float:
    """MFP-4: what the backward will see of gate or up (N, F): they are kept in FP8, and h is computed again."""
    return values(operand(a, scheme_a(cfg))) if a.shape[1] else a


def expert_backward(
    dy: Float,  # (N, H)
    cache: Fp8Cache,
    weights: Fp8Expert,
    cfg: MoEConfig,
) -> tuple[Float, Float, Products]:
    """Gradients of x (N, H) and row_weight (N,), and what those of the weights are products of."""
    how, after, weight = adding(cfg), cfg.weight_position == "after_down", cache.row_weight[:, None]
    h, by_gate, by_up = slopes(cache.gate, cache.up, cfg)

    # EXP-6 was: y = row_weight * y, or h = row_weight * h
    drow_weight = (dy * cache.y).sum(axis=-1)  # (N,)
    dy, entered = (weight * dy, h) if after else (dy, weight * h)
    dy_codes = operand(dy, sent_scheme(cfg))  # (N, H)

    # EXP-3 was: y = h @ down_proj.T
    dh = matmul(dy_codes, transposed(weights.down_proj), how)  # (N, F)
    products = {"down_proj": (by_token(dy, dy_codes, cfg), operand(entered.T, scheme_a(cfg)))}
    if not after:
        drow_weight = (dh * h).sum(axis=-1)  # (N,)
        dh = weight * dh  # (N, F)

    # EXP-2 was: h = opened(gate, up); EXP-1 was: gate = x @ gate_proj.T, up = x @ up_proj.T
    x_by_token = by_token(cache.x, cache.x_codes, cfg)  # (H, N)
    dx = np.zeros_like(dy)  # (N, H)
    for name, d, w in (
        ("gate_proj", dh[:, : by_gate.shape[1]] * by_gate, weights.gate_proj),
        ("up_proj", dh * by_up, weights.up_proj),
    ):
        if w is not None:
            codes = operand(d, scheme_a(cfg))  # (N, F)
            dx += matmul(codes, transposed(w), how)  # (N, H)
            products[name] = by_token(d, codes, cfg), x_by_token
    return dx, drow_weight, products


def write_gradients(products: Products, dweights: ExpertWeights, cfg: MoEConfig) -> None:
    """MFP-6: the gradients of an expert's matrices, float32."""
    for name, (a, b) in products.items():
        getattr(dweights, name)[...] = matmul(a, b, adding(cfg))
