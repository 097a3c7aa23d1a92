"""Layouts: each undone, each against the others, and what the judge lets pass of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moespec import ops
from moespec.config import MoEConfig
from moespec.dispatch import combine_backward, combine_forward, dispatch_forward, rows_by_expert
from moespec.expert import ExpertWeights, expert_backward, expert_forward
from moespec.layouts import (
    aligned,
    compact,
    contiguous,
    expert_end,
    k_grouped,
    lay_out_backward,
    lay_out_forward,
    masked,
)
from moespec.ops import RUN
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.judge.form import Malformed
from moespec_conformance.judging import verdict
from moespec_conformance.oracle import answer
from moespec_conformance.readings.foreign import Foreign

EXPERTS = 8
OURS = ("layout", "k_grouped_matmul", "dispatch_ranks", "combine_ranks", "moe_ranks", "moe_ranks_backward")


def routing(seed: int, tokens: int) -> Any:
    """Some ids, a third of them empty, and no token on expert 5 or on the last."""
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((tokens, EXPERTS)), axis=-1)[:, :3]
    return np.where((rng.random(ids.shape) < 0.3) | np.isin(ids, [5, EXPERTS - 1]), -1, ids)


@pytest.mark.spec("DSP-4")
@pytest.mark.parametrize("lay", [contiguous, masked])
@pytest.mark.parametrize("alignment", [1, 2, 7, 16, 128])
@pytest.mark.parametrize("tokens", [0, 1, 13, 64])
def test_a_layout_is_undone(lay: Callable[..., Any], alignment: int, tokens: int) -> None:
    """Without its empty places it is the dispatch it was made of: rows, tokens, slots and counts."""
    rows = rows_by_expert(routing(tokens, tokens), EXPERTS)
    x = np.random.default_rng(1).standard_normal((tokens, 4))
    places = lay(rows, alignment)
    back = compact(places)
    assert all(np.array_equal(a, b) for a, b in zip(back, rows, strict=True))
    values, full = lay_out_forward(x, places), places.row_token >= 0
    assert np.array_equal(values[full], dispatch_forward(x, rows))
    assert not values[~full].any()
    assert all((ids[~full] == -1).all() for ids in places[:3])


@pytest.mark.spec("DSP-5")
@pytest.mark.spec("DSP-6")
@pytest.mark.spec("DSP-7")
@pytest.mark.parametrize("alignment", [1, 7, 16])
def test_layouts_say_the_same(alignment: int) -> None:
    """Index, ends, sizes and boxes, read as their kernels do: all find the same rows."""
    rows = rows_by_expert(routing(3, 40), EXPERTS)
    line, boxes = contiguous(rows, alignment), masked(rows, alignment)
    size, end = aligned(rows.expert_count, alignment), expert_end(rows.expert_count, alignment)
    box = boxes.row_token.reshape(EXPERTS, -1)
    assert box.shape[1] == size.max() == -(-rows.expert_count.max() // alignment) * alignment
    assert size.sum() == len(line.row_token)
    start = 0
    for e, count in enumerate(rows.expert_count.tolist()):
        assert start % alignment == 0
        by_end = line.row_token[start : end[e]]
        assert len(by_end) == count
        assert np.array_equal(by_end, line.row_token[line.group_index == e])
        assert np.array_equal(by_end, line.row_token[start : start + size[e]][:count])
        assert np.array_equal(by_end, box[e, :count])
        start = -(-int(end[e]) // alignment) * alignment


@pytest.mark.spec("DSP-4")
@pytest.mark.parametrize("lay", [contiguous, masked])
def test_the_gradient_passes_over_empty_places(lay: Callable[..., Any]) -> None:
    """A layout is linear, so <drows, J v> = <J' drows, v>; what empty places hold, NaN too, reaches nobody."""
    rng = np.random.default_rng(5)
    ids = routing(5, 20)
    places = lay(rows_by_expert(ids, EXPERTS), 7)
    x, weight = rng.standard_normal((20, 6)), rng.standard_normal(ids.shape)
    drows = rng.standard_normal((len(places.row_token), 6))
    right = (lay_out_forward(x, places) * drows).sum()
    drows[places.row_token < 0] = np.nan
    np.testing.assert_allclose((lay_out_backward(drows, places, weight) * x).sum(), right, rtol=1e-13)


