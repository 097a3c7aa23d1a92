"""Bugs of routers: choosing, weighing, scaling."""

# torch leaves much untyped
# pyright: basic

import torch
from torch import Tensor

from .experts import Rows
from .layer import Layer
from .router import Config, Tensors


class GroupsIgnoreTheBias(Layer):
    """Groups are ranked by plain scores, and only the experts within them by biased ones."""

    def choose(self, config: Config, scores: Tensor, t: Tensors) -> Tensors:
        """Keep the plain scores for the groups."""
        self.plain = scores
        return super().choose(config, scores, t)

    def group_scores(self, config: Config, choice: Tensor) -> Tensor:  # noqa: ARG002 - the bug
        """Rank groups by them."""
        return super().group_scores(config, self.plain)


class SecondBestSkipsEquals(Layer):
    """The second best of a group is looked for among what is less than the best, so an equal twin is not counted."""

    def two_best(self, grouped: Tensor) -> Tensor:
        """Find the best, take out all that equal it, find the best again."""
        best = grouped.amax(-1, keepdim=True)
        second = grouped.masked_fill(grouped == best, -torch.inf).amax(-1)
        return best.squeeze(-1) + second


class NegativeKeysRunBackwards(Layer):
    """Floats are sorted by their bits as integers, which puts negative numbers in the wrong order."""

    def best(self, choice: Tensor, count: int) -> Tensor:
        """Sort bits."""
        return super().best(choice.contiguous().view(torch.int32), count)


class LowBitsHoldTheId(Layer):
    """A sort key holds an expert's id in the lowest 9 bits of its score, so close scores are told apart by id."""

    def best(self, choice: Tensor, count: int) -> Tensor:
        """Pack score and id into 32 bits, in an order that integers understand."""
        bits = choice.contiguous().view(torch.int32)
        ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        return super().best((ordered & ~511) | (511 - torch.arange(choice.shape[1], dtype=torch.int32)), count)


class IdsInOneByte(Layer):
    """Ids are kept in one byte, so expert 256 is expert 0."""

    def best(self, choice: Tensor, count: int) -> Tensor:
        """Narrow the ids."""
        return super().best(choice, count).to(torch.uint8).long()


class TailExpertsUnseen(Layer):
    """Experts are looked at sixteen at a time, and what is left over at the end of more than sixteen is not."""

    def biased(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        """Leave the tail out of the choice."""
        choice, whole = super().biased(scores, bias).clone(), max(scores.shape[1] // 16 * 16, 16)
        choice[:, whole:] = -torch.inf
        return choice


class HolesWeighInTheSum(Layer):
    """An empty slot reads expert 0's score, which is blanked after the weights were divided by their sum."""

    def pick(self, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """Read without looking for holes."""
        return scores.gather(1, topk_idx.clamp(min=0))

    def weigh(self, config: Config, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """Blank the holes at the end."""
        return super().weigh(config, scores, topk_idx).where(topk_idx >= 0, 0)


class ScaleInBfloat16(Layer):
    """The scaling factor is kept in bfloat16, which holds 2.5 and 16 but not 2.827."""

    profiles = ("kimi-k2",)

    def weigh(self, config: Config, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """Round the factor."""
        scale = float(torch.tensor(config["routed_scaling_factor"], dtype=torch.bfloat16))
        return super().weigh({**config, "routed_scaling_factor": scale}, scores, topk_idx)


class MaskSilencesShared(Layer):
    """Padding tokens are kept from the shared expert, too."""

    profiles = ("mask",)

    def shared(self, config: Config, t: Tensors) -> Tensor:
        """Multiply by the mask."""
        y = super().shared(config, t)
        return y * t["mask"][:, None] if "mask" in t else y


class BiasLearnsInForward(Layer):
    """The balancing bias is moved by the load of every forward, and kept for the next call."""

    def __init__(self) -> None:
        """Nothing learned yet."""
        self.learned: dict[int, Tensor] = {}

    def biased(self, scores: Tensor, bias: Tensor | None) -> Tensor:
        """Add what was learned."""
        choice = super().biased(scores, bias)
        return choice if bias is None else choice + self.learned.get(len(bias), torch.zeros(len(bias)))

    def sort(self, topk_idx: Tensor, experts: int) -> Rows:
        """Learn from the load: crowded experts lose, idle ones win."""
        where = super().sort(topk_idx, experts)
        load = torch.tensor(where.counts, dtype=torch.float32)
        self.learned[experts] = self.learned.get(experts, torch.zeros(experts)) + 0.001 * (load.mean() - load).sign()
        return where
