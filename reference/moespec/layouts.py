"""Where rows lie: in aligned segments, in one box for each expert, or one after another in a contraction (SPEC: DSP).

Kernels want an expert's rows to begin at round numbers. So every layout has places, some of them empty; without these
what is left are the rows of dispatch, in its order.
"""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.dispatch import Rows, combine_forward, segments, with_zero_row


class Places(NamedTuple):
    """What lies at each place; -1 at an empty one. expert_count counts rows, not places."""

    group_index: Int  # (N,)
    row_token: Int  # (N,)
    row_slot: Int  # (N,)
    expert_count: Int  # (E,)


def aligned(
    expert_count: Int,  # (E,)
    alignment: int,
) -> Int:
    """DSP-5: places of each expert (E,): its rows, rounded up to a multiple of alignment; none without rows."""
    return -(-expert_count // alignment) * alignment


def expert_end(
    expert_count: Int,  # (E,)
    alignment: int,
) -> Int:
    """DSP-6: where each expert's rows end (E,); the next expert's begin at the next multiple of alignment."""
    size = aligned(expert_count, alignment)  # (E,)
    return np.cumsum(size) - size + expert_count


def placed(rows: Rows, sizes: list[int]) -> Places:
    """DSP-4: each expert's rows, and behind them empty places, up to its size."""
    group, token, slot = list[Int](), list[Int](), list[Int]()
    for e, (t, k) in enumerate(segments(rows)):
        empty = np.full_like(t, -1, shape=(sizes[e] - t.shape[0],))  # (n,)
        group += [np.full_like(t, e), empty]
        token += [t, empty]
        slot += [k, empty]
    return Places(np.concatenate(group), np.concatenate(token), np.concatenate(slot), rows.expert_count)


def contiguous(rows: Rows, alignment: int) -> Places:
    """DSP-5: one segment after another, each of a multiple of alignment."""
    return placed(rows, aligned(rows.expert_count, alignment).tolist())


def masked(rows: Rows, alignment: int) -> Places:
    """DSP-7: a box for each expert, all of the size that the largest needs: places (E * M,), box by box."""
    sizes = aligned(rows.expert_count, alignment).tolist()
    return placed(rows, [max(sizes)] * len(sizes))


def compact(places: Places) -> Rows:
    """DSP-4: without its empty places a layout is the rows of dispatch, in its order."""
    full = places.row_token >= 0  # (N,)
    sizes = tuple[int, ...](places.expert_count.tolist())
    return Rows(places.row_token[full], places.row_slot[full], places.expert_count, sizes)


def lay_out_forward(
    x: Float,  # (T, H)
    places: Places,
) -> Float:
    """DSP-4: a copy of its token at each place (N, H), zeros at an empty one."""
    return with_zero_row(x)[places.row_token]  # token -1 reads the last row, the zeros


def lay_out_backward(
    drows: Float,  # (N, H)
    places: Places,
    like_topk: Float,  # (T, K)
) -> Float:
    """Gradient of x (T, H). DSP-4 was: rows = x[row_token]; what lies at an empty place adds nothing."""
    rows = Rows(places.row_token, places.row_slot, places.expert_count)
    return combine_forward(drows, rows, np.ones_like(like_topk))


def k_grouped(
    a: Float,  # (N, F)
    b: Float,  # (N, H)
    expert_size: Int,  # (E,)
    c: Float,  # (E, F, H)
) -> Float:
    """DSP-8: d[e] = c[e] + a_e.T @ b_e (E, F, H), over the places of expert e; without places d[e] is c[e]."""
    d = np.zeros_like(c)  # (E, F, H)
    start = 0
    for e, size in enumerate(expert_size.tolist()):
        s = slice(start, start + size)
        d[e] = c[e] + a[s].T @ b[s]  # (F, H)
        start += size
    return d
