"""The ops gate and gate_backward: which router, and what it is told, by the config (SPEC: GATE, ROU)."""

from typing import Any

import numpy as np

from moespec.arrays import Bool, Float, Int
from moespec.config import MoEConfig
from moespec.gate import (
    gate_forward,
    gate_given,
    group_score,
    logits_backward,
    look_up,
    score_backward,
    weigh_backward,
)
from moespec.ops_router import ROUTERS, plus, routed, router_of

Tensors = dict[str, Any]


def gate(cfg: MoEConfig, *, x: Float, weight: Float, mask: Bool | None = None, **given: Any) -> Tensors:  # noqa: ANN401
    """Route x (T, H): topk_idx and topk_weight (T, K); with topk_idx given, weigh those ids (GATE-9)."""
    topk_idx = ids_given(**given)
    if (router := router_of(cfg)) in ROUTERS:
        return ROUTERS[router][0](cfg, x=x, weight=weight, mask=mask, **{**given, "topk_idx": topk_idx})
    bias = given.get("bias", np.zeros_like(weight[:, 0]))
    topk_idx, topk_weight, cache = routed(
        lambda: gate_forward(x, weight, bias, cfg),
        lambda ids: gate_given(x, weight, ids, cfg),
        topk_idx,
        mask,
    )
    trace = {"logits": cache.logits, "scores": cache.scores}
    if cfg.n_group > 1:
        choice = cache.logits if cfg.choose_by == "logits" else cache.scores
        trace["group_scores"] = group_score(choice + bias, cfg)
    return {**trace, "topk_idx": topk_idx, "topk_weight": topk_weight}


def ids_given(
    topk_idx: Int | None = None, token_ids: Int | None = None, tid2eid: Int | None = None, **_: object
) -> Int | None:
    """GATE-9: given ids come first; GATE-12: then the table of a hash layer; else the gate chooses."""
    if topk_idx is not None or token_ids is None or tid2eid is None:
        return topk_idx
    return look_up(token_ids, tid2eid)


def gate_backward(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int, **given: Any) -> Tensors:  # noqa: ANN401
    """Gradients dx (T, H) and dweight (E, H), and of what else the router learns, for given ids (GATE-10, GATE-14)."""
    if (router := router_of(cfg)) in ROUTERS:
        return ROUTERS[router][1](cfg, x=x, weight=weight, topk_idx=topk_idx, **given)
    _, cache = gate_given(x, weight, topk_idx, cfg)
    dscores = plus(weigh_backward(given["dtopk_weight"], cache, cfg), given.get("dscores"))
    dlogits = plus(score_backward(dscores, cache.logits, cache.scores, cfg), given.get("dlogits"))
    dx, dweight = logits_backward(dlogits, x, weight)
    return {"logits": cache.logits, "scores": cache.scores, "dscores": dscores, "dx": dx, "dweight": dweight}
