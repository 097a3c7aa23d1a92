"""Other ways to write the same layer: all of them right."""

# torch leaves much untyped
# pyright: basic

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .experts import Rows
from .layer import EXPERT, Config, Layer, Tensors
from .router import root_softplus

MODELS = ("deepseek-v3", "deepseek-moe-16b", "deepseek-v2", "deepseek-v4-flash", "kimi-k2", "mixtral-8x7b")
AROUND = ("mask", "variable-routing", "relation")


class Grouped(Layer):
    """The layer that the bugs are planted in: rows sorted by expert, grouped products, backwards written by hand."""

    arithmetic = ("float32", "bfloat16")
    profiles = (*MODELS, *AROUND)


class PlainAutograd(Grouped):
    """No backward is written by hand: torch goes back through silu, indexing and products by itself."""

    arithmetic = ("float32",)

    def scores(self, config: Config, logits: Tensor) -> Tensor:
        """Softplus raised to a half; its slope is infinite times 0 where it is 0, so 0 is kept out of it."""
        if config["scoring_func"] != "sqrtsoftplus":
            return super().scores(config, logits)
        inside = root_softplus(logits.detach()) > 0
        return torch.where(inside, root_softplus(torch.where(inside, logits, 0)), 0)

    def take(self, x: Tensor, token: Tensor) -> Tensor:
        """Index."""
        return x[token]

    def grouped(self, rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """Expert by expert."""
        return torch.cat(
            [functional.linear(part, weight) for part, weight in zip(rows.split(counts), weights, strict=True)]
        )

    def activate(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """silu(gate) * up."""
        gate, up = (gate, up) if limit is None else (gate.clamp(max=limit), up.clamp(-limit, limit))
        h = functional.silu(gate) * up
        return h if weight is None else h * weight[:, None]

    def unpermute(self, rows: Tensor, where: Rows, weight: Tensor) -> Tensor:
        """Add rows up in the order of experts."""
        weighed = rows * weight[where.token, where.slot][:, None]
        return rows.new_zeros(len(weight), rows.shape[1]).index_add(0, where.token, weighed)


class LoopOverExperts(PlainAutograd):
    """Each expert looks for its tokens, as in Mixtral's first code."""

    def routed(self, config: Config, t: Tensors, topk_idx: Tensor, topk_weight: Tensor) -> Tensor:
        """Add expert after expert to y."""
        y = torch.zeros_like(t["x"])
        for expert in range(config["n_routed_experts"]):
            token, slot = (topk_idx == expert).nonzero(as_tuple=True)
            y = y.index_add(0, token, self.weighed(config, t, expert, t["x"][token], topk_weight[token, slot]))
        return y

    def weighed(self, config: Config, t: Tensors, expert: int, rows: Tensor, weight: Tensor) -> Tensor:
        """One expert's rows, times their weights."""
        weights = {name: t[name][expert][None] for name in EXPERT}
        if config["weight_position"] == "before_down":
            return self.mlp(rows, weights, [len(rows)], config["swiglu_limit"], weight)[1]
        return self.mlp(rows, weights, [len(rows)], config["swiglu_limit"])[1] * weight[:, None]


class Dense(PlainAutograd):
    """Every expert sees every token, and a map of weights, mostly zeros, says what counts."""

    def routed(self, config: Config, t: Tensors, topk_idx: Tensor, topk_weight: Tensor) -> Tensor:
        """Three einsums."""
        experts = config["n_routed_experts"]
        named = functional.one_hot(topk_idx % (experts + 1), experts + 1)[..., :-1].float()
        weight = torch.einsum("tk,tke->te", topk_weight, named)
        gate, up = (torch.einsum("th,efh->tef", t["x"], t[name]) for name in EXPERT[:2])
        h = self.activate(gate, up, config["swiglu_limit"], None)
        if config["weight_position"] == "before_down":
            return torch.einsum("tef,ehf->th", h * weight[..., None], t["down_proj"])
        return torch.einsum("te,teh->th", weight, torch.einsum("tef,ehf->teh", h, t["down_proj"]))


class SplitK(Grouped):
    """Products are cut along what they add over, and the parts added up in float32, the last part first."""

    parts: ClassVar[int] = 5

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b in parts."""
        pieces = zip(a.float().tensor_split(self.parts, 1), b.float().tensor_split(self.parts, 0), strict=True)
        total = torch.zeros(len(a), b.shape[1])
        for left, right in reversed(list(pieces)):
            total += left @ right
        return total.to(a.dtype)


class Float64(Grouped):
    """Everything between two stores is float64."""

    high = torch.float64


class Ranks(Grouped):
    """Four ranks hold a quarter of the experts each, and each expert is cut in two along its width."""

    arithmetic = ("float32",)
    ranks, shards = 4, 2

    def routed(self, config: Config, t: Tensors, topk_idx: Tensor, topk_weight: Tensor) -> Tensor:
        """Each rank's share for all tokens, added up."""
        owned = [experts.tolist() for experts in torch.arange(config["n_routed_experts"]).tensor_split(self.ranks)]
        parts = [self.on_rank(config, t, r, experts, (topk_idx, topk_weight)) for r, experts in enumerate(owned)]
        return torch.stack(parts).sum(0)

    def on_rank(
        self, config: Config, t: Tensors, rank: int, experts: list[int], routing: tuple[Tensor, Tensor]
    ) -> Tensor:
        """What the experts of one rank add to y, shard by shard of their width."""
        local = {**config, "n_routed_experts": len(experts)}
        local_idx = self.local(routing[0], rank, experts)
        cuts = [t[name][experts].tensor_split(self.shards, axis) for name, axis in zip(EXPERT, (1, 1, 2), strict=True)]
        parts = [
            super(Ranks, self).routed(local, {"x": t["x"], **dict(zip(EXPERT, cut, strict=True))}, local_idx, weight)
            for cut, weight in zip(zip(*cuts, strict=True), self.seen(routing[1]), strict=True)
        ]
        return torch.stack(parts).sum(0)

    def local(self, topk_idx: Tensor, rank: int, experts: list[int]) -> Tensor:  # noqa: ARG002 - for others
        """Ids as this rank counts them, -1 for experts of other ranks."""
        mine = (topk_idx >= experts[0]) & (topk_idx <= experts[-1])
        return torch.where(mine, topk_idx - experts[0], -1)

    def seen(self, topk_weight: Tensor) -> list[Tensor]:
        """The weights as each shard sees them."""
        return [topk_weight] * self.shards


class StableSort(Grouped):
    """Sorts instead of looking for the best: of equal experts the lower one, which the profile `ties` asks for."""

    profiles = (*MODELS, *AROUND, "ties")

    def best(self, choice: Tensor, count: int) -> Tensor:
        """The first of a stable sort."""
        return choice.sort(dim=-1, descending=True, stable=True).indices[:, :count]


class StoreEachStep(Grouped):
    """In bfloat16 every step of the activation is stored, and the combine's running sum too."""

    arithmetic = ("bfloat16",)

    def activate_forward(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """Four kernels."""
        g, u = (part.to(gate.dtype) for part in self.limited(gate, up, limit))
        h = g * g.sigmoid() * u
        return h if weight is None else (h * weight[:, None]).to(gate.dtype)

    def unpermute_forward(self, rows: Tensor, where: Rows, weight: Tensor) -> Tensor:
        """Slot after slot, rounded after each."""
        spare = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        total = rows.new_zeros(len(weight), rows.shape[1])
        for place, w in zip(self.places(where, weight.shape).T, weight.T, strict=True):
            total += (w[:, None] * spare[place]).to(rows.dtype)
        return total
