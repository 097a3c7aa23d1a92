"""Which smaller cases may be asked: legal ones, to which there is one right answer, and which the reference passes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.case_folder import ILLEGAL, legal
from moespec_conformance.judge.selection import decisive
from moespec_conformance.judge.verdict import certain
from moespec_conformance.judging import judged
from moespec_conformance.oracle import choices
from moespec_conformance.protocol import BFLOAT16, Array, Case, Result
from moespec_conformance.readings.portable import plain
from moespec_conformance.runner import InProcess, Runner

WEIGHTS = ("gate_weight", "weight", "bias", "noise_weight", "group_weight", "tid2eid")
RIGHT = ("pass", "quality_warning")


def like(first: Result, start: Case, runner: Runner) -> Callable[[Case], bool]:
    """Whether a candidate fails as the start did: with the same status, at the same stage."""
    reference = InProcess(Reference())

    def fails(case: Case) -> bool:
        if not (allowed(case) and certain_routing(case, start)):
            return False
        result = judged(case, runner)
        if (result.status, result.stage) != (first.status, first.stage):
            return False
        return judged(in_float32(case), reference).status in RIGHT

    return fails


def allowed(case: Case) -> bool:
    """Whether config and inputs are legal."""
    try:
        legal(case)
    except ILLEGAL:
        return False
    return True


def in_float32(case: Case) -> Case:
    """The same numbers in the arithmetic of the reference."""
    wide = {n: t.astype(np.float32) if t.dtype == BFLOAT16 else t for n, t in case.inputs.items()}
    return replace(case, build=lambda: wide)


def certain_routing(case: Case, start: Case) -> bool:
    """Whether no rounding can change the choice of experts where that would change what is right.

    A gate's choice is judged within bounds. A layer may be judged by its sum alone: its choice must be beyond doubt.
    Where a case promises that it is (ties, other routers, capacities), its router and its tokens stay what they are.
    """
    if case.op not in ("gate", "moe", "moe_fp8") or "topk_idx" in case.inputs:
        return True
    if start.kind == "selection" or certain(case.cfg) or case.cfg.drop_policy:
        return as_promised(case, start)
    return case.op == "gate" or all_decisive(case)


def all_decisive(case: Case) -> bool:
    """Whether every token's choice is beyond doubt."""
    choice, groups = choices(case)
    pair = None if groups is None else (plain(groups.v), plain(groups.e))
    clear = decisive((plain(choice.v), plain(choice.e)), pair, case.cfg)
    return bool(np.all(clear | ~case.inputs.get("mask", np.ones_like(clear))))


def as_promised(case: Case, start: Case) -> bool:
    """Whether its router is the start's, and each token one of its; all of them, where tokens depend on each other."""
    same = [np.array_equal(case.inputs.get(n, 0), start.inputs.get(n, 0)) for n in WEIGHTS]
    fields = ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group")
    same += [case.config[field] == start.config[field] for field in fields]
    together = case.cfg.drop_policy or case.cfg.router == "expert_choice"
    x, before = case.inputs["x"], start.inputs["x"]
    known = np.array_equal(x, before) if together else rows(x) <= rows(before)
    return all(same) and known


def rows(x: Array) -> set[bytes]:
    """The tokens as bytes."""
    return {row.tobytes() for row in x}
