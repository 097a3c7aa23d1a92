"""Bugs of few digits: mostly several small losses at once."""

# torch leaves much untyped
# pyright: basic

import torch
from torch import Tensor

from .experts import Rows
from .layer import Layer


def bf16(x: Tensor) -> Tensor:
    """x as bfloat16 holds it, to nearest."""
    return x.bfloat16().float()


def cut(x: Tensor) -> Tensor:
    """x with TF32's ten bits behind the point, the others cut off."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class TwoTermsAndShortLog2e(Layer):
    """Products are made of two bfloat16 terms a number, and exp of 2 to the power of 1.442695 x."""

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Three products instead of one."""
        a1, b1 = bf16(a), bf16(b)
        a2, b2 = bf16(a - a1), bf16(b - b1)
        return a1 @ b1 + (a1 @ b2 + a2 @ b1)

    def sigmoid(self, x: Tensor) -> Tensor:
        """By the power of 2 that the hardware has."""
        return 1 / (1 + torch.exp2(-x * 1.442695))


class HalfWeightsAndHidden(Layer):
    """Weights of rows and the hidden activations are stored in float16."""

    def activate_forward(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """Store h in half precision."""
        return super().activate_forward(gate, up, limit, weight).half().float()

    def unpermute_forward(self, rows: Tensor, where: Rows, weight: Tensor) -> Tensor:
        """Weigh with halves."""
        return super().unpermute_forward(rows, where, weight.half().float())


class CutInputsAndCoarseReciprocal(Layer):
    """Products cut their inputs to TF32, and the sigmoid's reciprocal is good to 12 bits."""

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Cut both sides."""
        return super().product(cut(a), cut(b))

    def sigmoid(self, x: Tensor) -> Tensor:
        """No Newton step after the table."""
        quotient = 1 / (1 + (-x).exp())
        return (quotient.view(torch.int32) & ~0x7FF).view(torch.float32)


class ThinGradients(Layer):
    """The weight gradient reads its dy in bfloat16, and a token's gradient is added up in bfloat16."""

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Half the bytes to load."""
        return super().weight_gradient(bf16(dy), rows, counts)

    def take_backward(self, x: Tensor, token: Tensor, drows: Tensor) -> tuple[Tensor, None]:
        """Atomic additions of two bytes."""
        total = torch.zeros(x.shape, dtype=torch.bfloat16).index_add(0, token, drows.bfloat16())
        return total.to(x.dtype), None


class HalfScoresAndShortSum(Layer):
    """Scores are picked in float16, and what they are divided by is a bfloat16."""

    def pick(self, scores: Tensor, topk_idx: Tensor) -> Tensor:
        """Two bytes a score."""
        return super().pick(scores, topk_idx).half().float()

    def total(self, picked: Tensor) -> Tensor:
        """Two bytes a sum."""
        return bf16(super().total(picked))


class PartialsInBfloat16(Layer):
    """In bfloat16 a product is cut into eight along its sum, and the parts are stored before they are added."""

    arithmetic = ("bfloat16",)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Eight products, eight stores."""
        pieces = zip(a.tensor_split(8, 1), b.tensor_split(8, 0), strict=True)
        parts = [super(PartialsInBfloat16, self).product(left, right) for left, right in pieces]
        return torch.stack(parts).float().sum(0).to(a.dtype)
