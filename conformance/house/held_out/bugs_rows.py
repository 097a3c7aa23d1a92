"""Bugs of dispatch kernels, grouped products, and experts on several ranks."""

# torch leaves much untyped
# pyright: basic

import math

import torch
from torch import Tensor

from .experts import Rows
from .honest import Ranks
from .layer import Layer
from .router import Config, Tensors


class IdleExpertsCompacted(Layer):
    """The list of segments leaves idle experts out, but matrices are still counted from the first."""

    def grouped_forward(self, rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """Pair the n-th busy expert's rows with the n-th matrix."""
        busy = [count for count in counts if count] or counts[:1]
        return super().grouped_forward(rows, weights[: len(busy)], busy)


class OneRowTailSkipped(Layer):
    """The loop over tiles of 128 rows ends one row early, so a tail of a single row is never computed."""

    def grouped_forward(self, rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """Tile by tile; one tile at least."""
        y, start = rows.new_zeros(len(rows), weights.shape[1]), 0
        for count, weight in zip(counts, weights, strict=True):
            for tile in range(0, max(count - 1, min(count, 1)), 128):
                at = slice(start + tile, start + min(tile + 128, count))
                y[at] = self.product(rows[at], weight.T)
            start += count
        return y


class BoxesOverflow(Layer):
    """Each expert has a box for twice its fair share of rows, and rows beyond it vanish without a word."""

    def sort(self, topk_idx: Tensor, experts: int) -> Rows:
        """Cut what does not fit."""
        where = super().sort(topk_idx, experts)
        room = max(8, math.ceil(2 * topk_idx.numel() / experts))
        place = torch.cat([torch.arange(count) for count in where.counts])
        counts = [min(count, room) for count in where.counts]
        return Rows(where.token[place < room], where.slot[place < room], counts)


class SlotsByConfigWidth(Layer):
    """A row's token is found by dividing by the config's experts per token, however wide the given routing is."""

    profiles = ("deepseek-v3", "variable-routing")

    def routed(self, config: Config, t: Tensors, topk_idx: Tensor, topk_weight: Tensor) -> Tensor:
        """Remember the config's width."""
        self.width = config["num_experts_per_tok"]
        return super().routed(config, t, topk_idx, topk_weight)

    def sort(self, topk_idx: Tensor, experts: int) -> Rows:
        """Divide by it."""
        where, width = super().sort(topk_idx, experts), topk_idx.shape[1]
        slots = where.token * width + where.slot
        return where._replace(token=slots // getattr(self, "width", width))


class InverseStartsAtZero(Layer):
    """The map from slots to rows starts as zeros, so that an empty slot finds row 0."""

    profiles = ("deepseek-v3", "variable-routing", "deepseek-v4-flash")

    def places(self, where: Rows, shape: torch.Size) -> Tensor:
        """Nothing says that a slot has no row."""
        return super().places(where, shape).clamp(min=0)


class LastFirstWithinExpert(Layer):
    """Places within an expert are handed out from the end, so its tokens stand in falling order."""

    def sort(self, topk_idx: Tensor, experts: int) -> Rows:
        """Turn every segment round."""
        where = super().sort(topk_idx, experts)
        turned = [segment.flip(0) for segment in torch.arange(len(where.token)).split(where.counts)]
        order = torch.cat(turned)
        return where._replace(token=where.token[order], slot=where.slot[order])


class RoundRobinOwners(Ranks):
    """Ids go to ranks in turn, while matrices lie on ranks in one piece."""

    arithmetic, profiles = ("float32",), ("deepseek-v3",)

    def local(self, topk_idx: Tensor, rank: int, experts: list[int]) -> Tensor:  # noqa: ARG002 - the bug
        """Deal experts out like cards."""
        mine = (topk_idx >= 0) & (topk_idx % self.ranks == rank)
        return torch.where(mine, topk_idx // self.ranks, -1)


class RouterGradientOfOneShard(Ranks):
    """Experts are cut along their width, and the first shard's output alone has a say in the router's gradient."""

    arithmetic, profiles = ("float32",), ("deepseek-v3",)

    def seen(self, topk_weight: Tensor) -> list[Tensor]:
        """No sum over shards goes back to the weights."""
        return [topk_weight] + [topk_weight.detach()] * (self.shards - 1)


class ShardsRoundDown(Layer):
    """A matrix is cut into eight shards of its width, rounded down, and the columns left over belong to nobody."""

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Add up the shards of what the product adds over."""
        width = max(a.shape[1] // 8 * 8, min(a.shape[1], 8))
        return super().product(a[:, :width], b[:width])
