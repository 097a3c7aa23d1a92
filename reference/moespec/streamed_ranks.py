"""The layer in FP8 over ranks, each with one expert at a time of those it owns (SPEC: MFP, RNK).

What goes to an expert are codes and scales, one byte a number (MFP-2); x itself goes only where a recipe makes the
gradients of weights of values (MFP-6), and only for these. All of streamed.py's layer holds, bit for bit, whatever the
number of ranks: rows come home each by itself, and what all ranks hold has its gradient from all tokens at once.
"""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float
from moespec.config import MoEConfig
from moespec.dispatch import segments
from moespec.expert_fp8 import sent_scheme
from moespec.linear import Operand
from moespec.moe_ranks import Tokens
from moespec.quant import Quantized
from moespec.ranks import (
    Communicator,
    Handle,
    add_rows_forward,
    dispatch_ranks_forward,
    everywhere,
    meet,
    rows_home,
)
from moespec.streamed import (
    Experts,
    Sent,
    Take,
    all_tokens,
    coded,
    gradients_like,
    pieces,
    share_backward,
    share_forward,
)


class Owned(NamedTuple):
    """A rank's share of the layer: the id of its first expert, what came to it, and the weights that came with it."""

    first: int
    handle: Handle
    sent: Sent
    topk_weight: Float  # (M, K)


class StreamedRanksCache(NamedTuple):
    """What layer_ranks_backward needs of layer_ranks_forward, by rank: nothing of any expert."""

    comm: Communicator
    tokens: Tokens
    codes: list[Operand]
    owned: list[Owned]


def came(codes: Float, scale: Float, cfg: MoEConfig) -> Operand:
    """Codes and scales, put together again."""
    return Operand(Quantized(codes, scale), sent_scheme(cfg))


def from_values(cfg: MoEConfig) -> bool:
    """MFP-6: whether x itself must follow its codes."""
    return sent_scheme(cfg).rule.wgrad_from == "values"


def planes(codes: list[Operand]) -> tuple[list[Float], list[Float]]:
    """Codes and scales as they are sent: two arrays for each rank."""
    return [c.matrix.codes for c in codes], [c.matrix.scale for c in codes]


def owned_forward(owned: Owned, experts: Experts, cfg: MoEConfig) -> Float:
    """What one rank's experts make of their rows (N, H), weights included, by expert, then token."""
    first, handle, sent, topk_weight = owned
    scale = sent.x_codes.matrix.scale
    made = np.zeros_like(scale, shape=(handle.rows.row_token.shape[0], cfg.hidden_size))  # (N, H)
    start = 0
    for e, (t, k) in enumerate(segments(handle.rows), first):
        if t.shape[0]:
            rows = made[start : start + t.shape[0]]  # (n, H)
            for p, y_e in share_forward(pieces(sent, t, topk_weight[t, k], cfg), experts(e), cfg):
                rows[p.some] = y_e  # (n, H)
        start += t.shape[0]
    return made


def owned_backward(
    dy: Float,  # (M, H)
    owned: Owned,
    experts: Experts,
    take: Take,
    cfg: MoEConfig,
) -> tuple[Float, Float]:
    """Gradients of the rows (N, H) and of their weights (N,), from dy of the tokens that came."""
    first, handle, sent, topk_weight = owned
    drow_weight = np.zeros_like(dy, shape=handle.rows.row_token.shape)  # (N,)
    dx = np.zeros_like(dy, shape=(drow_weight.shape[0], dy.shape[1]))  # (N, H)
    dweights = gradients_like(dy, cfg.moe_intermediate_size, cfg)
    start = 0
    for e, (t, k) in enumerate(segments(handle.rows), first):
        if t.shape[0]:
            # RNK-5 was: rows[p.some] = y_e, one expert after another
            share, rows = pieces(sent, t, topk_weight[t, k], cfg), slice(start, start + t.shape[0])
            for p, dx_e, dw_e in share_backward(dy, share, experts(e), dweights, cfg):
                dx[rows][p.some] = dx_e  # (n, H)
                drow_weight[rows][p.some] = dw_e  # (n,)
            take(e, dweights)
        start += t.shape[0]
    return dx, drow_weight


