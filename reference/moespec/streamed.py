"""The layer in FP8 with one expert at a time: asked for, used, dropped (SPEC: MFP). DeepSeek-V3's fits a small machine.

What it computes is moe_fp8's, bit for bit where `accumulate` depends on no order (all but `float32` and `promoted`).
    The forward keeps nothing of an expert. The backward makes each expert's forward again, of x's codes, and hands its
    gradients to `take`, which must not keep them: the next expert's are written into the same memory. An expert without
    rows is never asked for, and its gradients, zeros, are handed to nobody.
Rows are taken ROWS or so at a time, since all tokens' (the shared expert has them) may be too many.
    A row's results depend on no other row's. The sum over rows in a gradient of weights goes on where it stood, by
    `matmul`'s accumulator c, and is cut where blocks along the tokens end, so that no block has another scale for it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.dispatch import Rows, rows_by_expert, segments
from moespec.expert import ExpertWeights
from moespec.expert_fp8 import Fp8Expert, Products, adding, expert_backward, expert_forward, sent_scheme
from moespec.linear import Operand, matmul, rows_of, values
from moespec.quant import quantize

Experts = Callable[[int], Fp8Expert]  # by its id; E is the shared expert's
Take = Callable[[int, ExpertWeights], None]
ROWS = 256  # of an expert's share, or of a gradient, at a time


class Sent(NamedTuple):
    """Tokens as experts receive them: codes (T, H), and x itself (T, H), or None where only codes came."""

    x: Float | None
    x_codes: Operand


class Piece(NamedTuple):
    """Some rows of an expert's share: where they lie in it, their tokens, and what the expert reads."""

    some: slice
    token: Int  # (n,)
    x: Float  # (n, H)
    x_codes: Operand
    row_weight: Float  # (n,)


class StreamedCache(NamedTuple):
    """What layer_backward needs of layer_forward: nothing of any expert."""

    sent: Sent
    topk_weight: Float  # (T, K)
    rows: Rows


def coded(x: Float, cfg: MoEConfig) -> Operand:
    """MFP-2: x quantised, a byte a number (T, H)."""
    scheme = sent_scheme(cfg)
    return Operand(quantize(x, scheme), scheme)


