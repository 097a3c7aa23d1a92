"""What the right answer to a case is, and how far from it a legal implementation may be.

The answer is the reference's own lines, read by `Bounded` (and by `Spread`, when the case asks for it) on the
case's inputs. `portable=True` reads them by `Portable` arrays inside: the same bits on every machine, for golden.
With another `source`, a mutant's, it is what that mutant would call right, and how far from it one may be.
Of the ops of FP8 only sums have bounds. Codes, and what a case wants bit for bit, are the reference's plain answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from moespec.ops_fp8 import FP8_OPS
from moespec.ops_moe_fp8 import MOE_FP8_OPS
from moespec.signatures import OPS, expected
from moespec.signatures_trace import stages
from moespec.storage import inside, scale_inside
from moespec_conformance.judge.stored import format_in, format_out
from moespec_conformance.protocol import Array, Case, Tensors
from moespec_conformance.readings.bounded import STORE, Bounded, rounded
from moespec_conformance.readings.portable import Portable, plain
from moespec_conformance.readings.spread import Spread
from moespec_conformance.source import REFERENCE, Source

# GATE-1: never computed in less than float32
TRAINED = {"weight", "gate_weight", "noise_weight", "group_weight"}
ROUTER = {t.name for op in OPS.values() for t in op.inputs if t.holds == "router"} | TRAINED
BOUNDED = ("matmul_fp8", "grouped_matmul_fp8", "adamw", *MOE_FP8_OPS)  # of FP8's ops those with near clauses of sums
SUMS = ("float32", "promoted")  # ACC: rules inside which the order is free


@dataclass(frozen=True)
class Answer:
    """By output: values in float64 (ids as integers), bounds, and variances where a spread is asked for."""

    values: Tensors
    bounds: Tensors
    variances: Tensors


def is_fp8(op: str) -> bool:
    """Whether an op is one of sections 18 to 22."""
    return op in FP8_OPS or op in MOE_FP8_OPS


def is_plain(case: Case) -> bool:
    """Whether the answer is the reference's in float32, without bounds: blocks, and what is wanted bit for bit."""
    blocks = is_fp8(case.op) and case.op not in BOUNDED
    return blocks or (is_fp8(case.op) and (case.kind == "exact" or case.cfg.accumulate not in SUMS))


def read(
    case: Case, lift: Callable[[str, Array], Any], topk_idx: Array | None = None, source: Source = REFERENCE
) -> dict[str, Any]:
    """Run the source's op on the case's inputs as `lift(name, array)` makes them, perhaps with other ids."""
    inputs = {**case.inputs, **({} if topk_idx is None else {"topk_idx": topk_idx})}
    holds = {name: tensor.holds for name, tensor in expected(OPS[case.op].inputs, case.cfg).items()}
    lifted: dict[str, Any] = {}
    for name, array in inputs.items():
        if holds[name] in ("codes", "scale"):
            lifted[name] = lifted_codes(case, name, array, lift, source)
        else:
            lifted[name] = array if array.dtype.kind in "iub" else lift(name, array)
    with np.errstate(all="ignore"):
        return source.table[case.op](config_of(case, source), **lifted)


def config_of(case: Case, source: Source) -> Any:  # noqa: ANN401 - a MoEConfig of that source
    """The case's config, as this source reads it."""
    return case.cfg if source is REFERENCE else source.config(case.config)


def lifted_codes(
    case: Case, name: str, array: Array, lift: Callable[[str, Array], Any], source: Source = REFERENCE
) -> Any:  # noqa: ANN401 - a reading
    """Codes as the exact numbers they stand for, and scales.

    A layer's weights stay codes, which meet numbers only in products; in E2M1 their scales stay too, all powers of
    two, since what is lifted to E4M3 (MFP-8) are codes.
    """
    weight = case.op in MOE_FP8_OPS
    if name.endswith("scale"):
        return array if weight and case.cfg.b_format == "e2m1" else lift(name, scale_inside(array))
    fmt = format_in(case, name)
    return array if weight else lift(name, source.module("formats").decode(inside(array, fmt), fmt))


def bounded(
    case: Case, topk_idx: Array | None = None, *, portable: bool = False, source: Source = REFERENCE
) -> dict[str, Any]:
    """The outputs and traces as Bounded arrays (ids as they are)."""

    def lift(name: str, array: Array) -> Bounded:
        values = np.asarray(array, np.float64)
        arithmetic = "float32" if name in ROUTER else case.arithmetic
        return Bounded.of(Portable(values) if portable else values, arithmetic)

    made = read(case, lift, topk_idx, source)
    return {name: stored(case, name, made[name]) for name in stages(case.op, case.cfg) if name in made}