def layer_ranks_forward(
    tokens: Tokens, experts: Experts, cfg: MoEConfig, comm: Communicator
) -> tuple[list[Float], StreamedRanksCache]:
    """The layer after its router: y (T, H) of each rank."""
    # RNK-2, MFP-2: codes, scales and weights go to the experts
    codes = [coded(x, cfg) for x in tokens.x]
    handles = meet(tokens.topk_idx, cfg.n_routed_experts, comm)
    sent = [dispatch_ranks_forward(a, handles, comm) for a in (*planes(codes), tokens.topk_weight)]
    first = [r * (cfg.n_routed_experts // comm.size) for r in comm.ranks]
    by_rank = zip(first, handles, *sent, strict=True)
    owned = [Owned(e, h, Sent(None, came(c, s, cfg)), w) for e, h, c, s, w in by_rank]

    # RNK-4: rows come home
    y = add_rows_forward([owned_forward(o, experts, cfg) for o in owned], handles, comm)

    # MOE-1: the shared expert, on the token's own rank, once
    if cfg.n_shared_experts:
        for y_r, c in zip(y, codes, strict=True):
            for p, y_e in share_forward(all_tokens(Sent(None, c), cfg), experts(cfg.n_routed_experts), cfg):
                y_r[p.token] += y_e  # (n, H)
    return y, StreamedRanksCache(comm, tokens, codes, owned)


def shared_ranks_backward(
    dy: list[Float], cache: StreamedRanksCache, experts: Experts, take: Take, cfg: MoEConfig
) -> list[Float]:
    """RNK-6: the shared expert's gradients from all ranks' tokens, the same on all; and those of x (T, H) of each."""
    comm, (x, ids, _) = cache.comm, cache.tokens
    token_rank = [np.full_like(ids_r[:, 0], r) for r, ids_r in zip(comm.ranks, ids, strict=True)]
    whole = [everywhere(a, comm) for a in (*planes(cache.codes), dy, token_rank)]
    values = everywhere(x, comm) if from_values(cfg) else [None for _ in comm.ranks]
    made, e = list[Float](), cfg.n_routed_experts
    for rank, x_all, codes, scale, dy_all, rank_of in zip(comm.ranks, values, *whole, strict=True):
        dx = np.zeros_like(dy_all)  # (n, H)
        if cfg.n_shared_experts and dx.shape[0]:
            # MOE-1 was: y += the shared expert's
            sent, dweights = Sent(x_all, came(codes, scale, cfg)), gradients_like(dy_all, cfg.shared_width, cfg)
            for p, dx_e, _ in share_backward(dy_all, all_tokens(sent, cfg), experts(e), dweights, cfg):
                dx[p.token] = dx_e  # (n, H)
            take(e, dweights)
        made.append(dx[rank_of == rank])
    return made


def layer_ranks_backward(
    dy: list[Float], cache: StreamedRanksCache, experts: Experts, take: Take, cfg: MoEConfig
) -> tuple[list[Float], list[Float], list[Float]]:
    """Gradients of x through routed and shared experts (T, H) each, and of topk_weight (T, K), of each rank."""
    comm, handles = cache.comm, [o.handle for o in cache.owned]
    dx_shared = shared_ranks_backward(dy, cache, experts, take, cfg)

    # RNK-4 was: y = the experts' rows, added at home; so dy goes where the token went
    owned = cache.owned
    if from_values(cfg):
        x = dispatch_ranks_forward(cache.tokens.x, handles, comm)
        owned = [o._replace(sent=o.sent._replace(x=x_r)) for o, x_r in zip(owned, x, strict=True)]
    by_rank = zip(dispatch_ranks_forward(dy, handles, comm), owned, strict=True)
    made = [owned_backward(dy_r, o, experts, take, cfg) for dy_r, o in by_rank]

    # RNK-2 was: codes and weights went to the experts
    dx = add_rows_forward([dx_rows for dx_rows, _ in made], handles, comm)
    dtopk_weight = [np.zeros_like(w) for w in cache.tokens.topk_weight]
    for d, h, values in zip(dtopk_weight, handles, rows_home([dw for _, dw in made], handles, comm), strict=True):
        d[h.home.row_token, h.home.row_slot] = values  # (N,)
    return dx, dx_shared, dtopk_weight
