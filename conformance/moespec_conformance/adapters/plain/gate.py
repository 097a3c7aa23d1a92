"""Section 6: the gate, one token at a time. Other routers (section 12) have their own scores and choices."""

from math import inf

import numpy as np

from moespec_conformance.adapters.plain import routers
from moespec_conformance.adapters.plain.config import Config
from moespec_conformance.adapters.plain.maths import largest, sigmoid, softmax, softplus
from moespec_conformance.adapters.plain.tensors import Floats, Ids, Tensors


def scores_of(c: Config, t: Tensors, i: int, logits: Floats, ids: Ids) -> Floats:
    """GATE-2 for one token, or its shares."""
    if routers.shares(c):
        return routers.share(c, t, i, logits, ids)
    if c["scoring_func"] == "softmax":
        return softmax(logits)
    return sigmoid(logits) if c["scoring_func"] == "sigmoid" else np.sqrt(softplus(logits))


def scores_backward(c: Config, logits: Floats, scores: Floats, dscores: Floats) -> Floats:
    """GATE-2 upward."""
    if c["scoring_func"] == "softmax":
        return scores * (dscores - np.sum(dscores * scores))
    if c["scoring_func"] == "sigmoid":
        return dscores * scores * (1 - scores)
    live = scores > 0
    return np.where(live, dscores * sigmoid(logits) / np.where(live, 2 * scores, 1), 0)


def group_counts(c: Config, choice: Floats) -> Floats:
    """GATE-4: what each group counts."""
    best = 1 if c["group_score"] == "max" else 2
    groups = choice.reshape(c["n_group"], -1)  # CFG-3: consecutive ids
    return np.array([g[largest(g, best)].sum() for g in groups])


def choose(c: Config, choice: Floats) -> tuple[list[int], Floats]:
    """Choose one token's experts, and say what each group counted."""
    counts = group_counts(c, choice)
    if c["n_group"] > 1:  # GATE-4: experts of the other groups are out
        stand, groups = largest(counts, c["topk_group"]), choice.reshape(c["n_group"], -1)
        choice = np.concatenate([g if i in stand else np.full_like(g, -inf) for i, g in enumerate(groups)])
    return largest(choice, c["num_experts_per_tok"]), counts  # GATE-5


def biased(t: Tensors, ranked: Floats) -> Floats:
    """GATE-3 for one token."""
    return ranked + t["bias"] if "bias" in t else ranked


def choose_all(c: Config, t: Tensors, logits: Floats) -> tuple[Ids, Floats]:
    """Choose every token's experts."""
    T, none = len(logits), np.zeros(0, np.int64)
    ids, counts = np.zeros((T, c["num_experts_per_tok"]), np.int64), np.zeros((T, c["n_group"]), logits.dtype)
    for i in range(T):
        if routers.shares(c):
            ids[i] = routers.choose(c, t, i, biased(t, logits[i]))
        else:
            ranked = logits[i] if c["choose_by"] == "logits" else scores_of(c, t, i, logits[i], none)
            ids[i], counts[i] = choose(c, biased(t, ranked))
    return ids, counts


def route(c: Config, t: Tensors, logits: Floats) -> tuple[Ids, Tensors]:
    """GATE-9: ids that are given come first, then the table's, then the gate's own; padding has none (GATE-13)."""
    trace: Tensors = {}
    if "topk_idx" in t:
        ids = t["topk_idx"]
    elif c["hash_routing"]:
        ids = t["tid2eid"][t["token_ids"]]  # GATE-12
    elif c["router"] == "expert_choice":
        ids = routers.choose_tokens(c, t, [softmax(row) for row in logits])
    else:
        ids, counts = choose_all(c, t, logits)
        trace = {"group_scores": counts} if c["n_group"] > 1 and c["router"] == "topk" else {}
    if "mask" in t:
        ids = np.where(t["mask"][:, None], ids, -1)
    return ids.astype(np.int64).reshape(len(logits), -1 if len(logits) else ids.shape[-1]), trace


def starting(scores: Floats, ids: Ids) -> Floats:
    """GATE-6: one token's chosen scores, without the bias, and 0 in an empty slot."""
    return np.array([scores[e] if e >= 0 else 0 for e in ids], scores.dtype)


def normalised(c: Config) -> bool:
    """GATE-7: whether the weights are divided by their sum."""
    return bool(c["norm_topk_prob"]) and (c["num_experts_per_tok"] > 1 or bool(c["norm_when_k1"]))


def gate(c: Config, t: Tensors) -> Tensors:
    """Score every expert for every token, choose, and weigh the chosen."""
    x = t["x"]
    logits = np.array([routers.logits_of(t, i) for i in range(len(x))], x.dtype).reshape(len(x), len(t["weight"]))
    ids, trace = route(c, t, logits)
    scores, weights = np.zeros_like(logits), np.zeros(ids.shape, x.dtype)
    for i in range(len(x)):
        scores[i] = scores_of(c, t, i, logits[i], ids[i])
        weights[i] = starting(scores[i], ids[i])
        if normalised(c):
            weights[i] /= weights[i].sum() + 1e-20  # GATE-7
        weights[i] *= c["routed_scaling_factor"]  # GATE-8
    return {"logits": logits, "scores": scores, **trace, "topk_idx": ids, "topk_weight": weights}


def weights_backward(c: Config, scores: Floats, ids: Ids, dweights: Floats) -> Floats:
    """GATE-10: one token's gradient by slot, before its scores' own."""
    score = starting(scores, ids)
    dscore = np.where(ids >= 0, c["routed_scaling_factor"] * dweights, 0)
    if normalised(c):
        D = score.sum() + 1e-20
        dscore = (dscore - np.sum(dscore * (score / D))) / D
    return dscore


def gate_backward(c: Config, t: Tensors) -> Tensors:
    """GATE-10, GATE-14: go back through the weights, the scores and the logits of every token."""
    x, ids, forward = t["x"], t["topk_idx"], gate(c, t)
    grads = {"d" + n: np.zeros_like(t[n]) for n in ("x", "weight", "noise_weight", "group_weight") if n in t}
    for i in range(len(x)):
        logits, scores = forward["logits"][i], forward["scores"][i]
        dscores = t["dscores"][i].copy() if "dscores" in t else np.zeros_like(scores)
        for e, dscore in zip(ids[i], weights_backward(c, scores, ids[i], t["dtopk_weight"][i]), strict=True):
            if e >= 0:
                dscores[e] += dscore
        if routers.shares(c):
            dlogits = routers.share_backward(c, t, i, (logits, ids[i], dscores), grads)
        else:
            dlogits = scores_backward(c, logits, scores, dscores)
        routers.logits_backward(t, i, dlogits + t["dlogits"][i] if "dlogits" in t else dlogits, grads)
    return grads
