"""Sections 8 and 9: rows out and back, and the layer."""

import numpy as np

from moespec_conformance.adapters.plain.capacity import capacity, capacity_backward
from moespec_conformance.adapters.plain.config import Config
from moespec_conformance.adapters.plain.expert import run_row, run_row_backward, weighted, weighted_backward
from moespec_conformance.adapters.plain.gate import gate, gate_backward
from moespec_conformance.adapters.plain.tensors import Tensors

MATRICES = ("gate_proj", "up_proj", "down_proj")


def dispatch(c: Config, t: Tensors) -> Tensors:
    """Put each slot into its expert's queue, token by token, and then the queues one behind the other."""
    queues: list[list[tuple[int, int]]] = [[] for _ in range(c["n_routed_experts"])]
    for (token, slot), e in np.ndenumerate(t["topk_idx"]):  # DSP-1: by token, then slot
        if e >= 0:  # DSP-2: an empty slot makes no row
            queues[int(e)].append((token, slot))
    token, slot = np.array([pair for queue in queues for pair in queue], np.int64).reshape(-1, 2).T
    counts = np.array([len(queue) for queue in queues], np.int64)
    return {"expert_count": counts, "row_token": token, "row_slot": slot, "rows": t["x"][token]}


def combine(c: Config, t: Tensors) -> Tensors:
    """DSP-3: add each row, times its slot's weight unless it has it already (EXP-6), to its token."""
    rows, before = t["rows"], c["weight_position"] == "before_down"
    y = np.zeros((len(t["topk_idx" if before else "topk_weight"]), rows.shape[1]), rows.dtype)
    for row, token, slot in zip(rows, t["row_token"], t["row_slot"], strict=True):
        if token >= 0:
            y[token] += row if before else t["topk_weight"][token, slot] * row
    return {"y": y}


def experts(c: Config, t: Tensors, d: str = "") -> tuple[list[Tensors], Tensors]:
    """Each routed expert's matrices, or their gradients (d = "d"), and the shared expert's (MOE-3)."""
    names = [d + n for n in MATRICES if d + n in t]
    routed = [{n: t[n][e] for n in names} for e in range(c["n_routed_experts"])]
    return routed, {d + n: t[f"{d}shared_{n}"] for n in MATRICES if f"{d}shared_{n}" in t}


def route(c: Config, t: Tensors) -> tuple[Tensors, Tensors]:
    """Ask the gate for ids and weights, and give with them what a capacity leaves of them (MOE-10)."""
    routing = gate(c, {**t, "weight": t["gate_weight"]})
    return routing, capacity(c, {**t, **routing}) if c["drop_policy"] else routing


def moe(c: Config, t: Tensors) -> Tensors:
    """MOE-1, MOE-2: each token's weighted sum of its experts, and the shared expert once."""
    x, (routed_experts, shared_expert), (routing, left) = t["x"], experts(c, t), route(c, t)
    routed, shared = np.zeros_like(x), np.zeros_like(x)
    for i in range(len(x)):
        for e, weight in zip(map(int, left["topk_idx"][i]), left["topk_weight"][i], strict=True):
            if e >= 0:
                routed[i] += weighted(c, x[i], routed_experts[e], weight)
        if shared_expert:
            shared[i] = run_row(c, x[i], shared_expert)[1]
    return {**routing, "routed": routed, "shared": shared, "y": routed + shared}


def moe_backward(c: Config, t: Tensors) -> Tensors:
    """Go back through every token's experts, the shared expert and the gate, whose ids are constants."""
    x, dy, (routing, left) = t["x"], t["dy"], route(c, t)
    ids, weights = left["topk_idx"], left["topk_weight"]
    grads = {"d" + n: np.zeros_like(a) for n, a in t.items() if n.endswith("_proj")}  # MOE-4
    (routed, shared), (drouted, dshared) = experts(c, t), experts(c, grads, "d")
    dx, dweights = np.zeros_like(x), np.zeros_like(weights)
    for i in range(len(x)):
        for k, e in enumerate(map(int, ids[i])):
            if e >= 0:
                dx_row, dweights[i, k] = weighted_backward(c, x[i], routed[e], (dy[i], weights[i, k]), drouted[e])
                dx[i] += dx_row
        if shared:
            dx[i] += run_row_backward(c, x[i], shared, (dy[i], 1), dshared)[0]
    back: Tensors = {"dtopk_weight": dweights}
    if c["drop_policy"]:
        back = capacity_backward(c, {**t, **routing, **back})
    through_gate = gate_backward(c, {**t, "weight": t["gate_weight"], **back})
    trained: Tensors = {n: through_gate[n] for n in ("dnoise_weight", "dgroup_weight") if n in through_gate}
    return {"dx": through_gate["dx"] + dx, "dgate_weight": through_gate["dweight"], **trained, **grads}  # MOE-5
