"""Rows in the order of experts, grouped products over them, and the way back to tokens."""

# torch leaves much untyped
# pyright: basic

from typing import NamedTuple

import torch
from torch import Tensor

from .router import Router, Tensors
from .step import step


class Rows(NamedTuple):
    """Where rows in the order of experts come from (N), and how many of them each expert has."""

    token: Tensor
    slot: Tensor
    counts: list[int]


class Experts(Router):
    """Permute, multiply expert by expert, activate, unpermute: each a kernel with a backward of its own."""

    def sort(self, topk_idx: Tensor, experts: int) -> Rows:
        """One row for each named expert of topk_idx (T,W), by expert, then token."""
        flat = topk_idx.flatten()
        slots = (flat >= 0).nonzero().squeeze(1)
        slots = slots[flat[slots].argsort(stable=True)]
        counts = torch.bincount(flat[slots], minlength=experts)
        return Rows(slots // topk_idx.shape[1], slots % topk_idx.shape[1], counts.tolist())

    def take(self, x: Tensor, token: Tensor) -> Tensor:
        """Rows (N,H) of tokens x (T,H)."""
        return step(lambda x, token: x[token], self.take_backward, x, token)

    def take_backward(self, x: Tensor, token: Tensor, drows: Tensor) -> tuple[Tensor, None]:
        """Add up what a token's rows got."""
        total = torch.zeros(x.shape, dtype=self.high).index_add(0, token, drows.to(self.high))
        return total.to(x.dtype), None

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b, added up in high precision and stored once."""
        return (a.to(self.high) @ b.to(self.high)).to(a.dtype)

    def grouped(self, rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """Rows (N,I) with the weights (E,O,I) of their experts: (N,O)."""
        return step(self.grouped_forward, self.grouped_backward, rows, weights, counts)

    def grouped_forward(self, rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
        """Segment after segment."""
        segments = zip(rows.split(counts), weights, strict=True)
        return torch.cat([self.product(segment, weight.T) for segment, weight in segments])

    def grouped_backward(
        self, rows: Tensor, weights: Tensor, counts: list[int], dy: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        """Data gradient and weight gradient."""
        return Experts.grouped_forward(self, dy, weights.mT, counts), self.weight_gradient(dy, rows, counts), None

    def weight_gradient(self, dy: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """dy.T @ rows of each segment, (E,O,I)."""
        segments = zip(dy.split(counts), rows.split(counts), strict=True)
        return torch.stack([self.product(d.T, r) for d, r in segments])

    def sigmoid(self, x: Tensor) -> Tensor:
        """The sigmoid inside the experts' activation."""
        return x.sigmoid()

    def activate(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """SwiGLU of (N,F) each, clamped and weighed where the model asks for it."""
        return step(self.activate_forward, self.activate_backward, gate, up, limit, weight)

    def activate_forward(self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None) -> Tensor:
        """One kernel, one store."""
        g, u = self.limited(gate, up, limit)
        h = g * self.sigmoid(g) * u
        return (h if weight is None else h * weight[:, None]).to(gate.dtype)

    def limited(self, gate: Tensor, up: Tensor, limit: float | None) -> tuple[Tensor, Tensor]:
        """Gate and up in high precision, clamped."""
        g, u = gate.to(self.high), up.to(self.high)
        return (g, u) if limit is None else (g.clamp(max=limit), u.clamp(-limit, limit))

    def activate_backward(
        self, gate: Tensor, up: Tensor, limit: float | None, weight: Tensor | None, dh: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor | None]:
        """The gradients of gate, up and weight, from the clamped values made anew."""
        g, u = self.limited(gate, up, limit)
        d = dh.to(self.high)
        s = self.sigmoid(g)
        dweight = None if weight is None else (d * (g * s * u)).sum(-1)
        d = d if weight is None else d * weight[:, None]
        dgate, dup = d * u * (s + g * s * (1 - s)), d * (g * s)
        if limit is not None:
            dgate, dup = self.passed(gate, up, limit, dgate, dup)
        return dgate.to(gate.dtype), dup.to(up.dtype), None, dweight

    def passed(self, gate: Tensor, up: Tensor, limit: float, dgate: Tensor, dup: Tensor) -> tuple[Tensor, Tensor]:
        """What the clamp lets back through."""
        return dgate.where(gate <= limit, 0), dup.where(up.abs() <= limit, 0)

    def packed(self, gate: Tensor, up: Tensor) -> Tensor:
        """Both matrices as one, (E,2F,H), so that one product does for both."""
        return torch.cat([gate, up], 1)

    def mlp(
        self, rows: Tensor, weights: Tensors, counts: list[int], limit: float | None, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """h (N,F) and y (N,H) of rows in the order of experts, whose matrices are (E,F,H), (E,F,H) and (E,H,F)."""
        both = self.grouped(rows, self.packed(weights["gate_proj"], weights["up_proj"]), counts)
        half = both.shape[1] // 2
        h = self.activate(both[:, :half], both[:, half:], limit, weight)
        return h, self.grouped(h, weights["down_proj"], counts)

    def unpermute(self, rows: Tensor, where: Rows, weight: Tensor) -> Tensor:
        """y (T,H): a token's rows, times weight (T,W) of their slots, added up."""
        return step(self.unpermute_forward, self.unpermute_backward, rows, where, weight)

    def places(self, where: Rows, shape: torch.Size) -> Tensor:
        """The row of each slot (T,W), or -1."""
        place = torch.full(shape, -1)
        place[where.token, where.slot] = torch.arange(len(where.token))
        return place

    def unpermute_forward(self, rows: Tensor, where: Rows, weight: Tensor) -> Tensor:
        """Every slot looks for its row; -1 finds the spare row of zeros at the end."""
        spare = torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).to(self.high)
        total = rows.new_zeros(len(weight), rows.shape[1], dtype=self.high)
        for place, w in zip(self.places(where, weight.shape).T, weight.to(self.high).T, strict=True):
            total += w[:, None] * spare[place]
        return total.to(rows.dtype)

    def unpermute_backward(self, rows: Tensor, where: Rows, weight: Tensor, dy: Tensor) -> tuple[Tensor, None, Tensor]:
        """A row gets its token's gradient times its weight; a weight gets the product of gradient and row."""
        d, at = dy.to(self.high)[where.token], (where.token, where.slot)
        dweight = torch.zeros(weight.shape, dtype=self.high)
        dweight[at] = self.share(d, rows.to(self.high), weight.to(self.high)[at])
        return (d * weight.to(self.high)[at][:, None]).to(rows.dtype), None, dweight.to(weight.dtype)

    def share(self, d: Tensor, rows: Tensor, _weight: Tensor) -> Tensor:
        """The gradients of rows' weights, (N)."""
        return (d * rows).sum(-1)
