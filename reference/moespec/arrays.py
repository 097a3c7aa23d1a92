"""Array types, and the functions every router is built from (SPEC: ARR)."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float: TypeAlias = npt.NDArray[np.floating[Any]]
Int: TypeAlias = npt.NDArray[np.integer[Any]]
Bool: TypeAlias = npt.NDArray[np.bool]
FEW = 64  # float32 rows up to which `mapped` makes columns of them


def sigmoid(x: Float) -> Float:
    """ARR-1: 1 / (1 + exp(-x)), element by element, with no overflow on either side."""
    e = np.exp(np.where(x >= 0, -x, x))
    shares: Float = np.where(x >= 0, 1, e) / (1 + e)
    return shares


def softplus(x: Float) -> Float:
    """ARR-7: log(1 + exp(x)), element by element, with no overflow, and small results to all their digits."""
    return np.where(x >= 0, x, 0) + np.log1p(np.exp(np.where(x >= 0, -x, x)))


def softmax(x: Float) -> Float:
    """ARR-8: exp(x) of each row, divided by the row's sum; the row's largest is taken off first, and cancels."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Float = e / e.sum(axis=-1, keepdims=True)
    return shares


def softmax_backward(dshare: Float, share: Float) -> Float:
    """Gradient of x, row by row. ARR-8 was: share = softmax(x), perhaps over some of the row, and 0 for the rest."""
    dx: Float = share * (dshare - (dshare * share).sum(axis=-1, keepdims=True))
    return dx


def softmax_among(x: Float, stands: Bool) -> Float:
    """ROU-1: softmax of each row over what stands; the rest has share 0, and so has a row where nothing stands."""
    lowest = -(-x).max(axis=-1, keepdims=True)
    raised = np.where(stands, x, lowest)  # what does not stand cannot be the largest
    e = np.where(stands, np.exp(raised - raised.max(axis=-1, keepdims=True)), 0)
    return e / np.where(np.any(stands, axis=-1, keepdims=True), e.sum(axis=-1, keepdims=True), 1)


def by_expert(
    values: Float | Int,  # (T, W)
    topk_idx: Int,  # (T, W)
    n_experts: int,
) -> Any:  # noqa: ANN401 - of the values' kind
    """A token's values at the columns of the experts it names, 0 elsewhere: (T, n_experts). Its ids differ.

    An empty slot (id -1) writes to one spare column, which is cut off.
    """
    spread = np.zeros_like(values, shape=(topk_idx.shape[0], n_experts + 1))  # (T, n_experts + 1)
    np.put_along_axis(spread, topk_idx, values, axis=-1)
    return spread[:, :-1]


def mapped(x: Float, weight: Float) -> Float:
    """x @ weight.T: each row of x (rows, in) by a matrix (out, in), as checkpoints keep it.

    OpenBLAS multiplies a few float32 columns faster than as many rows: three in 0.6 of the time, sixty in 0.75.
    """
    few = x.dtype == np.float32 and x.shape[0] <= FEW
    y: Float = (weight @ x.T).T if few else x @ weight.T
    return y


def stable_topk(x: Float | Int, k: int) -> Int:
    """ARR-2: indices of the k largest of each row, largest first; of equals, the lower index first."""
    return np.argsort(-x, axis=-1, kind="stable")[..., :k]


def on_host(a: object) -> bool:
    """Whether an array is NumPy's own, and not another library's."""
    return isinstance(a, np.ndarray)


def read_table(table: Any, index: Any, out: Any) -> None:  # noqa: ANN401 - of any one kind
    """Write table[index] into out, for indices that lie in the table: what NumPy does fastest, CuPy does plainly."""
    if on_host(out):
        np.take(table, index, out=out, mode="clip")  # any other mode makes NumPy copy first
    else:
        np.take(table, index, out=out)
