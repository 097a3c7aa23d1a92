"""What the ops of layouts and ranks refuse, beyond names, shapes, dtypes and ids (SPEC: DSP, RNK)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moespec.arrays import Int
from moespec.config import MoEConfig, require


def check_layout(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """DSP-8, RNK-3: counts add up to rows. RNK-1: a token has a rank. RNK-4: a token is routed by itself."""
    if "token_rank" in tensors:
        rank = tensors["token_rank"]
        inside = (rank >= 0) & (rank < cfg.n_device)
        require(bool(np.all(inside)), f"RNK-1: {op}: token_rank must lie in 0 … {cfg.n_device - 1}")
    if op.startswith("moe_ranks"):
        local = cfg.router == "topk" and cfg.softmax_over == "all" and cfg.drop_policy is None
        require(local, f"RNK-4: {op}: the router must be topk over all experts, and without a capacity")
    if op == "k_grouped_matmul":
        check_sum("DSP-8", op, "expert_size", tensors["expert_size"], tensors["a"].shape[0])
    if op == "combine_ranks":
        check_sum("RNK-3", op, "recv_count", tensors["recv_count"], tensors["rows"].shape[0])
        check_received(op, tensors["recv_token"], tensors["recv_count"], tensors["token_rank"].shape[0])


def check_sum(clause: str, op: str, name: str, counts: Int, rows: int) -> None:
    """Counts are 0 or more, and count all rows."""
    whole = bool(np.all(counts >= 0)) and int(counts.sum()) == rows
    require(whole, f"{clause}: {op}: {name} must be 0 or more and add up to {rows}")


def check_received(op: str, recv_token: Int, recv_count: Int, tokens: int) -> None:
    """RNK-3: a received row is of a token, and a rank receives a token once."""
    inside = (recv_token >= 0) & (recv_token < tokens)
    require(bool(np.all(inside)), f"RNK-3: {op}: recv_token must lie in 0 … {tokens - 1}")
    rank = np.repeat(np.arange(len(recv_count), like=recv_count), recv_count.tolist())
    received = rank * tokens + recv_token
    require(len(np.unique(received)) == len(received), f"RNK-3: {op}: a rank received a token twice")
