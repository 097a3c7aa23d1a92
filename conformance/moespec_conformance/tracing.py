"""Every named step of an answer beside the reference's, in order of the computation: where the two first part.

Steps are judged as outputs are: within bounds, and after the choice of experts given the implementation's own. A step
that the implementation does not name is left out.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from moespec.signatures import OPS, expected, optional
from moespec.signatures_trace import TRACES, stages
from moespec_conformance.judge import selection
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.form import Malformed, letters_of, output_of, outputs_of
from moespec_conformance.judge.verdict import compare, judgements, one, rerouted
from moespec_conformance.oracle import Answer, traced
from moespec_conformance.protocol import Case, Tensors, by_name

AXES = {"T": "token", "N": "row", "W": "slot", "E": "expert", "G": "group"}  # all others are columns


class Step(NamedTuple):
    """A stage, and what it showed."""

    stage: str
    found: Finding


def steps(case: Case, given: Any) -> list[Step]:  # noqa: ANN401 - whatever an adapter returned
    """What every stage that was given shows."""
    if case.op not in TRACES or not by_name(given):
        return [Step(*found) for found in judgements(case, outputs_of(case, given))]
    arrays, found = formed(case, given)
    found |= dict(compared(case, arrays))
    return [Step(name, found[name]) for name in stages(case.op, case.cfg) if name in found]


def formed(case: Case, given: dict[str, Any]) -> tuple[Tensors, dict[str, Finding]]:
    """The stages as arrays; and of those that are no arrays of the right form, or missing, what is wrong."""
    letters, arrays, wrong = letters_of(case), Tensors(), dict[str, Finding]()
    outputs = expected(OPS[case.op].outputs, case.cfg)
    for name, tensor in stages(case.op, case.cfg).items():
        try:
            if name in given:
                arrays[name] = output_of(case, tensor, given, letters)
            elif name in outputs and not optional(tensor):
                wrong[name] = Finding("fail", "shape", None, f"{name} is missing")
        except Malformed as malformed:
            wrong[name] = Finding("fail", malformed.kind, None, str(malformed))
    if "topk_idx" not in arrays and "topk_idx" not in case.inputs:
        arrays.pop("topk_weight", None)  # whose weights they are, nobody knows
    return arrays, wrong


def compared(case: Case, arrays: Tensors) -> Iterator[tuple[str, Finding]]:
    """Each stage beside the reference's; those after a choice that names no experts cannot be compared."""
    right = traced(case)
    for name, array in arrays.items():
        if name in right.values:
            yield name, beside(case, right, arrays, name)
        if rerouted(case, right, arrays, name):
            ids = array.astype(np.int64)
            if not selection.proper(ids, (right.values[name] >= 0).sum(axis=-1), case.cfg.n_routed_experts).all():
                return
            right = traced(case, ids)


def beside(case: Case, right: Answer, arrays: Tensors, name: str) -> Finding:
    """One stage. What is exact of an op's outputs need not be exact on the way to them."""
    got, want = arrays[name], right.values[name]
    if got.shape != want.shape:
        return Finding("fail", "shape", None, f"{name} has shape {got.shape}, not {want.shape}")
    if name in expected(OPS[case.op].outputs, case.cfg):
        return one(case, right, arrays, name)
    return compare(replace(case, kind="bounded"), right, name, got)


def told(case: Case, followed: list[Step]) -> tuple[dict[str, Any], ...]:
    """Steps as they stand in results.jsonl: stage, status, error_over_bound, and where it is worst."""
    made = list[dict[str, Any]]()
    for stage, found in followed:
        ratio = None if found.ratio is None else min(found.ratio, sys.float_info.max)
        wrong = found.status == "fail"
        place = where(stages(case.op, case.cfg)[stage].dims, found.at) if wrong else ""
        made.append({"stage": stage, "status": found.status, "error_over_bound": ratio, "where": place})
    return tuple(made)


def where(dims: tuple[str, ...], at: tuple[int, ...]) -> str:
    """An element in words: "token 3, expert 5"."""
    return ", ".join(f"{AXES.get(letter, 'column')} {index}" for letter, index in zip(dims, at, strict=False))
