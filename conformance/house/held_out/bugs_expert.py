"""Bugs of the experts themselves, and in what is kept from call to call."""

# torch leaves much untyped
# pyright: basic

import torch
from torch import Tensor

from .layer import Layer
from .router import Config, Tensors

V4 = ("deepseek-v4-flash",)


class SharedExpertsAveraged(Layer):
    """Several shared experts are averaged like heads, not added."""

    profiles = ("deepseek-moe-16b",)

    def shared(self, config: Config, t: Tensors) -> Tensor:
        """Divide by how many there are."""
        return super().shared(config, t) / config["n_shared_experts"]


class WeightBeforeClamp(Layer):
    """The row's weight is folded into the up half before the clamp, so large values are clamped with it."""

    profiles = V4

    def activate_forward(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """Weigh, then clamp."""
        return super().activate_forward(gate, up if weight is None else up * weight[:, None], limit, None)


class WeightsPackedOnce(Layer):
    """Gate and up are packed into one matrix at the first call, and later calls find the old one."""

    def __init__(self) -> None:
        """Nothing packed yet."""
        self.kept: dict[torch.Size, Tensor] = {}

    def packed(self, gate: Tensor, up: Tensor) -> Tensor:
        """Pack what has not been seen in this shape."""
        return self.kept.setdefault(gate.shape, super().packed(gate, up))


class GradientsPileUp(Layer):
    """Weight gradients are added to buffers that nobody clears between calls."""

    def __init__(self) -> None:
        """No buffer yet."""
        self.buffers: dict[torch.Size, Tensor] = {}

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Add to what is there."""
        fresh = super().weight_gradient(dy, rows, counts)
        buffer = self.buffers.setdefault(fresh.shape, torch.zeros_like(fresh))
        return buffer.add_(fresh)


class StaleIdleGradients(Layer):
    """A buffer of weight gradients is used again, and an expert without rows does not write to it."""

    def __init__(self) -> None:
        """No buffer yet."""
        self.buffers: dict[torch.Size, Tensor] = {}

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Write busy experts only, and hand out a copy."""
        fresh = super().weight_gradient(dy, rows, counts)
        buffer = self.buffers.setdefault(fresh.shape, torch.zeros_like(fresh))
        busy = torch.tensor(counts) > 0
        buffer[busy] = fresh[busy]
        return buffer.clone()
