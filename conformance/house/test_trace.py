"""Traces: every step that an implementation names is compared, and the first that differs is found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_check import moespec

from moespec.signatures import OPS
from moespec.signatures_trace import TRACES, stages
from moespec_conformance import check
from moespec_conformance.adapters.plain import Adapter as Plain
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.adapters.reference import compute
from moespec_conformance.cases import all_cases
from moespec_conformance.judging import judged
from moespec_conformance.mutants.adapter import Adapter as Mutant
from moespec_conformance.oracle import answer, traced
from moespec_conformance.protocol import Result, Tensors
from moespec_conformance.report.jsonl import read
from moespec_conformance.runner import InProcess

# of every op one case; other routers, exact sums, weights that enter early, no gate, a capacity, empty slots
ORDINARY = [f"{op.replace('_', '-')}-ordinary" for op in TRACES]
SOME = [*ORDINARY, "gate-backward-noisy-topk-ordinary", "gate-backward-hierarchical-ordinary", "moe-backward-corridor"]
SOME += ["moe-deepseek-v4-flash-ordinary", "expert-switch-ordinary", "moe-backward-switch-ordinary", "moe-replay-holes"]
SMALL = {op: f"{op.replace('_', '-')}-one-{'row' if op.startswith('expert') else 'token'}" for op in TRACES}
SMALL["gate_backward"] = "gate-backward-ordinary"
STEPS = [
    (op, step)
    for op, name in SMALL.items()
    for step in stages(op, all_cases()[name].cfg)
    if step not in {tensor.name for tensor in OPS[op].outputs}
]


class Changed:
    """The reference with one stage of one op changed, or left out."""

    name, version = "changed", "1"

    def __init__(self, op: str, stage: str, change: Any = None) -> None:
        """Which, and how."""
        self.op, self.stage, self.change = op, stage, change
        setattr(self, op, self.run)

    def run(self, config: dict[str, Any], **tensors: Any) -> Tensors:
        """Answer as the reference does, but for that stage."""
        out = {name: np.array(array) for name, array in compute(self.op, config, **tensors).items()}
        if self.change is None:
            del out[self.stage]
            return out
        return {**out, self.stage: self.change(out[self.stage])}


def spoiled(array: Any) -> Any:
    """The last element moved."""
    array = array.copy()
    array[..., -1] += 0.1 + np.abs(array).max(initial=0)
    return array


def follow(adapter: Any, name: str, *, trace: bool = True) -> Result:
    """The verdict on one case."""
    with np.errstate(all="ignore"):
        return judged(all_cases()[name], InProcess(adapter), trace=trace)


@pytest.mark.parametrize("name", SOME)
def test_the_reference_names_every_step_and_all_are_right(name: str) -> None:
    """None is missing from its outputs or from the oracle's."""
    case = all_cases()[name]
    named = set(compute(case.op, dict(case.config), **case.inputs))
    asked = {t for t in stages(case.op, case.cfg) if t != "group_scores" or "topk_idx" not in case.inputs}
    assert asked <= named
    assert asked <= set(traced(case).values)
    result = follow(Reference(), name)
    assert (result.status, result.trace) == ("pass", ()), result.message


@pytest.mark.parametrize("op", TRACES)
def test_the_other_implementation_names_right_steps(op: str) -> None:
    """Plain: code that shares nothing with the reference."""
    assert follow(Plain(), SMALL[op]).status == "pass"


@pytest.mark.parametrize(("op", "step"), STEPS)
def test_the_step_that_was_spoiled_is_named(op: str, step: str) -> None:
    """It alone, and at a place; without a trace only outputs are judged."""
    adapter = Changed(op, step, spoiled)
    result = follow(adapter, SMALL[op])
    assert (result.status, result.stage) == ("fail", step)
    assert [(s["stage"], s["where"] != "") for s in result.trace if s["status"] == "fail"] == [(step, True)]
    assert follow(adapter, SMALL[op], trace=False).status == "pass"


@pytest.mark.parametrize(
    ("change", "kind"),
    [(lambda a: a[:-1], "shape"), (lambda a: a * np.nan, "nan"), (lambda a: a.astype(np.float16), "dtype")],
    ids=["shape", "nan", "dtype"],
)
def test_a_step_of_the_wrong_form_is_named_too(change: Any, kind: str) -> None:
    """The steps after it are still compared."""
    result = follow(Changed("moe", "up_out", change), "moe-ordinary")
    assert (result.status, result.stage, result.kind) == ("fail", "up_out", kind)
    assert [step["stage"] for step in result.trace][-1] == "y"


def test_a_missing_output_fails_and_a_missing_step_does_not() -> None:
    """Only outputs must be given."""
    assert follow(Changed("moe", "gate_out"), "moe-ordinary").status == "pass"
    result = follow(Changed("moe", "y"), "moe-ordinary")
    assert (result.stage, result.kind, result.message) == ("y", "shape", "y is missing")


@pytest.mark.parametrize(
    ("slug", "case", "wrong"),
    [
        ("gate-group-max", "moe-ordinary", ["group_scores", "topk_idx"]),
        ("gate-bias-in-weights", "moe-bias-minus-one", ["topk_weight", "routed", "y"]),
        ("expert-tf32-products", "expert-ordinary", ["gate_out"]),
    ],
)
def test_mutants_part_from_the_reference_where_their_bug_is(slug: str, case: str, wrong: list[str]) -> None:
    """A wrong choice is one step; what follows is right, given that choice."""
    result = follow(Mutant(slug), case)
    found = [step["stage"] for step in result.trace if step["status"] == "fail"]
    assert found[: len(wrong)] == wrong
    assert ("y" in found) == (slug != "gate-group-max")
    assert result.stage == wrong[0]


@pytest.mark.parametrize("op", TRACES)
def test_answers_hold_outputs_alone(op: str) -> None:
    """So that nothing but a trace sees the steps."""
    case = all_cases()[f"{op.replace('_', '-')}-ordinary"]
    names = {tensor.name for tensor in OPS[op].outputs}
    assert set(answer(case).values) <= names
    assert set(answer(case).bounds) <= names


def test_the_api_and_the_command_trace(tmp_path: Path) -> None:
    """A table in the panel, the first divergence in words, and all of it in results.jsonl."""
    report = check(Changed("expert", "up_out", spoiled), ops=["expert"], quick=True, trace=True)
    assert {result.stage for result in report.results if result.status == "fail"} == {"up_out"}
    assert check(Changed("expert", "up_out", spoiled), ops=["expert"], quick=True).ok
    case = ("--case", "moe-ordinary", "--report", str(tmp_path))
    done = moespec("check", "mutant:gate-group-max", "--trace", *case)
    assert "first divergence  group_scores at token" in done.stdout
    assert "WRONG" in done.stdout
    (result,) = read(tmp_path).results
    assert [step["stage"] for step in result.trace][:3] == ["logits", "scores", "group_scores"]
    assert json.loads(json.dumps(result.trace[2]))["error_over_bound"] > 1
    assert "first divergence" not in moespec("check", "mutant:gate-group-max", *case).stdout