def stored(case: Case, name: str, out: Any) -> Any:  # noqa: ANN401 - Bounded or ids
    """MOE-7: what is not the router's may leave in the case's arithmetic."""
    holds = stages(case.op, case.cfg)[name].holds
    store = STORE[case.arithmetic]
    if isinstance(out, Bounded) and holds == "float" and store and not out.store:
        return rounded(out.v, out.e, store, c=0.0)
    return out


def answer(case: Case, topk_idx: Array | None = None, *, portable: bool = False, source: Source = REFERENCE) -> Answer:
    """The answer to a case; with topk_idx, given that routing. Only the reference's own is kept."""
    if topk_idx is None and source is REFERENCE:
        return _answer(case, portable)
    return outputs_alone(case, _compute(case, topk_idx, portable=portable, source=source))


def traced(case: Case, topk_idx: Array | None = None) -> Answer:
    """The answer with every stage on the way to it; with topk_idx, given that routing."""
    return _compute(case, topk_idx, portable=False)


def outputs_alone(case: Case, right: Answer) -> Answer:
    """An answer without the stages that are no outputs."""
    names = expected(OPS[case.op].outputs, case.cfg)
    kept = [{name: a for name, a in held.items() if name in names} for held in vars(right).values()]
    return Answer(*kept)


@cache
def _answer(case: Case, portable: bool) -> Answer:  # noqa: FBT001 - a cache key
    return outputs_alone(case, _compute(case, None, portable=portable))


def plain_answer(case: Case, topk_idx: Array | None, source: Source = REFERENCE) -> Answer:
    """The reference's own answer in float32: codes as unsigned integers, one each, and scales as float32."""
    given = {**case.inputs, **({} if topk_idx is None else {"topk_idx": topk_idx})}
    with np.errstate(all="ignore"):
        out = source.table[case.op](config_of(case, source), **given)
    if "codes" in out:
        out["codes"] = inside(out["codes"], format_out(case))
    if "scale" in out:
        out["scale"] = scale_inside(out["scale"])
    return Answer({name: np.asarray(array) for name, array in out.items()}, {}, {})


def _compute(case: Case, topk_idx: Array | None, *, portable: bool, source: Source = REFERENCE) -> Answer:
    if is_plain(case):
        return plain_answer(case, topk_idx, source)
    out = bounded(case, topk_idx, portable=portable, source=source)
    values = {name: plain(a.v) if isinstance(a, Bounded) else a for name, a in out.items()}
    bounds = {name: plain(a.e) for name, a in out.items() if isinstance(a, Bounded)}
    variances: Tensors = {}
    if case.kind == "spread" and source is REFERENCE:
        spread = read(case, lambda _, array: Spread.lift(array), topk_idx)
        variances = {name: a.q for name, a in spread.items() if isinstance(a, Spread)}
    return Answer(values, bounds, variances)


def gate_of(case: Case, inputs: Tensors) -> Case:
    """The gate of a layer's case."""
    copied = {name: tensor.copy() for name, tensor in inputs.items()}
    return Case(case.id, "gate", case.config, lambda: copied, (), arithmetic=case.arithmetic)


@cache
def choices(case: Case, *, portable: bool = False) -> tuple[Bounded, Bounded | None]:
    """What a gate chooses by: biased scores (T,E), and the groups' scores (T,G) if there are groups."""
    layer = case.op.startswith("moe")
    inputs = {"x": case.inputs["x"], "weight": case.inputs["gate_weight" if layer else "weight"]}
    inputs |= {"bias": case.inputs["bias"]} if "bias" in case.inputs else {}
    gate = gate_of(case, inputs)
    return chosen_by(gate, bounded(gate, portable=portable))


def chosen_by(gate: Case, out: dict[str, Any]) -> tuple[Bounded, Bounded | None]:
    """The same, of a gate's outputs."""
    bias = np.asarray(gate.inputs.get("bias", np.zeros(gate.cfg.n_routed_experts)), np.float64)
    basis = out["logits" if gate.cfg.choose_by == "logits" else "scores"]
    lifted = Portable(bias) if isinstance(basis.v, Portable) else bias
    return basis + Bounded(*Bounded.exact(lifted)), out.get("group_scores")
