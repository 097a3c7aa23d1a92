"""What stands between a layer's inputs and its experts: which router, what it takes, and what a capacity leaves."""

from typing import Any

from moespec.arrays import Float, Int
from moespec.capacity import DropCache, drop_backward, drop_forward, wanted
from moespec.config import MoEConfig
from moespec.ops_gate import gate, gate_backward

Tensors = dict[str, Any]
Sent = tuple[Int, Float, DropCache | None]
THROUGH = ("dtopk_weight", "dscores")  # what a drop hands back to the gate
# what a router takes besides x, its weight and the ids
ROUTING = ("bias", "token_ids", "tid2eid", "noise", "noise_weight", "group_weight", "mask", "topk_idx")


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the router takes, and what the experts take."""
    routing = {name: tensor for name, tensor in given.items() if name in ROUTING}
    return routing, {name: tensor for name, tensor in given.items() if name not in ROUTING}


def chance(cfg: MoEConfig, routing: dict[str, Any]) -> Float | None:
    """CAP-6: the noise that decides about second choices, which is not the router's."""
    return routing.pop("noise", None) if cfg.drop_policy == "gshard" else None


def routed_by(cfg: MoEConfig, noise: Float | None, /, **routing: Any) -> tuple[Tensors, Sent]:  # noqa: ANN401 - arrays
    """What the router chose; and MOE-10: what reaches the experts, which is all of it, or what a capacity leaves."""
    chosen = gate(cfg, **routing)
    if cfg.drop_policy is None:
        return chosen, (chosen["topk_idx"], chosen["topk_weight"], None)
    want = wanted(chosen["topk_idx"], chosen["topk_weight"], chosen["scores"], noise, None)
    return chosen, drop_forward(want, cfg)


def routed_backward_by(
    cfg: MoEConfig,
    dtopk_weight: Float,
    dropped: DropCache | None,
    /,
    **routing: Any,  # noqa: ANN401 - arrays
) -> Tensors:
    """Gradients of the router's x and tensors. MOE-10 was: sent = drop_forward(gate(x))."""
    back: Tensors = {"dtopk_weight": dtopk_weight}
    if dropped is not None:
        back = dict(zip(THROUGH, drop_backward(dtopk_weight, dropped), strict=True))
    return gate_backward(cfg, **back, **routing)
