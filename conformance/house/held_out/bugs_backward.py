"""Bugs that only the backward shows."""

# torch leaves much untyped
# pyright: basic

from typing import Any

import torch
from torch import Tensor

from .layer import Layer
from .router import Config, Tensors, root_softplus
from .step import step

V4 = ("deepseek-v4-flash",)


class HoleErasesExpertZero(Layer):
    """Gradients of scores are written, not added, and an empty slot writes its 0 over expert 0's."""

    def pick(self, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """Gather with a backward of its own."""
        return step(super().pick, self.pick_backward, scores, topk_idx)

    def pick_backward(self, scores: Tensor, topk_idx: Tensor, dpicked: Tensor) -> tuple[Tensor, None]:
        """Scatter to ids in which a hole is expert 0."""
        return torch.zeros_like(scores).scatter(1, topk_idx.clamp(min=0), dpicked.where(topk_idx >= 0, 0)), None


class DotWithWeightedOutput(Layer):
    """A weight's gradient is taken with the row that was already multiplied by that weight."""

    def share(self, d: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
        """Weigh first."""
        return super().share(d, rows * weight[:, None], weight)


class ProductInPlace(Layer):
    """h is written where up was, and the backward takes it for up."""

    def activate_forward(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """Save memory."""
        h = super().activate_forward(gate, up, limit, weight)
        return up.copy_(h).clone()


class LastTileWins(Layer):
    """A weight's gradient is computed in tiles of 128 rows, and each tile is stored over the one before."""

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Only the last tile of each expert counts."""
        last = [count - max(count - 1, 0) // 128 * 128 for count in counts]
        ends = torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()
        kept = [torch.arange(end - tail, end) for end, tail in zip(ends, last, strict=True)]
        at = torch.cat(kept)
        return super().weight_gradient(dy[at], rows[at], last)


class ClampedTailLoads(Layer):
    """Beyond an expert's last row loads are clamped, not masked, and a sum over tiles of 16 rows sees it again."""

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Repeat each expert's last row up to a whole tile."""
        segments = torch.arange(len(rows)).split(counts)
        tiles = [torch.cat([s, s[-1:].repeat(-len(s) % 16)]) for s in segments]
        at = torch.cat(tiles)
        return super().weight_gradient(dy[at], rows[at], [len(tile) for tile in tiles])


class RecomputeRoutesAnew(Layer):
    """The backward recomputes the forward, routing included, and forgets the ids it was given."""

    def moe_backward(self, config: Config, **arrays: Any) -> Tensors:
        """Choose again."""
        del arrays["topk_idx"]
        return super().moe_backward(config, **arrays)


class ClampLeaks(Layer):
    """The clamp is taken for the identity in the backward, and what it cut off gets a gradient."""

    profiles = V4

    def passed(self, gate: Tensor, up: Tensor, limit: float, dgate: Tensor, dup: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - the bug
        """Let everything through."""
        return dgate, dup


class LimitIsBeyond(Layer):
    """What lies exactly at the limit is taken for clamped, and gets no gradient."""

    profiles = V4

    def passed(self, gate: Tensor, up: Tensor, limit: float, dgate: Tensor, dup: Tensor) -> tuple[Tensor, Tensor]:
        """Less than, not at most."""
        return dgate.where(gate < limit, 0), dup.where(up.abs() < limit, 0)


class ZeroScoreDividesByZero(Layer):
    """The slope of the root of softplus is 0 / 0 where a score has run out of digits."""

    profiles = V4

    def root_softplus_backward(self, logits: Tensor, dscores: Tensor) -> tuple[Tensor]:
        """Divide by what may be 0."""
        return (dscores * logits.sigmoid() / (2 * root_softplus(logits)),)


class RouterGradientThroughBfloat16(Layer):
    """In bfloat16 the gradient of logits is stored in the dtype of x before it reaches the router's weight."""

    arithmetic = ("bfloat16",)

    def logits(self, x: Tensor, weight: Tensor) -> Tensor:
        """Float32 forwards, x's dtype backwards."""
        return step(super().logits, self.logits_backward, x, weight)

    def logits_backward(self, x: Tensor, weight: Tensor, dlogits: Tensor) -> tuple[Tensor, Tensor]:
        """One product each, of a gradient that has lost its digits."""
        d = dlogits.to(x.dtype).to(self.high)
        return (d @ weight.to(self.high)).to(x.dtype), d.T @ x.to(self.high)