@pytest.mark.spec("DSP-3")
def test_combine_passes_over_empty_places() -> None:
    """Forward and backward: the weight of the last slot of the last token is not what (-1, -1) reads or writes."""
    rng = np.random.default_rng(6)
    ids = routing(6, 20)
    rows = rows_by_expert(ids, EXPERTS)
    places = contiguous(rows, 7)
    full = places.row_token >= 0
    values, weight, dy = (
        rng.standard_normal((full.sum(), 6)),
        rng.standard_normal(ids.shape),
        rng.standard_normal((20, 6)),
    )
    padded = np.full((len(full), 6), np.nan)
    padded[full] = values
    wide = rows._replace(row_token=places.row_token, row_slot=places.row_slot)
    assert np.array_equal(combine_forward(padded, wide, weight), combine_forward(values, rows, weight))
    dvalues, dweight = combine_backward(dy, values, rows, weight)
    dpadded, dweight_too = combine_backward(dy, padded, wide, weight)
    assert np.array_equal(dweight, dweight_too)
    assert np.array_equal(dpadded[full], dvalues)
    assert not dpadded[~full].any()


@pytest.mark.spec("DSP-8")
def test_k_grouped_is_the_gradient_of_weights() -> None:
    """Of up_proj, for every expert; added to what is there, and nothing where no row is."""
    rng = np.random.default_rng(7)
    ids = routing(7, 40)
    rows = rows_by_expert(ids, EXPERTS)
    places, size = contiguous(rows, 16), aligned(rows.expert_count, 16)
    x, c = rng.standard_normal((40, 6)), rng.standard_normal((EXPERTS, 5, 6))
    cfg = MoEConfig.from_dict(config(hidden_size=6, moe_intermediate_size=5, gated=False, hidden_act="relu"))
    want, dup = c.copy(), np.zeros((len(places.row_token), 5))
    for e in range(EXPERTS):
        w = ExpertWeights(*(rng.standard_normal(s) for s in ((0, 6), (5, 6), (6, 5))))
        dw = ExpertWeights(*map(np.zeros_like, w))
        at = places.group_index == e
        rows_e = x[places.row_token[at]]
        dy = rng.standard_normal(rows_e.shape)
        expert_backward(dy, expert_forward(rows_e, w, cfg)[1], w, dw, cfg)
        want[e] += dw.up_proj
        dup[at] = (dy @ w.down_proj) * (rows_e @ w.up_proj.T > 0)
    d = k_grouped(dup, lay_out_forward(x, places), size, c)
    np.testing.assert_allclose(d, want, rtol=1e-12, atol=1e-12)
    assert np.array_equal(d[5], c[5])


def given(name: str, **changed: Any) -> Any:
    """The verdict on the reference's answer to a case, with changes."""
    case = all_cases()[name]
    right = {n: np.array(v if v.dtype.kind in "iu" else v.astype(np.float32)) for n, v in answer(case).values.items()}
    for key, change in changed.items():
        right[key] = change(right[key])
    return verdict(case, Reply("answered", right))


def beyond(rows: Any, fill: float) -> Any:
    """Something where no row lies, in rows that are all different from zero."""
    return np.where(rows == 0, np.float32(fill), rows)


def wider(fill: float) -> Callable[[Any], Any]:
    """A box of 16 places more."""
    return lambda a: np.pad(a, [(0, 0), (0, 16)] + [(0, 0)] * (a.ndim - 2), constant_values=fill)


def longer(fill: float) -> Callable[[Any], Any]:
    """More places after the last."""
    return lambda a: np.pad(a, [(0, 9)] + [(0, 0)] * (a.ndim - 1), constant_values=fill)


