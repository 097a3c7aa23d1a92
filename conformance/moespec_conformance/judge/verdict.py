"""The verdict on one answer: stage by stage, the first wrong one named."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moespec.config import MoEConfig
from moespec.ops_router import ROUTERS, router_of
from moespec.signatures_trace import stages
from moespec_conformance.judge import blocks, flips, near, pattern, selection
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.form import defined
from moespec_conformance.oracle import Answer, answer, choices
from moespec_conformance.protocol import ARITHMETIC, Array, Case, Tensors
from moespec_conformance.readings.portable import plain

# which clauses a wrong stage speaks of, among those of the case
STAGES = {
    "logits": ("GATE-1",),
    "scores": ("ARR-1", "GATE-2"),
    "group_scores": ("GATE-3", "GATE-4"),
    "topk_idx": ("GATE-1", "GATE-2", "GATE-3", "GATE-4", "GATE-5", "GATE-9", "ARR-2"),
    "topk_weight": ("ARR-1", "GATE-1", "GATE-2", "GATE-3", "GATE-6", "GATE-7", "GATE-8", "GATE-9"),
    "gate_out": ("EXP-1",),
    "up_out": ("EXP-1",),
    "h": ("EXP-2", "EXP-5", "EXP-6", "EXP-7"),
    "routed": ("MOE-2",),
    "shared": ("MOE-1", "MOE-3"),
    "dtopk_weight": ("MOE-2",),
    "dscores": ("GATE-6", "GATE-7", "GATE-8", "GATE-14"),
    "scale": ("QNT-1", "QNT-2", "QNT-3", "QNT-5", "QNT-7", "QNT-8"),
    "codes": ("FMT-1", "FMT-2", "FMT-3", "FMT-4", "FMT-5", "QNT-4", "QNT-5", "QNT-7", "QNT-8", "QNT-9"),
}
AXES = {"T": "tokens", "N": "rows", "E": "experts", "F": "rows", "H": "rows", "SF": "rows", "G": "groups", "M": "rows"}


def examine(case: Case, outputs: Tensors) -> tuple[Finding, str | None]:
    """Judge each output in the op's order, later ones given the implementation's own routing."""
    return decided(case, judgements(case, outputs))


def decided(case: Case, found: Iterable[tuple[str, Finding]]) -> tuple[Finding, str | None]:
    """The first that is wrong decides, and none after it is looked at; else the one nearest to its bound."""
    best, stage = Finding("pass", case.kind, None), None
    for name, finding in found:
        if finding.status == "fail":
            return finding, name
        if finding.status == "quality_warning":
            best, stage = finding._replace(ratio=best.ratio), name
        if finding.ratio is not None and (best.ratio is None or finding.ratio > best.ratio):
            best = best._replace(ratio=finding.ratio)
    return best, stage


def judgements(case: Case, outputs: Tensors) -> Iterator[tuple[str, Finding]]:
    """What each output shows."""
    right = answer(case)
    right = replace(right, values=defined(case, right.values))
    for name in outputs:
        yield name, one(case, right, outputs, name)
        if rerouted(case, right, outputs, name):
            right = answer(case, outputs[name].astype(np.int64))


def one(case: Case, right: Answer, outputs: Tensors, name: str) -> Finding:
    """One of the outputs against its answer."""
    if name == "topk_idx" and "topk_idx" not in case.inputs:
        return chosen(case, right, outputs[name])
    if name in ("codes", "scale"):
        return blocks.compare(case, right, outputs, name)
    return compare(case, right, name, outputs[name])


def rerouted(case: Case, right: Answer, outputs: Tensors, name: str) -> bool:
    """Whether this output is a choice, and another than the reference's."""
    free = name == "topk_idx" and "topk_idx" not in case.inputs
    return free and not np.array_equal(outputs[name], right.values[name])


class Compared(NamedTuple):
    """One output, its answer and its bound (zeros where it must be exact)."""

    case: Case
    name: str
    got: Array
    want: Array
    bound: Array


def compare(case: Case, right: Answer, name: str, got: Array) -> Finding:
    """One output against its answer, by the kind of the case."""
    want = right.values[name]
    if got.dtype.kind in "iu" or case.kind == "exact" or name not in right.bounds:
        want = want if got.dtype.kind in "iu" else nearest(case, name, want)
        return same(Compared(case, name, got, want, np.zeros(want.shape)))
    found = within(agreed(Compared(case, name, got, want, right.bounds[name])))
    if found.status != "pass" or name not in right.variances:
        return found
    return usual(name, near.spread(got, want, right.variances[name]), found)


