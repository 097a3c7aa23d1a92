"""Relations (MOE-9): change the question in a way that should change the answer in a known way, and look."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judge.near import worst
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Array, Case, Tensors, by_name

Run = Callable[[Tensors], object]
Relation = Callable[[Case, Run], tuple[Tensors, Tensors]]  # what was given, what it should be


def result(case: Case, run: Run, inputs: Tensors) -> Tensors:
    """The float outputs, by token."""
    cfg = case.cfg
    asked = Case(case.id, case.op, cfg.to_dict(), lambda: dict(inputs), (), arithmetic=case.arithmetic)
    outputs = outputs_of(asked, run(inputs))
    if case.op != "gate":
        return {"y": outputs["y"]}
    dense = np.zeros((len(inputs["x"]), cfg.n_routed_experts), np.float64)  # the order of slots is free
    np.put_along_axis(dense, outputs["topk_idx"].astype(np.int64), outputs["topk_weight"], axis=-1)
    return {"topk_weight": dense}


def order_of(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A fixed order without fixed points to speak of."""
    return np.argsort((np.arange(count) * 37 + 11) % max(count, 1), kind="stable")


def permuted_tokens(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """Tokens in another order give rows in that order."""
    order, whole = order_of(len(case.inputs["x"])), result(case, run, case.inputs)
    moved = result(case, run, {**case.inputs, "x": case.inputs["x"][order]})
    return moved, {name: out[order] for name, out in whole.items()}


def split_batch(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """A batch gives what its parts give."""
    x, whole = case.inputs["x"], result(case, run, case.inputs)
    cut = len(x) // 3
    first, second = (result(case, run, {**case.inputs, "x": part}) for part in (x[:cut], x[cut:]))
    return {name: np.concatenate([first[name], second[name]]) for name in whole}, whole


def padded_batch(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """Tokens of zeros after the others change nothing for them."""
    x, whole = case.inputs["x"], result(case, run, case.inputs)
    more = result(case, run, {**case.inputs, "x": np.concatenate([x, np.zeros_like(x[:7])])})
    return {name: out[: len(x)] for name, out in more.items()}, whole


def nan_neighbour(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """A token of NaN harms itself only."""
    x, whole = case.inputs["x"].copy(), result(case, run, case.inputs)
    x[5] = np.nan
    given = run({**case.inputs, "x": x})
    if not by_name(given) or "y" not in given or np.shape(given["y"]) != whole["y"].shape:
        raise Malformed("shape", "y", f"y is missing, or not of shape {whole['y'].shape}")
    others = np.arange(len(x)) != 5  # noqa: PLR2004
    return {"y": np.asarray(given["y"])[others]}, {"y": whole["y"][others]}


def relabelled_experts(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """Groups in another order, experts in another order within each: the same layer."""
    cfg, whole = case.cfg, result(case, run, case.inputs)
    groups = order_of(cfg.n_group)[:, None] * cfg.experts_per_group + order_of(cfg.experts_per_group)
    order, named = groups.reshape(-1), ("gate_weight", "bias", "gate_proj", "up_proj", "down_proj")
    return result(case, run, {n: t[order] if n in named else t for n, t in case.inputs.items()}), whole


def token_alone(case: Case, run: Run) -> tuple[Tensors, Tensors]:
    """A token alone has the bits it has in the batch."""
    x, whole = case.inputs["x"], result(case, run, case.inputs)
    alone = [result(case, run, {**case.inputs, "x": x[t : t + 1]}) for t in range(0, len(x), 5)]
    return {n: np.concatenate([a[n] for a in alone]) for n in whole}, {n: out[::5] for n, out in whole.items()}


RELATIONS: dict[str, tuple[Relation, bool]] = {
    "permuted-tokens": (permuted_tokens, False),
    "split-batch": (split_batch, False),
    "padded-batch": (padded_batch, False),
    "nan-neighbour": (nan_neighbour, False),
    "relabelled-experts": (relabelled_experts, False),
    "token-alone": (token_alone, True),
}


def relate(case: Case, run: Run) -> tuple[Finding, str | None]:
    """Exact: the same bits. Near: each answer may be off by its bound, so the two by twice the largest."""
    relation, exact = RELATIONS[case.manner]
    given, should = relation(case, run)
    best = Finding("pass", "relation", None)
    for name, got in given.items():
        want = should[name].astype(np.float64)
        bound = np.zeros_like(want) if exact else np.full_like(want, 2 * answer(case).bounds[name].max(initial=0))
        ratio, index = worst(got, want, bound)
        if not ratio <= 1:
            says = f"{case.manner}: {name}{list(index)} is {got[index]:.9g} and {want[index]:.9g}"
            return Finding("fail", "relation", None if exact else ratio, says), name
        best = best if exact else best._replace(ratio=max(ratio, best.ratio or 0.0))
    return best, None


class Pairs(NamedTuple):
    """A relation as data: the calls' inputs, and for each output the places (call, row) that must agree."""

    calls: list[Tensors]
    rows: dict[str, tuple[Array, Array]]  # given (n,2), should (n,2)


def pairs(case: Case) -> tuple[Pairs, bool]:
    """Put a relation's questions to nobody, with labels for answers; and whether it is exact."""
    relation, exact = RELATIONS[case.manner]
    calls: list[Tensors] = [dict(case.inputs)]

    def run(inputs: Tensors) -> object:
        if any(inputs[name] is not case.inputs[name] for name in inputs):
            calls.append(inputs)
            return labels(case, len(calls) - 1, inputs)
        return labels(case, 0, inputs)

    given, should = relation(case, run)
    rows = {name: (places(given[name]), places(should[name])) for name in given}
    return Pairs(calls, rows), exact


STRIDE = 2**16  # rows of a call, at most


def labels(case: Case, call: int, inputs: Tensors) -> Tensors:
    """An answer whose every number says which row of which call it stands in."""
    label = 1 + call * STRIDE + np.arange(len(inputs["x"]), dtype=np.float64)[:, None]
    if case.op == "gate":
        slots = np.arange(case.cfg.num_experts_per_tok)
        return {"topk_idx": slots + np.zeros_like(label, np.int64), "topk_weight": label + 0 * slots}
    return {"y": label + np.zeros(case.cfg.hidden_size)}


def places(labelled: Array) -> Array:
    """Labels as (call, row)."""
    whole = labelled.max(axis=-1).astype(np.int64) - 1
    return np.stack([whole // STRIDE, whole % STRIDE], axis=-1)
