"""Ranks: the layer is the same on any number of them; dispatch and combine undo and differentiate each other."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ranked import WHERE, near, same, single, split, whole

from moespec import ops
from moespec.dispatch import combine_forward
from moespec.ranks import (
    Communicator,
    Handle,
    Messages,
    add_rows_backward,
    add_rows_forward,
    combine_ranks_backward,
    combine_ranks_forward,
    dispatch_ranks_backward,
    dispatch_ranks_forward,
    in_process,
    meet,
    rows_home,
)
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.layouts import gap, in_turn
from moespec_conformance.communicator import over
from moespec_conformance.judging import verdict
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Case
from moespec_conformance.readings.portable import Portable

EDGES = ("ordinary", "replay-holes", "crowd-127", "two-shared", "no-token", "one-token")


@pytest.mark.spec("RNK-4")
@pytest.mark.spec("RNK-5")
@pytest.mark.spec("RNK-6")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["corridor", *EDGES])
def test_the_layer_does_not_depend_on_the_number_of_ranks(name: str, size: int, where: str) -> None:
    """Forward and backward: bit for bit under Portable and on exact numbers, within bounds elsewhere."""
    case = all_cases()[f"moe-backward-{name}"]
    ranks = WHERE[where](len(case.inputs["x"]), size)
    assert same(case, Portable.lift, ranks, in_process(size)) == 9 * size
    near(case, ranks, in_process(size))
    if name == "corridor":
        same(case, single, ranks, in_process(size))


@pytest.mark.spec("RNK-4")
@pytest.mark.parametrize("size", [2, 4, 8])
def test_exact_numbers_do_not_ask_which_token_is_where(size: int) -> None:
    """Tokens dealt out in turn: the sums have another order, the bits are the same."""
    case = all_cases()["moe-backward-corridor"]
    ranks = in_turn(len(case.inputs["x"]), size)
    assert same(case, single, ranks, in_process(size)) == 9 * size


def met(size: int = 4) -> tuple[Any, list[Any], list[Handle], Communicator]:
    """Ids with holes on ranks of which one has no token: all ids, tokens by rank, handles."""
    ids = all_cases()["dispatch-holes"].inputs["topk_idx"]
    where = gap(len(ids), size)
    tokens = [np.flatnonzero(where == r) for r in range(size)]
    comm = in_process(size)
    return ids, tokens, meet([ids[t] for t in tokens], 16, comm), comm


def dot(a: list[Any], b: list[Any]) -> float:
    """The inner product over all ranks."""
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


def numbers(seed: int, shapes: list[tuple[int, ...]]) -> list[Any]:
    """Some for each rank."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.spec("RNK-2")
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_token_goes_once_to_each_rank_that_it_names(size: int) -> None:
    """However many experts it has there, in order of sender and token; nobody else receives it."""
    ids, tokens, handles, comm = met(size)
    received = dispatch_ranks_forward(tokens, handles, comm)
    for r, (got, handle) in enumerate(zip(received, handles, strict=True)):
        here = ids // (16 // size) == r
        assert got.tolist() == [t for mine in tokens for t in mine.tolist() if here[t].any()]
        assert np.array_equal(handle.topk_idx, np.where(here[got], ids[got] - r * (16 // size), -1))
    assert sum(map(len, received)) < (ids >= 0).sum() or size == 8


@pytest.mark.spec("RNK-3")
def test_dispatch_and_combine_are_each_others_backward() -> None:
    """<dispatch x, m> = <x, combine m>; the same for rows, each added by itself."""
    _, tokens, handles, comm = met()
    x, dy = (numbers(seed, [(len(t), 6) for t in tokens]) for seed in (1, 2))
    m = numbers(3, [(len(h.source), 6) for h in handles])
    rows = numbers(4, [(len(h.rows.row_token), 6) for h in handles])
    for forward, backward, at in (
        (dispatch_ranks_forward, dispatch_ranks_backward, (x, m)),
        (combine_ranks_forward, combine_ranks_backward, (m, dy)),
        (add_rows_forward, add_rows_backward, (rows, dy)),
    ):
        given, gradient = at
        there, back = forward(given, handles, comm), backward(gradient, handles, comm)
        np.testing.assert_allclose(dot(there, gradient), dot(given, back), rtol=1e-13)


@pytest.mark.spec("RNK-4")
def test_rows_come_home_as_they_went() -> None:
    """What is sent to the experts' rows and back is each token's own, in the order of one rank."""
    _, tokens, handles, comm = met()
    x = numbers(5, [(len(t), 6) for t in tokens])
    received = dispatch_ranks_forward(x, handles, comm)
    home = rows_home([a[h.rows.row_token] for a, h in zip(received, handles, strict=True)], handles, comm)
    for got, mine, h in zip(home, x, handles, strict=True):
        assert np.array_equal(got, mine[h.home.row_token])


@pytest.mark.spec("RNK-3")
def test_normal_and_low_latency_modes_agree_within_rounding() -> None:
    """Weights applied by the ranks and sums of sums, or rows home and weights there: the same, if not the same bits."""
    ids, tokens, handles, comm = met()
    weight = [np.abs(w) for w in numbers(6, [(len(t), ids.shape[1]) for t in tokens])]
    values = numbers(7, [(len(h.rows.row_token), 6) for h in handles])
    low_latency = [
        combine_forward(v, h.home, w) for v, h, w in zip(rows_home(values, handles, comm), handles, weight, strict=True)
    ]
    there = dispatch_ranks_forward(weight, handles, comm)
    partial = [combine_forward(v, h.rows, w) for v, h, w in zip(values, handles, there, strict=True)]
    normal = combine_ranks_forward(partial, handles, comm)
    for a, b in zip(normal, low_latency, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.spec("RNK-4")
def test_sums_of_sums_are_near_but_not_the_same_bits() -> None:
    """Why the layer brings rows home: adding by rank first is another order."""
    moved = 0
    _, _, handles, comm = met(2)
    values = numbers(8, [(len(h.rows.row_token), 6) for h in handles])
    partial = [combine_forward(v, h.rows, np.ones(h.topk_idx.shape)) for v, h in zip(values, handles, strict=True)]
    for a, b in zip(
        combine_ranks_forward(partial, handles, comm), add_rows_forward(values, handles, comm), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        moved += int((a != b).sum())
    assert moved > 0


class Alone:
    """An MPI communicator of one process."""

    def Get_rank(self) -> int:  # noqa: N802 - MPI's name
        """The only one."""
        return 0

    def Get_size(self) -> int:  # noqa: N802 - MPI's name
        """One."""
        return 1

    def alltoall(self, sendobj: Any) -> Any:
        """To itself."""
        assert len(sendobj) == 1
        return list(sendobj)


@pytest.mark.spec("RNK-2")
def test_a_process_plays_one_rank() -> None:
    """The communicator of MPI, over a group of one, is the one in process."""
    case = all_cases()["moe-backward-ordinary"]
    where = np.zeros(len(case.inputs["x"]), np.int64)
    assert same(case, Portable.lift, where, over(Alone())) == 9
    messages: Messages = [[1, 2], [3, 4]]
    assert in_process(2).alltoall(messages) == [[1, 3], [2, 4]]


def given(name: str, **changed: Callable[[Any], Any]) -> Any:
    """The verdict on the reference's answer to a case, with changes."""
    case = all_cases()[name]
    right = {n: v if v.dtype.kind in "iu" else v.astype(np.float32) for n, v in answer(case).values.items()}
    return verdict(case, Reply("answered", {**right, **{n: change(right[n]) for n, change in changed.items()}}))


@pytest.mark.spec("RNK-2")
@pytest.mark.spec("RNK-3")
def test_wrong_meetings_are_found() -> None:
    """Global ids, weights of other ranks, rows by slot, weights applied once more."""
    sent, back = "dispatch-ranks-of-4", "combine-ranks-of-4"
    t = all_cases()[sent].inputs
    right = answer(all_cases()[sent]).values
    assert (given(sent).status, given(back).status) == ("pass", "pass")
    token, count = right["recv_token"], right["recv_count"]
    rank = np.repeat(np.arange(4), count)[:, None]
    assert given(sent, recv_topk_idx=lambda a: np.where(a < 0, a, a + 4 * rank)).stage == "recv_topk_idx"
    assert given(sent, recv_topk_weight=lambda _: t["topk_weight"][token]).stage == "recv_topk_weight"
    order = np.concatenate([np.flatnonzero(rank[:, 0] == r)[::-1] for r in range(4)])
    backwards: dict[str, Any] = {n: lambda a: a[order] for n in ("recv_token", "recv_topk_idx", "rows")}
    assert given(sent, **backwards).stage == "recv_token"
    weight = answer(all_cases()[back]).values["combined_topk_weight"].sum(axis=-1, keepdims=True)
    assert given(back, y=lambda y: y * weight).stage == "y"


@pytest.mark.spec("RNK-5")
@pytest.mark.spec("RNK-6")
def test_wrong_layers_are_found() -> None:
    """The shared expert added by every rank; gradients times or over the ranks, or of one rank's tokens alone."""
    case = all_cases()["moe-ranks-backward-ordinary-of-4-empty-rank"]
    forward = all_cases()["moe-ranks-ordinary-of-4-empty-rank"]
    base = all_cases()["moe-backward-ordinary"]
    assert given(forward.id).status == given(case.id).status == "pass"
    matrices = {name: forward.inputs[f"shared_{name}"] for name in ("gate_proj", "up_proj", "down_proj")}
    shared = ops.run("expert", forward.cfg, x=forward.inputs["x"], **matrices)["y"]
    assert given(forward.id, y=lambda y: y + 3 * shared).stage == "y"
    assert given(forward.id, y=lambda y: y - shared).stage == "y"
    for factor in (4, 1 / 4):
        assert given(case.id, dup_proj=lambda d, f=factor: d * np.float32(f)).stage == "dup_proj"
    where = gap(len(base.inputs["x"]), 4)
    first = np.flatnonzero(where == 0)
    alone = whole_of(base, first)
    for name in ("gate_weight", "shared_down_proj"):
        assert given(case.id, **{f"d{name}": lambda _, n=name: alone[n]}).stage == f"d{name}"


def whole_of(case: Case, tokens: Any) -> Any:
    """The gradients of some tokens alone."""
    few = {n: a[tokens] if n in ("x", "dy", "topk_idx") else a.copy() for n, a in case.inputs.items()}
    return whole(replace(case, build=lambda: few), single)


@pytest.mark.spec("RNK-1")
def test_every_rank_has_the_same_of_what_is_everybodys() -> None:
    """Bit for bit, in float32 as well."""
    case = all_cases()["moe-backward-ordinary"]
    where = gap(len(case.inputs["x"]), 4)
    found: dict[str, list[Any]] = {}
    for name, got, _ in split(case, single, where, in_process(4)):
        found.setdefault(name, []).append(got)
    for name in ("gate_weight", "shared_gate_proj", "shared_up_proj", "shared_down_proj"):
        assert len(found[name]) == 4
        assert all(np.array_equal(d, found[name][0]) for d in found[name])