def agreed(c: Compared) -> Compared:
    """Where NaN or infinity is right and was given, nothing is left to compare."""
    got, want = c.got.astype(np.float64), c.want.astype(np.float64)
    right = ~np.isfinite(want) & ((got == want) | (np.isnan(got) & np.isnan(want)))
    if not right.any():
        return c
    return Compared(c.case, c.name, *(np.where(right, 0.0, a) for a in (got, want, c.bound)))


def within(c: Compared) -> Finding:
    """Near: no element beyond its bound."""
    ratio, index = near.worst(c.got, c.want, c.bound)
    if ratio <= 1:
        return Finding("pass", "bounded", ratio)
    return Finding("fail", "bounded", ratio, off(c, index, ratio), at=index)


def usual(name: str, spread: tuple[float, float], found: Finding) -> Finding:
    """Within bounds; also no noisier as a whole than rounding makes it, and not all to one side."""
    rms, bias = spread
    legal = rms <= near.RMS and abs(bias) <= near.BIAS
    if legal and rms <= near.USUAL:
        return found
    says = f"{name}: rounding is {rms:.3g} times what float32 leaves (legal: {near.RMS})"
    says += f", bias {bias:+.3g} (legal: {near.BIAS}); within bounds, error/bound {found.ratio:.2g}"
    margin = max(rms / near.RMS, abs(bias) / near.BIAS)
    return Finding("quality_warning" if legal else "fail", "spread", found.ratio, says, margin)


def nearest(case: Case, name: str, want: Array) -> Array:
    """The float64 answer, rounded once to the arithmetic of this output."""
    holds = stages(case.op, case.cfg)[name].holds
    dtype = ARITHMETIC["float32" if holds == "router" else case.arithmetic]
    return np.asarray(want, np.float32).astype(dtype).astype(np.float64)


def same(c: Compared) -> Finding:
    """Bit for bit; a zero's sign is free."""
    if c.got.shape != c.want.shape:
        return Finding("fail", "exact", None, f"{c.name} has shape {c.got.shape}, not {c.want.shape}")
    c = agreed(c)
    wrong = c.got.astype(np.float64) != c.want.astype(np.float64)
    if not wrong.any():
        return Finding("pass", "exact", None)
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return Finding("fail", "exact", None, off(c, index, None), at=index)


def off(c: Compared, index: tuple[int, ...], ratio: float | None) -> str:
    """Where and how an output is wrong."""
    dims = stages(c.case.op, c.case.cfg)[c.name].dims
    far = "" if ratio is None else f", error/bound {ratio:.3g} (bound {c.bound[index]:.3g})"
    place = f"{c.name}{list(index)} is {c.got[index]:.9g}, not {c.want[index]:.9g}{far}"
    return f"{place}; {pattern.describe(AXES.get(''.join(dims[:1]), 'rows'), c.got, c.want, c.bound)}"


def chosen(case: Case, right: Answer, got: Array) -> Finding:
    """GATE-5: the sets of experts."""
    cfg, ids, right_ids = case.cfg, got.astype(np.int64), right.values["topk_idx"]
    count = (right_ids >= 0).sum(axis=-1)
    proper = selection.proper(ids, count, cfg.n_routed_experts)
    if not proper.all():
        token = int(np.flatnonzero(~proper)[0])
        says = f"token {token} has ids {ids[token].tolist()}: not {count[token]} different experts"
        return Finding("fail", "selection", None, says, at=(token,))
    if case.kind in ("exact", "selection") or certain(cfg):
        got_sets, sets = (selection.members(i, cfg.n_routed_experts) for i in (ids, right_ids))
        wrong: Array = np.any(got_sets != sets, axis=-1)
    else:
        wrong = ~legal(case, ids)
    if not wrong.any():
        return flips.usual(case, right, ids)
    token = int(np.flatnonzero(wrong)[0])
    says = f"token {token} went to {sorted(ids[token].tolist())}, not {sorted(right_ids[token].tolist())}"
    says = f"{says}; {wrong.sum()} of {len(wrong)} tokens chose illegally"
    return Finding("fail", "selection", None, says, at=(token,))


def certain(cfg: MoEConfig) -> bool:
    """A choice that is no top K of scores: cases of it leave no doubt, so that other sets are wrong."""
    return cfg.hash_routing or router_of(cfg) in ROUTERS


def legal(case: Case, ids: Array) -> Array:
    """Which tokens chose legally, bounds included."""
    choice, groups = choices(case)
    pair = None if groups is None else (plain(groups.v), plain(groups.e) * near.ROOM)
    padding = ~case.inputs["mask"] if "mask" in case.inputs else False  # GATE-13: nothing to choose
    return selection.legal(ids, (plain(choice.v), plain(choice.e) * near.ROOM), pair, case.cfg) | padding
