"""Where a wrong tensor is wrong: error/bound over its rows and columns, as a picture of at most 64 by 64 cells."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moespec.signatures import OPS, expected
from moespec_conformance.cases import all_cases
from moespec_conformance.judge import selection
from moespec_conformance.judge.form import Malformed, defined, outputs_of
from moespec_conformance.judge.verdict import Compared, agreed, nearest
from moespec_conformance.judging import ask
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Array, Case, Result, Tensors
from moespec_conformance.runner import Runner

SIDE = 64  # cells along an axis at most
APART = ("relation", "reject")  # kinds of cases that no single answer decides
WORDS = {
    "T": "tokens",
    "H": "hidden",
    "F": "expert width",
    "SF": "shared width",
    "E": "experts",
    "W": "slots",
    "G": "groups",
    "N": "rows",
    "M": "rows",
    "C": "columns",
    "V": "words",
    "D": "devices",
    "B": "sequences",
    "U": "updates",
}


class Heat(NamedTuple):
    """A picture of one output: cells (down, across), of how many elements each way, along which axes."""

    case: str
    stage: str
    cells: Array
    size: tuple[int, int]
    axes: tuple[str, str]


def hottest(results: Sequence[Result], runner: Runner) -> Heat | None:
    """The failing case farthest beyond its bound, asked once more; nothing if no answer of it can be compared."""
    failed = [r for r in results if r.status == "fail" and r.stage and all_cases()[r.case].kind not in APART]
    if not failed:
        return None
    worst = max(failed, key=lambda result: result.error_over_bound or 0.0)
    case, stage = all_cases()[worst.case], worst.stage or ""
    try:
        reply = ask(case, runner, case.inputs)
        outputs = outputs_of(case, reply.outputs)
        made = Heat(case.id, stage, heat(case, outputs, stage), *layout(case, outputs[stage], stage))
    except (Malformed, KeyError, RuntimeError):
        return None
    return lying(made) if made.cells.shape[0] > made.cells.shape[1] else made


def lying(made: Heat) -> Heat:
    """The picture turned over, so that its longer side lies across the page."""
    return made._replace(cells=made.cells.T, size=made.size[::-1], axes=made.axes[::-1])


def heat(case: Case, outputs: Tensors, stage: str) -> Array:
    """Error/bound of one output (rows, columns), each cell the worst of the elements it stands for."""
    ratio = folded(ratios(case, outputs, stage))
    for axis, size in enumerate(ratio.shape):
        if size:
            ratio = np.maximum.reduceat(ratio, list(range(0, size, -(-size // SIDE))), axis=axis)
    return ratio


def ratios(case: Case, outputs: Tensors, stage: str) -> Array:
    """|got - want| / bound of every element; infinite where what must be exact is not."""
    right, ids = answer(case), outputs.get("topk_idx")
    if stage == "topk_idx" and stage not in case.inputs:
        return strangers(case, outputs[stage], right.values[stage])
    if ids is not None and "topk_idx" not in case.inputs:
        right = answer(case, ids.astype(np.int64))  # judged given its own routing
    got, want = outputs[stage], defined(case, right.values)[stage]
    if got.shape != want.shape:
        raise Malformed("shape", stage, f"{stage} has shape {got.shape}, not {want.shape}")
    loose = case.kind != "exact" and stage in right.bounds and right.bounds[stage].shape == got.shape
    want = want if loose or got.dtype.kind in "iu" else nearest(case, stage, want)
    c = agreed(Compared(case, stage, got, want, right.bounds[stage] if loose else np.zeros(want.shape)))
    error = np.abs(c.got.astype(np.float64) - c.want)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / c.bound)


def strangers(case: Case, ids: Array, right: Array) -> Array:
    """Infinite where a chosen expert (T,W) is not one of the right ones."""
    experts = case.cfg.n_routed_experts
    known = selection.members(right.astype(np.int64), experts)
    hit = np.take_along_axis(known, np.clip(ids.astype(np.int64), 0, experts - 1), axis=-1)
    return np.where((hit & (ids < experts)) | (ids == -1), 0.0, np.inf)


def folded(tensor: Array) -> Array:
    """Any tensor as a matrix: all axes but the last in one; a vector is one row."""
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1] if tensor.ndim else 1)


def layout(case: Case, tensor: Array, stage: str) -> tuple[tuple[int, int], tuple[str, str]]:
    """The rows and columns of a picture, and what they count."""
    dims = expected(OPS[case.op].outputs, case.cfg)[stage].dims
    names = [WORDS.get(dim.partition("/")[0].partition(":")[0], dim) for dim in dims]
    rows, columns = folded(tensor).shape
    if len(dims) != tensor.ndim:
        return (rows, columns), ("places", "columns")
    return (rows, columns), (" by ".join(names[:-1]), names[-1] if names else "")