def pieces(
    sent: Sent,
    token: Int,  # (n,)
    row_weight: Float,  # (n,)
    cfg: MoEConfig,
) -> Iterator[Piece]:
    """An expert's share, some rows at a time; they end where blocks along the tokens end (MFP-6)."""
    width = cfg.a_block[1]
    step = max(ROWS // width, 1) * width
    for start in range(0, token.shape[0], step):
        some = slice(start, start + step)
        t = token[some]  # (n,)
        x_codes = rows_of(sent.x_codes, t)
        x = values(x_codes) if sent.x is None else sent.x[t]  # (n, H)
        yield Piece(some, t, x, x_codes, row_weight[some])


def all_tokens(sent: Sent, cfg: MoEConfig) -> Iterator[Piece]:
    """MOE-1: the shared expert's share: every token, without a weight."""
    tokens, scale = sent.x_codes.shape[0], sent.x_codes.matrix.scale
    return pieces(sent, np.arange(tokens, like=scale), np.ones_like(scale, shape=(tokens,)), cfg)


def share_forward(share: Iterator[Piece], weights: Fp8Expert, cfg: MoEConfig) -> Iterator[tuple[Piece, Float]]:
    """What one expert makes of its share, piece by piece: (n, H) each."""
    for p in share:
        yield p, expert_forward(p.x, p.x_codes, p.row_weight, weights, cfg)[0]


def share_backward(
    dy: Float,  # (T, H)
    share: Iterator[Piece],
    weights: Fp8Expert,
    dweights: ExpertWeights,
    cfg: MoEConfig,
) -> Iterator[tuple[Piece, Float, Float]]:
    """Gradients of its rows (n, H) and their weights (n,), piece by piece; at the end those of the matrices are whole.

    share_forward's line was: y_e = expert_forward(…), which is done again.
    """
    for p in share:
        _, cache = expert_forward(p.x, p.x_codes, p.row_weight, weights, cfg)
        dx_e, drow_weight, products = expert_backward(dy[p.token], cache, weights, cfg)
        add_gradients(products, dweights, cfg, first=p.some.start == 0)
        yield p, dx_e, drow_weight


def add_gradients(products: Products, dweights: ExpertWeights, cfg: MoEConfig, *, first: bool) -> None:
    """MFP-6: gradients of matrices, some of their rows at a time; LIN-1: each sum goes on from what is there."""
    for name, (a, b) in products.items():
        dw = getattr(dweights, name)
        for start in range(0, dw.shape[0], ROWS):
            some = slice(start, start + ROWS)
            dw[some] = matmul(rows_of(a, some), b, adding(cfg), None if first else dw[some])


def gradients_like(like: Float, width: int, cfg: MoEConfig) -> ExpertWeights:
    """Memory for the gradients of an expert of this width."""
    h, a = like.shape[1], width if cfg.gated else 0
    return ExpertWeights(*(np.empty_like(like, shape=shape) for shape in ((a, h), (width, h), (h, width))))


def layer_forward(
    x: Float,  # (T, H)
    topk_idx: Int,  # (T, K)
    topk_weight: Float,  # (T, K)
    experts: Experts,
    cfg: MoEConfig,
) -> tuple[Float, StreamedCache]:
    """The layer after its router: y (T, H), routed experts first, the shared one last."""
    sent, rows = Sent(x, coded(x, cfg)), rows_by_expert(topk_idx, cfg.n_routed_experts)
    y = np.zeros_like(x)  # (T, H)
    for e, (t, k) in enumerate(segments(rows)):
        if t.shape[0]:
            # MOE-2: add expert e's output, weighted, to its tokens
            for p, y_e in share_forward(pieces(sent, t, topk_weight[t, k], cfg), experts(e), cfg):
                y[p.token] += y_e  # (n, H)

    # MOE-1: the shared expert, once all routed ones are added
    if cfg.n_shared_experts and x.shape[0]:
        for p, y_e in share_forward(all_tokens(sent, cfg), experts(cfg.n_routed_experts), cfg):
            y[p.token] += y_e  # (n, H)
    return y, StreamedCache(sent, topk_weight, rows)


def layer_backward(
    dy: Float,  # (T, H)
    cache: StreamedCache,
    experts: Experts,
    take: Take,
    cfg: MoEConfig,
) -> tuple[Float, Float, Float]:
    """Gradients of x through the routed and the shared experts (T, H) each, and of topk_weight (T, K)."""
    sent, topk_weight, rows = cache

    # MOE-1 was: y += the shared expert's
    dx_shared = np.zeros_like(dy)  # (T, H)
    if cfg.n_shared_experts and dy.shape[0]:
        dweights = gradients_like(dy, cfg.shared_width, cfg)
        shared = experts(cfg.n_routed_experts)
        for p, dx_e, _ in share_backward(dy, all_tokens(sent, cfg), shared, dweights, cfg):
            dx_shared[p.token] = dx_e  # (n, H)
        take(cfg.n_routed_experts, dweights)
        del shared, dweights

    # MOE-2 was: y[t] += y_e
    dx, dtopk_weight = np.zeros_like(dy), np.zeros_like(topk_weight)  # of (T, H) and (T, K)
    dweights = gradients_like(dy, cfg.moe_intermediate_size, cfg)
    for e, (t, k) in enumerate(segments(rows)):
        if t.shape[0]:
            share = pieces(sent, t, topk_weight[t, k], cfg)
            for p, dx_e, drow_weight in share_backward(dy, share, experts(e), dweights, cfg):
                dx[p.token] += dx_e  # (n, H)
                dtopk_weight[p.token, k[p.some]] = drow_weight  # (n,)
            take(e, dweights)
    return dx, dx_shared, dtopk_weight
