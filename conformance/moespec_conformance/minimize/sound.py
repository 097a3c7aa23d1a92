"""Which smaller cases may be asked: legal ones, to which there is one right answer, and which the reference passes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.case_folder import ILLEGAL, legal
from moespec_conformance.judge.doubt import sure
from moespec_conformance.judge.verdict import certain
from moespec_conformance.judging import judged
from moespec_conformance.protocol import BFLOAT16, Array, Case, Result
from moespec_conformance.runner import InProcess, Runner

ROUTER = ("gate_weight", "weight", "bias", "noise", "noise_weight", "group_weight", "mask")
ROUTED = ("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group")
BY_WEIGHT = ("probs", "gshard", "reroute", "device_probs")  # policies that drop by numbers which are rounded
RIGHT = ("pass", "quality_warning")


def fit(start: Case) -> Callable[[Case], bool]:
    """Whether a case may take the start's place: it is legal, and its choice of experts is no matter of rounding.

    A gate's choice is judged within bounds. A layer may be judged by its sum alone: its choice must be beyond doubt.
    Where a case promises that by its numbers (ties, and capacities that go by weight), its router stays what it is.
    """

    def fits(case: Case) -> bool:
        try:
            legal(case)
        except ILLEGAL:
            return False
        if case.op not in ("gate", "moe", "moe_fp8"):
            return True
        if start.kind == "selection" or case.cfg.drop_policy in BY_WEIGHT:
            return as_promised(case, start)
        return (case.op == "gate" and not certain(case.cfg)) or sure(case)

    return fits


def as_promised(case: Case, start: Case) -> bool:
    """Whether its router is the start's, and each token one of its; all of them, where tokens compete."""
    same = all(np.array_equal(case.inputs.get(name, 0), start.inputs.get(name, 0)) for name in ROUTER)
    same &= all(case.config[field] == start.config[field] for field in ROUTED)
    x, before = case.inputs["x"], start.inputs["x"]
    return same and (np.array_equal(x, before) if case.cfg.drop_policy else rows(x) <= rows(before))


def rows(x: Array) -> set[bytes]:
    """The tokens as bytes."""
    return {row.tobytes() for row in x}


def failing(first: Result, runner: Runner) -> Callable[[Case], bool]:
    """Whether an implementation fails a case as it did first: same status, same stage; and the reference passes it."""
    reference = InProcess(Reference())

    def fails(case: Case) -> bool:
        result = judged(case, runner)
        alike = (result.status, result.stage) == (first.status, first.stage)
        return alike and judged(in_float32(case), reference).status in RIGHT

    return fails


def in_float32(case: Case) -> Case:
    """The same numbers in the arithmetic of the reference."""
    wide = {n: t.astype(np.float32) if t.dtype == BFLOAT16 else t for n, t in case.inputs.items()}
    return replace(case, build=lambda: wide)
