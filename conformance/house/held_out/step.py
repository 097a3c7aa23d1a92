"""One step of a layer with a backward of its own, as a kernel has one."""

# torch leaves much untyped
# pyright: basic

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

Undo: TypeAlias = Callable[..., tuple[Any, ...]]


class Step(torch.autograd.Function):
    """Run a function whose backward is written by hand.

    What it was given is kept as a kernel keeps its buffers: autograd does not watch whether somebody writes to it.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., torch.Tensor], undo: Undo, *given: Any) -> torch.Tensor:
        """Run the step and keep what it was given."""
        ctx.undo = undo
        ctx.given = [g.detach() if isinstance(g, torch.Tensor) else g for g in given]
        return run(*ctx.given)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        """A gradient for each thing given, None for what has none."""
        return (None, None, *ctx.undo(*ctx.given, *gradients))


def step(run: Callable[..., torch.Tensor], undo: Undo, *given: Any) -> torch.Tensor:
    """`run(*given)`, differentiated by `undo(*given, gradient)`."""
    result: torch.Tensor = Step.apply(run, undo, *given)
    return result
