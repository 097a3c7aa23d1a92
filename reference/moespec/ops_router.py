"""The ops of the routers outside DeepSeek's own: named tensors in, named tensors out (SPEC: ROU)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moespec.arrays import Bool, Float, Int, softmax_backward
from moespec.config import MoEConfig
from moespec.expert_choice import choice_forward, choice_given, choice_logits_backward
from moespec.gate import masked
from moespec.hierarchical import (
    TwoLevelWeights,
    hierarchical_forward,
    hierarchical_given,
    share_backward,
    two_level_backward,
)
from moespec.mixture import mixture_backward, mixture_forward
from moespec.router import (
    NoisyWeights,
    noisy_forward,
    noisy_given,
    noisy_logits_backward,
    weigh_backward,
)

Tensors = dict[str, Any]


Routed = tuple[Int, Float, Any]  # topk_idx and topk_weight, and the router's cache


def routed(
    choose: Callable[[], Routed],
    weigh_given: Callable[[Int], tuple[Float, Any]],
    topk_idx: Int | None,
    mask: Bool | None,
) -> Routed:
    """Choose, or weigh the ids that are given; padding goes nowhere (GATE-13)."""
    if topk_idx is None:
        chosen = choose()
        if mask is None:
            return chosen
        topk_idx = chosen[0]
    topk_idx = topk_idx if mask is None else masked(topk_idx, mask)
    return topk_idx, *weigh_given(topk_idx)


def traced(made: Routed) -> Tensors:
    """Logits and shares (here: scores) are traces."""
    topk_idx, topk_weight, cache = made
    return {"logits": cache.logits, "scores": cache.share, "topk_idx": topk_idx, "topk_weight": topk_weight}


def traced_back(cache: Any, dshare: Float) -> Tensors:  # noqa: ANN401 - a router's cache
    """Logits, shares (here: scores) and their gradient are traces."""
    return {"logits": cache.logits, "scores": cache.share, "dscores": dshare}


def plus(gradient: Float, more: Float | None) -> Float:
    """GATE-14: a gradient that comes from elsewhere, if one does."""
    return gradient if more is None else gradient + more


def noise_of(x: Float, weight: Float, given: Tensors) -> tuple[NoisyWeights, Float]:
    """ROU-3: without noise, it and its width are zeros."""
    width, noise = given.get("noise_weight"), given.get("noise")
    weights = NoisyWeights(weight, np.zeros_like(weight) if width is None else width)
    return weights, np.zeros_like(weight, shape=(x.shape[0], weight.shape[0])) if noise is None else noise


def noisy(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int | None = None, **given: Any) -> Tensors:  # noqa: ANN401
    """Noisy top-k, or without noise a softmax over the chosen."""
    weights, noise = noise_of(x, weight, given)
    made = routed(
        lambda: noisy_forward(x, weights, noise, cfg),
        lambda ids: noisy_given(x, weights, noise, ids, cfg),
        topk_idx,
        given.get("mask"),
    )
    return traced(made)


def noisy_back(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int, **given: Any) -> Tensors:  # noqa: ANN401
    """Gradients dx, dweight, and dnoise_weight if there is one."""
    weights, noise = noise_of(x, weight, given)
    _, cache = noisy_given(x, weights, noise, topk_idx, cfg)
    dshare = plus(weigh_backward(given["dtopk_weight"], topk_idx, cfg), given.get("dscores"))
    dlogits = plus(softmax_backward(dshare, cache.share), given.get("dlogits"))
    dx, dweights = noisy_logits_backward(dlogits, cache, weights)
    dnoise = {"dnoise_weight": dweights.noise_weight} if "noise_weight" in given else {}
    return {**traced_back(cache, dshare), "dx": dx, "dweight": dweights.weight, **dnoise}


def expert_choice(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int | None = None, **given: Any) -> Tensors:  # noqa: ANN401
    """Experts take tokens, but never padding."""
    mask = given.get("mask")
    real = ~np.zeros_like(x[:, 0], dtype=np.bool) if mask is None else mask
    made = routed(
        lambda: choice_forward(x, weight, real, cfg),
        lambda ids: choice_given(x, weight, ids, cfg),
        topk_idx,
        mask,
    )
    return traced(made)


def expert_choice_back(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int, **given: Any) -> Tensors:  # noqa: ANN401
    """Gradients dx and dweight."""
    _, cache = choice_given(x, weight, topk_idx, cfg)
    dshare = plus(weigh_backward(given["dtopk_weight"], topk_idx, cfg), given.get("dscores"))
    dlogits = plus(softmax_backward(dshare, cache.share), given.get("dlogits"))
    dx, dweight = choice_logits_backward(dlogits, cache, weight)
    return {**traced_back(cache, dshare), "dx": dx, "dweight": dweight}


def hierarchical(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int | None = None, **given: Any) -> Tensors:  # noqa: ANN401
    """Groups, then experts inside them."""
    weights = TwoLevelWeights(weight, given["group_weight"])
    made = routed(
        lambda: hierarchical_forward(x, weights, cfg),
        lambda ids: hierarchical_given(x, weights, ids, cfg),
        topk_idx,
        given.get("mask"),
    )
    return traced(made)


def hierarchical_back(cfg: MoEConfig, *, x: Float, weight: Float, topk_idx: Int, **given: Any) -> Tensors:  # noqa: ANN401
    """Gradients dx, dweight and dgroup_weight."""
    weights = TwoLevelWeights(weight, given["group_weight"])
    _, cache = hierarchical_given(x, weights, topk_idx, cfg)
    dshare = plus(weigh_backward(given["dtopk_weight"], topk_idx, cfg), given.get("dscores"))
    dlogits, dgroup_logits = share_backward(dshare, cache, cfg)
    dx, dweights = two_level_backward(plus(dlogits, given.get("dlogits")), dgroup_logits, cache, weights)
    dtrained = {"dweight": dweights.weight, "dgroup_weight": dweights.group_weight}
    return {**traced_back(cache, dshare), "dx": dx, **dtrained}


ROUTERS: dict[str, tuple[Callable[..., Tensors], Callable[..., Tensors]]] = {
    "chosen": (noisy, noisy_back),
    "noisy_topk": (noisy, noisy_back),
    "expert_choice": (expert_choice, expert_choice_back),
    "hierarchical": (hierarchical, hierarchical_back),
}


def router_of(cfg: MoEConfig) -> str:
    """CFG-12: the router's name in ROUTERS; a softmax over the chosen counts as one; DeepSeek's own is `topk`."""
    return "chosen" if cfg.router == "topk" and cfg.softmax_over == "chosen" else cfg.router


def mixture_loss(_cfg: MoEConfig, *, topk_weight: Float, expert_out: Float, target: Float) -> Tensors:
    """The loss of the mixture that each token's experts form."""
    return {"loss": mixture_forward(topk_weight, expert_out, target)[0]}


def mixture_loss_backward(
    _cfg: MoEConfig, *, topk_weight: Float, expert_out: Float, target: Float, dloss: Float
) -> Tensors:
    """Gradients of the probabilities and of the experts' outputs; who was responsible is a trace."""
    _, cache = mixture_forward(topk_weight, expert_out, target)
    dtopk_weight, dexpert_out = mixture_backward(dloss, cache)
    return {"responsibility": cache.responsibility, "dtopk_weight": dtopk_weight, "dexpert_out": dexpert_out}
