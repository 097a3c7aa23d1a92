"""Whether rounding could change a choice of experts: then two honest implementations may differ in all else."""

import math
from typing import Any

import numpy as np

from moespec.ops_router import ROUTERS, router_of
from moespec.signatures import OPS, expected
from moespec_conformance.judge.selection import decisive, gap
from moespec_conformance.oracle import bounded, choices, gate_of
from moespec_conformance.protocol import Case
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.portable import plain

Competing = tuple[Any, Any, int]  # values and bounds (rows, competitors), and how many of each row are taken


def sure(case: Case) -> bool:
    """Whether the choice of a gate's or a layer's case is beyond doubt: given, looked up, or clear by its bounds."""
    if "topk_idx" in case.inputs or case.cfg.hash_routing:
        return True
    if router_of(case.cfg) in ROUTERS:
        return all(gap(value, bound, k).all() for value, bound, k in competing(as_gate(case)))
    choice, groups = choices(case)
    pair = None if groups is None else (plain(groups.v), plain(groups.e))
    clear = decisive((plain(choice.v), plain(choice.e)), pair, case.cfg)
    return bool(np.all(clear | ~case.inputs.get("mask", np.ones_like(clear))))


def as_gate(case: Case) -> Case:
    """The gate of a case."""
    named = {"weight" if name == "gate_weight" else name: tensor for name, tensor in case.inputs.items()}
    taken = expected(OPS["gate"].inputs, case.cfg)
    return gate_of(case, {name: tensor for name, tensor in named.items() if name in taken})


def competing(case: Case) -> list[Competing]:
    """What a router outside DeepSeek's own chooses by."""
    if not len(case.inputs["x"]):
        return []
    cfg, out = case.cfg, bounded(case)
    logits, scores = out["logits"], out["scores"]
    if cfg.router == "expert_choice":
        real = case.inputs.get("mask", np.ones(len(scores), np.bool))
        factor = cfg.capacity_factor or 0
        each = math.ceil(len(scores) * cfg.num_experts_per_tok / cfg.n_routed_experts * factor)
        return [(scores.v[real].T, scores.e[real].T, min(each, int(real.sum())))]
    if cfg.router != "hierarchical":
        return [(logits.v, logits.e, cfg.num_experts_per_tok)]
    x, weight = (Bounded.of(case.inputs[name].astype(np.float64), "float32") for name in ("x", "group_weight"))
    groups, size = x @ weight.T, cfg.experts_per_group
    kept = np.argsort(-groups.v, axis=-1)[:, : cfg.topk_group, None]
    grouped = (p.reshape(-1, cfg.n_group, size) for p in (logits.v, logits.e))
    value, bound = (np.take_along_axis(p, kept, axis=1).reshape(-1, size) for p in grouped)
    return [(groups.v, groups.e, cfg.topk_group), (value, bound, cfg.num_experts_per_tok // cfg.topk_group)]
