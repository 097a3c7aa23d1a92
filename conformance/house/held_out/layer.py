"""DeepSeek's MoE layer in PyTorch, behind the suite's protocol. It shares no code with the project."""

# torch leaves much untyped
# pyright: basic

from typing import Any

import numpy as np
import torch
from torch import Tensor

from moespec_conformance import NotSupported

from .experts import Experts, Rows
from .router import Config, Tensors

FIXED = {
    "router": "topk",
    "choose_by": "scores",
    "softmax_over": "all",
    "hidden_act": "silu",
    "gated": True,
    "drop_policy": None,
    "alignment": 1,
}
EXPERT = ("gate_proj", "up_proj", "down_proj")
SHARED = tuple(f"shared_{name}" for name in EXPERT)
CONSTANT = ("bias", "topk_idx", "token_ids", "tid2eid", "mask")
GATE = (*CONSTANT, "x", "weight")


class Layer(Experts):
    """Rows are sorted by expert, multiplied in groups, and brought back; every op of the layer is offered."""

    name, version = "held-out", "1"
    arithmetic: tuple[str, ...] = ("float32",)
    profiles: tuple[str, ...] = ("deepseek-v3",)

    def gate(self, config: Config, **arrays: Any) -> Tensors:
        """The router alone."""
        return self.route(served(config), tensors(arrays))

    def gate_backward(self, config: Config, **arrays: Any) -> Tensors:
        """Gradients of the router's x and weight."""
        t = self.trainable(tensors(arrays))
        leaves = {name: t[name].requires_grad_() for name in ("x", "weight")}
        said = self.route(served(config), {name: t[name] for name in GATE if name in t})
        return gradients({said[name[1:]]: d for name, d in t.items() if name[1:] in said and name[0] == "d"}, leaves)

    def expert(self, config: Config, **arrays: Any) -> Tensors:
        """One expert on rows x (N,H)."""
        h, y = self.alone(served(config), tensors(arrays))
        return {"h": h, "y": y}

    def expert_backward(self, config: Config, **arrays: Any) -> Tensors:
        """Gradients of everything that one expert is given."""
        t = tensors(arrays)
        dy = t.pop("dy")
        leaves = {name: tensor.requires_grad_() for name, tensor in t.items()}
        return gradients({self.alone(served(config), t)[1]: dy}, leaves)

    def alone(self, config: Config, t: Tensors) -> tuple[Tensor, Tensor]:
        """One expert as a group of one: h and y."""
        weights = {name: t[name][None] for name in EXPERT}
        return self.mlp(t["x"], weights, [len(t["x"])], config["swiglu_limit"], t.get("row_weight"))

    def dispatch(self, config: Config, **arrays: Any) -> Tensors:
        """Rows in the order of experts."""
        t = tensors(arrays)
        where = self.sort(t["topk_idx"], served(config)["n_routed_experts"])
        counts = torch.tensor(where.counts, dtype=torch.int64)
        rows = self.take(t["x"], where.token)
        return {"expert_count": counts, "row_token": where.token, "row_slot": where.slot, "rows": rows}

    def combine(self, config: Config, **arrays: Any) -> Tensors:
        """Rows back at their tokens; a row of token -1 is padding."""
        t = tensors(arrays)
        real = t["row_token"] >= 0
        weight = t["topk_weight"] if "topk_weight" in t else torch.ones(t["topk_idx"].shape)
        where = Rows(t["row_token"][real], t["row_slot"][real], [])
        return {"y": self.unpermute(t["rows"][real], where, weight) if served(config) else t["rows"]}

    def moe(self, config: Config, **arrays: Any) -> Tensors:
        """The layer."""
        return self.layer(served(config), tensors(arrays))

    def moe_backward(self, config: Config, **arrays: Any) -> Tensors:
        """Gradients of everything that is trained."""
        t = self.trainable(tensors(arrays))
        dy = t.pop("dy")
        leaves = {name: tensor.requires_grad_() for name, tensor in t.items() if name not in CONSTANT}
        return gradients({self.layer(served(config), t)["y"]: dy}, leaves)

    def trainable(self, t: Tensors) -> Tensors:
        """The router's weight in high precision, so that its gradient is, too."""
        return {name: made.to(self.high) if name in ("weight", "gate_weight") else made for name, made in t.items()}

    def layer(self, config: Config, t: Tensors) -> Tensors:
        """Route, send to experts, add the shared expert."""
        said = self.route(config, {"weight": t["gate_weight"], **{n: t[n] for n in GATE if n in t}})
        routed = self.routed(config, t, said["topk_idx"], said["topk_weight"])
        shared = self.shared(config, t) if config["n_shared_experts"] else torch.zeros_like(routed)
        traces = {name: said[name] for name in ("topk_idx", "topk_weight")}
        return {**traces, "routed": routed, "shared": shared, "y": routed + shared}

    def routed(self, config: Config, t: Tensors, topk_idx: Tensor, topk_weight: Tensor) -> Tensor:
        """What a token's experts say together, (T,H)."""
        where = self.sort(topk_idx, config["n_routed_experts"])
        rows, weights = self.take(t["x"], where.token), {name: t[name] for name in EXPERT}
        if config["weight_position"] == "after_down":
            return self.unpermute(self.mlp(rows, weights, where.counts, config["swiglu_limit"])[1], where, topk_weight)
        weight = topk_weight[where.token, where.slot]
        _, y = self.mlp(rows, weights, where.counts, config["swiglu_limit"], weight)
        return self.unpermute(y, where, torch.ones_like(topk_weight))

    def shared(self, config: Config, t: Tensors) -> Tensor:
        """The shared experts as one wide expert, (T,H)."""
        weights = {name: t[f"shared_{name}"][None] for name in EXPERT}
        return self.mlp(t["x"], weights, [len(t["x"])], config["swiglu_limit"])[1]


def served(config: Config) -> Config:
    """The config, if this layer is made for it."""
    for field, value in FIXED.items():
        if config[field] != value:
            raise NotSupported(f"{field} is always {value}")
    return config


def tensors(arrays: dict[str, Any]) -> Tensors:
    """Copies of the arrays, contiguous; bfloat16 goes over by its bits, ids as int64."""
    return {name: tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}


def tensor(array: Any) -> Tensor:
    """One of them."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    made = torch.tensor(array)
    return made.long() if made.dtype == torch.int32 else made


def gradients(given: dict[Tensor, Tensor], leaves: Tensors) -> Tensors:
    """The gradients of the leaves, from those of the outputs; zeros where nothing depends on a leaf."""
    pairs = [(y, dy.to(y.dtype)) for y, dy in given.items() if y.requires_grad]
    outputs, seeds = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, tuple(leaves.values()), seeds, materialize_grads=True)
    return {f"d{name}": d for name, d in zip(leaves, found, strict=True)}
