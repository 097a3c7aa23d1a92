"""A wrong answer, made comparable: numbers by name, choices as sets, weights by expert, so that slots have no order."""

from typing import Any, NamedTuple

import numpy as np

from moespec.signatures import OPS, expected
from moespec_conformance.adapters.reference import compute
from moespec_conformance.asking import Reply
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judge.selection import members, proper
from moespec_conformance.judging import ask
from moespec_conformance.mutants.reach import functions_of
from moespec_conformance.oracle import Answer, answer
from moespec_conformance.protocol import Array, Case, Tensors, by_name, to_numpy
from moespec_conformance.runner import Runner


class Evidence(NamedTuple):
    """What an implementation said to a case, what is right, and where in the reference a bug could be to show there.

    error: of each output that is wrong, how far it is off (see `distance`); of all, where only their spread is.
    """

    case: Case
    happened: str
    given: Tensors
    right: Tensors
    error: dict[str, float]
    functions: frozenset[str]


def evidence(case: Case, runner: Runner) -> Evidence:
    """Ask the implementation, and note what is wrong."""
    reply = ask(case, runner, case.inputs)
    given = legible(case, reply)
    functions = functions_of(lambda: run_reference(case))
    if case.kind in ("reject", "relation"):
        return Evidence(case, reply.happened, given, {}, {}, functions)
    known = answer(case)
    right = comparable(case, known.values)
    off = {n: distance(a, right[n]) for n, a in given.items() if n in right}
    wrong = {n: error for n, error in off.items() if beyond(n, given[n], right, known, case)}
    return Evidence(case, reply.happened, given, right, wrong or off, functions)


def run_reference(case: Case) -> None:
    """Run the reference on the case, whatever it makes of it."""
    with np.errstate(all="ignore"):
        try:
            compute(case.op, dict(case.config), **case.inputs)
        except ValueError:
            return


def legible(case: Case, reply: Reply) -> Tensors:
    """The outputs that can be compared; of a malformed answer, those with a shape that is asked for."""
    if reply.happened != "answered":
        return {}
    if case.kind == "reject":  # its config may be impossible
        return dict(reply.outputs) if by_name(reply.outputs) else {}
    try:
        return comparable(case, outputs_of(case, reply.outputs))
    except Malformed:
        return comparable(case, raw(case, reply.outputs))


def raw(case: Case, outputs: Any) -> Tensors:  # noqa: ANN401 - whatever an adapter returned
    """Outputs that are arrays of numbers, in the op's order."""
    held = outputs if by_name(outputs) else {}
    arrays = {name: to_numpy(held[name]) for name in expected(OPS[case.op].outputs, case.cfg) if name in held}
    return {name: array for name, array in arrays.items() if array.dtype != object}


def comparable(case: Case, outputs: Tensors) -> Tensors:
    """Choices as sets (T, E), weights by expert (T, E), all else as it is."""
    made = dict(outputs)
    ids = made.get("topk_idx", case.inputs.get("topk_idx"))
    experts = case.cfg.n_routed_experts
    if ids is None or ids.ndim != 2 or not proper(ids.astype(np.int64), (ids >= 0).sum(-1), experts).all():  # noqa: PLR2004
        return made
    ids = ids.astype(np.int64)
    if "topk_idx" in made:
        made["topk_idx"] = members(ids, experts)
    if "topk_weight" in made and made["topk_weight"].shape == ids.shape:
        made["topk_weight"] = by_expert(made["topk_weight"], ids, experts)
    return made


def by_expert(values: Array, ids: Array, experts: int) -> Array:
    """Values of slots at their experts' columns; an empty slot goes to one spare column, cut off again."""
    dense = np.zeros((len(ids), experts + 1))
    np.put_along_axis(dense, ids, values.astype(np.float64), axis=-1)
    return dense[:, :-1]


def distance(a: Array, b: Array) -> float:
    """How far two outputs are apart: the share of whole numbers that differ, or the norm of the difference."""
    if a.shape != b.shape:
        return np.inf
    if a.dtype.kind in "iub" or b.dtype.kind in "iub":
        return np.count_nonzero(np.not_equal(a, b)) / max(a.size, 1)
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, a - b)
        return float(np.sqrt(np.sum(apart * apart))) if np.isfinite(apart).all() else np.inf


def bound_of(name: str, known: Answer, case: Case) -> Array:
    """An output's bound in the form of `comparable`; 0 where it is exact."""
    if name not in known.bounds:
        return np.zeros(())
    bound = {"topk_idx": known.values["topk_idx"]} if "topk_idx" in known.values else {}
    return comparable(case, {**bound, name: known.bounds[name]})[name]


def beyond(name: str, given: Array, right: Tensors, known: Answer, case: Case) -> bool:
    """Whether an output is wrong anywhere."""
    want = right[name]
    if given.shape != want.shape:
        return True
    if given.dtype.kind in "iub" or want.dtype.kind in "iub":
        return bool(np.any(given != want))
    bound = bound_of(name, known, case)
    with np.errstate(all="ignore"):
        alike = (
            (np.abs(given.astype(np.float64) - want) <= bound) | (given == want) | (np.isnan(given) & np.isnan(want))
        )
    return not alike.all()
