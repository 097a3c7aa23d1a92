"""The router: scores, groups, choice, weights. Autograd goes back through it, but for one slope."""

# torch leaves much untyped
# pyright: basic

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from .step import step

Config: TypeAlias = Mapping[str, Any]
Tensors: TypeAlias = dict[str, Tensor]


class Router:
    """Who goes where and with what weight; each step a method, so that a subclass can do one of them differently."""

    high = torch.float32  # what the router computes in, and what products add up in

    def logits(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (T,H) against one row of weight (E,H) an expert: (T,E)."""
        return functional.linear(x.to(self.high), weight.to(self.high))

    def scores(self, config: Config, logits: Tensor) -> Tensor:
        """How well a token and an expert fit, (T,E)."""
        if config["scoring_func"] == "softmax":
            return logits.softmax(-1)
        if config["scoring_func"] == "sigmoid":
            return logits.sigmoid()
        return step(root_softplus, self.root_softplus_backward, logits)

    def root_softplus_backward(self, logits: Tensor, dscores: Tensor) -> tuple[Tensor]:
        """Slope of sqrt(softplus): sigmoid / (2 sqrt(softplus)), 0 where the score has run out of digits."""
        scores = root_softplus(logits)
        slope = logits.sigmoid() / (2 * scores)
        return (dscores * torch.where(scores > 0, slope, 0),)

    def biased(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        """What experts are chosen by, (T,E)."""
        return scores if bias is None else scores + bias.to(self.high)

    def group_scores(self, config: Config, choice: Tensor) -> Tensor:
        """What groups are chosen by, (T,G)."""
        grouped = choice.unflatten(1, (config["n_group"], -1))
        return grouped.amax(-1) if config["group_score"] == "max" else self.two_best(grouped)

    def two_best(self, grouped: Tensor) -> Tensor:
        """The sum of a group's two best experts, (T,G)."""
        return grouped.topk(2, -1).values.sum(-1)

    def best(self, choice: Tensor, count: int) -> Tensor:
        """The ids of the largest of each row."""
        return choice.topk(count, -1, sorted=False).indices

    def allowed(self, config: Config, choice: Tensor, group_scores: Tensor) -> Tensor:
        """The choice, without the experts of other groups than the best ones."""
        kept = self.best(group_scores, config["topk_group"])
        open_groups = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, kept, True)  # noqa: FBT003 - a value
        members = choice.shape[1] // config["n_group"]
        return choice.masked_fill(~open_groups.repeat_interleave(members, 1), -torch.inf)

    def choose(self, config: Config, scores: Tensor, t: Tensors) -> Tensors:
        """topk_idx (T,K), and the trace group_scores (T,G) where there are groups."""
        if config["hash_routing"]:
            return {"topk_idx": t["tid2eid"][t["token_ids"]]}
        choice = self.biased(scores, t.get("bias"))
        if config["n_group"] == 1:
            return {"topk_idx": self.best(choice, config["num_experts_per_tok"])}
        groups = self.group_scores(config, choice)
        choice = self.allowed(config, choice, groups)
        return {"group_scores": groups, "topk_idx": self.best(choice, config["num_experts_per_tok"])}

    def pick(self, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """The scores at ids (T,W), 0 in empty slots."""
        return torch.where(topk_idx >= 0, scores.gather(1, topk_idx.clamp(min=0)), 0)

    def weigh(self, config: Config, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """The weights of slots, (T,W)."""
        picked = self.pick(scores, topk_idx)
        if config["norm_topk_prob"] and (config["num_experts_per_tok"] > 1 or config["norm_when_k1"]):
            picked = picked / self.total(picked)
        return picked * config["routed_scaling_factor"]

    def total(self, picked: Tensor) -> Tensor:
        """What the weights of a token are divided by, (T,1)."""
        return picked.sum(-1, keepdim=True) + 1e-20

    def route(self, config: Config, t: Tensors) -> Tensors:
        """Everything that the router says of x, weight and what else it is given."""
        logits = self.logits(t["x"], t["weight"])
        scores = self.scores(config, logits)
        said = {"topk_idx": t["topk_idx"]} if "topk_idx" in t else self.choose(config, scores.detach(), t)
        if "mask" in t:
            said["topk_idx"] = said["topk_idx"].masked_fill(~t["mask"][:, None], -1)
        return {"logits": logits, "scores": scores, **said, "topk_weight": self.weigh(config, scores, said["topk_idx"])}


def root_softplus(logits: Tensor) -> Tensor:
    """DeepSeek-V4's score."""
    return functional.softplus(logits).sqrt()