@pytest.mark.spec("DSP-7")
def test_boxes_of_any_size_pass_whatever_lies_behind_the_rows() -> None:
    """Larger boxes, NaN and junk; but not a box that is not aligned, or a row out of its place."""
    name = "layout-masked-holes"
    assert given(name).status == "pass"
    assert given(name, rows=lambda a: beyond(a, np.nan)).status == "pass"
    assert given(name, rows=wider(7), row_token=wider(-1), row_slot=wider(-1)).status == "pass"
    assert given(name, rows=lambda a: a * np.float32(1.001)).stage == "rows"
    for moved in (lambda a: a[:, :-1], lambda a: np.roll(a, 1, axis=1)):
        with pytest.raises(Malformed, match="aligned, and begin with all its rows"):
            given(name, rows=moved, row_token=moved, row_slot=moved)
    with pytest.raises(Malformed, match="token -1 must have slot -1"):
        given(name, row_slot=lambda a: np.where(a < 0, 0, a))


@pytest.mark.spec("DSP-5")
@pytest.mark.spec("DSP-6")
def test_what_lines_leave_free_and_what_not() -> None:
    """Places after the last pass; junk in a padding row, padding of expert 0, rounded counts and ends do not."""
    for name in ("contiguous", "psum", "k-grouped"):
        told = {"group_index": longer(-1)} if name == "contiguous" else {}
        case = f"layout-{name}-holes"
        assert given(case, **told, row_token=longer(-1), row_slot=longer(-1), rows=longer(0)).status == "pass"
        assert given(case, **told, row_token=longer(-1), row_slot=longer(-1), rows=longer(1)).status == "fail"
        assert given(case, rows=lambda a: beyond(a, 1)).status == "fail"
        assert given(case, expert_count=lambda a: -(-a // 16) * 16).stage == "expert_count"
    assert given("layout-contiguous-holes", group_index=lambda a: np.maximum(a, 0)).stage == "group_index"
    assert given("layout-psum-holes", expert_end=lambda a: -(-a // 16) * 16).stage == "expert_end"
    assert given("layout-contiguous-crowd-129", group_index=lambda a: np.repeat(a[::256], 256)).stage == "group_index"
    assert given("layout-k-grouped-holes", expert_size=lambda a: np.maximum(a, 16)).stage == "expert_size"


@pytest.mark.spec("DSP-2")
def test_dispatch_may_be_padded_or_not() -> None:
    """With an alignment, too: padding is free there."""
    case = all_cases()["dispatch-aligned-128"]
    padded = ops.run("dispatch", case.cfg, **case.inputs)
    plain = ops.run("dispatch", all_cases()["dispatch-holes"].cfg, **case.inputs)
    assert len(plain["rows"]) < len(padded["rows"]) == (padded["expert_count"] > 0).sum() * 128
    assert all(verdict(case, Reply("answered", outputs)).status == "pass" for outputs in (padded, plain))


@pytest.mark.spec("DSP-8")
def test_wrong_products_are_found() -> None:
    """What was there lost, an empty expert zeroed, an expert's last row left out, a store in bfloat16."""
    case = all_cases()["k-grouped-matmul-holes"]
    size = case.inputs["expert_size"]
    assert given(case.id).status == "pass"
    assert given(case.id, d=lambda d: d - case.inputs["c"]).status == "fail"
    assert given(case.id, d=lambda d: np.where((size > 0)[:, None, None], d, 0)).status == "fail"
    coarse = all_cases()["k-grouped-matmul-dyadic-bfloat16"]
    import ml_dtypes  # noqa: PLC0415

    assert given(coarse.id).status == "pass"
    assert given(coarse.id, d=lambda d: d.astype(ml_dtypes.bfloat16).astype(np.float32)).status == "fail"


@pytest.mark.parametrize("name", [n for n, c in all_cases().items() if c.op in OURS and c.arithmetic == "float32"][::5])
def test_foreign_arrays_give_the_same_bits(name: str) -> None:
    """Layouts and ranks ask only for what CuPy has."""
    case = all_cases()[name]
    if case.kind == "reject":
        return
    with np.errstate(over="ignore"):
        plain = RUN[case.op](case.cfg, **{n: a.copy() for n, a in case.inputs.items()})
        for out, got in RUN[case.op](case.cfg, **{n: Foreign(a.copy()) for n, a in case.inputs.items()}).items():
            assert np.array_equal(got.planes[0], plain[out]), (name, out)
