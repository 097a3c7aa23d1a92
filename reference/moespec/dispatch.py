"""Rows by expert: from (token, slot) to rows that lie together by expert, and back (SPEC: DSP)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moespec.arrays import Float, Int


class Rows(NamedTuple):
    """Which token and slot each row belongs to. Expert 0's rows come first, expert_count[0] of them.

    `sizes` are the counts once more, for Python to slice by: all of a layer that it must know of its arrays.
    """

    row_token: Int  # (N,)
    row_slot: Int  # (N,)
    expert_count: Int  # (E,)
    sizes: tuple[int, ...] = ()


def count_rows(
    topk_idx: Int,  # (T, K)
    n_routed_experts: int,
) -> Int:
    """DSP-2: how many slots name each expert (E,); id -1 is counted nowhere."""
    return np.bincount(topk_idx.reshape(-1) + 1, minlength=n_routed_experts + 1)[1:]


def rows_by_expert(
    topk_idx: Int,  # (T, K)
    n_routed_experts: int,
) -> Rows:
    """DSP-1: one row for each slot that names an expert, ordered by expert, then token."""
    expert = topk_idx.reshape(-1)  # (T * K,)
    order = np.argsort(expert, kind="stable")  # (T * K,)
    ids = np.arange(-1, n_routed_experts, like=expert)  # (n_routed_experts + 1,)
    end = np.searchsorted(expert[order], ids, side="right")  # (n_routed_experts + 1,)
    count = end[1:] - end[:-1]  # (n_routed_experts,)
    sizes = tuple[int, ...](count.tolist())

    # DSP-2: an empty slot (id -1) makes no row and is counted nowhere; in this order they all come first
    order = order[order.shape[0] - sum(sizes) :]  # (N,)
    return Rows(order // topk_idx.shape[1], order % topk_idx.shape[1], count, sizes)


def segments(rows: Rows) -> Iterator[tuple[Int, Int]]:
    """The tokens and slots of each expert in turn, (n,) each, also of experts without rows."""
    start = 0
    for count in rows.sizes:
        s = slice(start, start + count)
        yield rows.row_token[s], rows.row_slot[s]
        start += count


def row_of_slot(
    rows: Rows,
    n_tokens: int,
    n_slots: int,
) -> Int:
    """Where each slot's row lies, (T, K); a slot without a row points one past the last."""
    n = rows.row_token.shape[0]
    # a padding row has token -1 and slot -1: it writes to one spare token, cut off again
    row_of = np.full_like(rows.row_token, n, shape=(n_tokens + 1, n_slots))  # (n_tokens + 1, n_slots)
    row_of[rows.row_token, rows.row_slot] = np.arange(n, like=rows.row_token)  # (N,)
    return row_of[:n_tokens]


def with_zero_row(
    rows: Float,  # (N, H)
) -> Float:
    """One row of zeros after the last, for slots without a row."""
    return np.concatenate([rows, np.zeros_like(rows, shape=(1, rows.shape[1]))])


def dispatch_forward(
    x: Float,  # (T, H)
    rows: Rows,
) -> Float:
    """DSP-1: each row is a copy of its token: (N, H)."""
    return x[rows.row_token]


def dispatch_backward(
    drows: Float,  # (N, H)
    rows: Rows,
    like_topk: Float,  # (T, K)
) -> Float:
    """Gradient of x (T, H). DSP-1 was: rows = x[row_token]; a token's slots are added in ascending order."""
    return combine_forward(drows, rows, np.ones_like(like_topk))


def combine_forward(
    values: Float,  # (N, H)
    rows: Rows,
    topk_weight: Float,  # (T, K)
) -> Float:
    """DSP-3: y[t] (T, H) = sum of topk_weight[t, k] times its row, slots ascending; no row, nothing added."""
    row_of = row_of_slot(rows, *topk_weight.shape)  # (T, K)
    padded = with_zero_row(values)  # (N + 1, H)
    y = np.zeros_like(values, shape=(topk_weight.shape[0], values.shape[1]))  # (T, H)
    for k in range(topk_weight.shape[1]):
        y += topk_weight[:, k][:, None] * padded[row_of[:, k]]  # (T, H)
    return y


def combine_backward(
    dy: Float,  # (T, H)
    values: Float,  # (N, H)
    rows: Rows,
    topk_weight: Float,  # (T, K)
) -> tuple[Float, Float]:
    """Gradients of values (N, H) and topk_weight (T, K)."""
    # DSP-3 was: y[t] += topk_weight[t, k] * values[row]; a padding row (-1, -1) meets a spare token of zeros
    spare = np.zeros_like(topk_weight, shape=(1, topk_weight.shape[1]))  # (1, K)
    row_weight = np.concatenate([topk_weight, spare])[rows.row_token, rows.row_slot]  # (N,)
    dy_row = with_zero_row(dy)[rows.row_token]  # (N, H)
    dtopk_weight = np.concatenate([np.zeros_like(topk_weight), spare])  # (T + 1, K)
    dtopk_weight[rows.row_token, rows.row_slot] = (dy_row * values).sum(axis=-1)  # (N,)
    return row_weight[:, None] * dy_row, dtopk_weight[:-1]
