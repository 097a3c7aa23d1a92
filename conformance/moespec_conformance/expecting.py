"""What the corpus says of an answer: for each output a kind of check, and the tensors that it needs.

golden/README.md describes the kinds for readers in any language. All of it is computed by the Portable reading, or by
arithmetic that is exact in any case, so that every machine writes the same bytes.
"""

from dataclasses import replace
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from moespec.formats import decode, encode
from moespec.storage import outside, scale_outside
from moespec_conformance.judge import blocks
from moespec_conformance.judge.form import defined
from moespec_conformance.judge.relation import pairs
from moespec_conformance.judge.stored import empty_places, format_out
from moespec_conformance.judge.verdict import certain, nearest
from moespec_conformance.oracle import Answer, answer, choices
from moespec_conformance.protocol import Array, Case, Tensors
from moespec_conformance.readings.portable import plain

LARGEST = 1024  # elements of an output that are held


class Check(NamedTuple):
    """How one output is judged, and by which tensors."""

    kind: str  # exact | bounded | selection | codes | quantized
    tensors: Tensors


def expected(case: Case, *, portable: bool = True) -> tuple[dict[str, Any], Tensors]:
    """How each output is judged, and with what numbers: the same on every machine, unless that does not matter."""
    if case.kind == "reject":
        return {"kind": "reject", "outputs": {}}, {}
    if case.kind == "relation":
        return related(case, portable=portable)
    right = answer(case, portable=portable)
    if case.op == "dispatch":  # whose padding rows are nobody's
        right = replace(right, values=defined(case, right.values))
    checks = {name: check_of(case, name, right) for name in right.values}
    if checks.get("topk_idx", Check("", {})).kind == "selection":
        checks["topk_idx"].tensors.update(selection(case, portable=portable))
    held: Tensors = {}
    steps: dict[str, int] = {}
    for name, check in checks.items():
        if check.kind in ("exact", "bounded") and (step := step_of(check.tensors[name].shape)) > 1:
            steps[name] = step
            checks[name] = check._replace(tensors={n: t.reshape(-1)[::step] for n, t in check.tensors.items()})
        held |= checks[name].tensors
    kinds = {name: check.kind for name, check in checks.items()}
    return {"kind": case.kind, "outputs": kinds, **({"every": steps} if steps else {})}, held


def step_of(shape: tuple[int, ...]) -> int:
    """Of a large output every n-th element is held, in C order; n shares no factor with any of its sizes."""
    step = -(-prod(shape) // LARGEST)
    while step > 1 and any(gcd(step, size) > 1 for size in shape):
        step += 1
    return step


def check_of(case: Case, name: str, right: Answer) -> Check:
    """One output's check."""
    value = right.values[name]
    if name == "codes":
        near = case.kind == "bounded" and case.op in ("quantize", "requantize")
        return Check("quantized" if near else "codes", {name: codes_of(case, right)})
    if name == "scale":
        return scales(case, right)
    if name == "topk_idx" and name not in case.inputs and not certain(case.cfg):
        return Check("selection", {name: value.astype(np.int64)})
    if value.dtype.kind in "iu":
        return Check("exact", {name: value.astype(np.int64)})
    if case.kind == "exact" or name not in right.bounds:
        return but_for(nobodys(case, name, value), name, one_nan(nearest(case, name, value).astype(np.float32)))
    once = one_nan(value.astype(np.float32))
    bound = up(right.bounds[name] + np.abs(once.astype(np.float64) - value))
    bound[nobodys(case, name, value)] = np.inf
    return Check("bounded", {name: once, f"{name}.bound": bound})


def codes_of(case: Case, right: Answer) -> Array:
    """Codes as they are stored; of NaN always the same one, and 0 where they are free: machines differ there."""
    fmt = format_out(case)
    number = decode(right.values["codes"], fmt).astype(np.float64)
    codes = np.where(np.isnan(number), encode(np.full(1, np.nan, np.float32), fmt, "nan"), right.values["codes"])
    return np.asarray(outside(np.where(blocks.free_codes(case, right, number), codes.dtype.type(0), codes), fmt))


def but_for(free: Array, name: str, want: Array) -> Check:
    """Exact; or exact but for places where anything may lie, whose bound is infinite."""
    if not free.any():
        return Check("exact", {name: want})
    return Check("bounded", {name: want, f"{name}.bound": np.where(free, np.float32(np.inf), np.float32(0))})


def nobodys(case: Case, name: str, value: Array) -> Array:
    """Places of an output that are nobody's (DSP-7, LIN-5), in its shape."""
    empty = np.zeros(value.shape, np.bool)
    if case.op == "layout" and name == "rows" and case.cfg.layout == "masked":
        empty[answer(case).values["row_token"] < 0] = True
    if case.op == "grouped_matmul_fp8" and case.cfg.layout != "k_grouped":
        empty[empty_places(case)] = True
    return empty


def scales(case: Case, right: Answer) -> Check:
    """Scales bit for bit; or near, with a bound (QNT-2), and free where a block has none (QNT-5)."""
    want = right.values["scale"]
    if case.kind == "exact" or case.op == "lift_fp4":
        return Check("exact", {"scale": scale_outside(one_nan(want), case.cfg.scale_format)})
    near, bound = blocks.scales_near(blocks.blocks_of(case, right))
    return Check("bounded", {"scale": near.astype(np.float32), "scale.bound": up(bound)})


def one_nan(numbers: Array) -> Array:
    """The same numbers; every NaN of the same bits."""
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers)


def selection(case: Case, *, portable: bool) -> Tensors:
    """What the gate chooses by: scores with bias, and groups, each with bounds."""
    choice, groups = choices(case, portable=portable)
    made: Tensors = {}
    for name, pair in {"choice": choice, **({} if groups is None else {"group_scores": groups})}.items():
        value, once = plain(pair.v), plain(pair.v).astype(np.float32)
        made |= {name: once, f"{name}.bound": up(plain(pair.e) + np.abs(once.astype(np.float64) - value))}
    return made


def up(bound: Array) -> Array:
    """Bounds as float32, rounded up."""
    single = bound.astype(np.float32)
    return np.where(single < bound, np.nextafter(single, np.float32(np.inf)), single)


def related(case: Case, *, portable: bool) -> tuple[dict[str, Any], Tensors]:
    """Which rows of which calls must agree, and how closely; the calls' inputs are files of their own."""
    found, exact = pairs(case)
    kinds, held = dict.fromkeys(found.rows, "rows"), dict[str, Array]()
    for name, (given, should) in found.rows.items():
        widest = 0.0 if exact else 2 * answer(case, portable=portable).bounds[name].max(initial=0)
        held |= {f"{name}.given": given, f"{name}.should": should, f"{name}.bound": up(np.array(widest))}
    return {"kind": "relation", "relation": case.manner, "calls": len(found.calls), "outputs": kinds}, held
