"""Planted bugs: gradients of weights in FP8."""

from typing import ClassVar

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked, Config
from .honest_layer import Grads, Kept, Matrices

PROFILES = ("fp8-layer",)
OPS = ("moe_fp8_backward",)
CLAUSES = ("MFP-6",)


class _ByToken(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("MFP-6",)


class OperandsOfValues(_ByToken):
    """The operands of weights' gradients are quantised from values, in every recipe."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:  # noqa: ARG002
        return self._quant(f"{name} by token", x.T, how)


class OperandsOfCodes(_ByToken):
    """The operands of weights' gradients are requantised from codes, in every recipe."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:  # noqa: ARG002
        return self._quant(f"{name} by token", self._dequantize(codes).T, how)


class HOfCodes(_ByToken):
    """h by token is requantised from codes along the channels."""

    def _quant(self, name: str, x: Array, how: How) -> Blocked:
        if name == "h by token":
            x = self._dequantize(super()._quant("h", x.T, how)).T
        return super()._quant(name, x, how)


class BlocksAlongChannels(_ByToken):
    """The operands of weights' gradients are scaled along the channels."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:
        made = super()._by_token(name, x, codes, how)
        turned = self._quant(f"{name} by token", self._dequantize(codes).T, how._replace(block=how.block[::-1]))
        return self._quantize(self._dequantize(turned), how._replace(format="bfloat16", scales="ue8m0"))._replace(
            block=made.block
        )


class SquareBlocks(_ByToken):
    """x and dy are quantised in blocks of 128x128 for weights' gradients."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:  # noqa: ARG002
        q = self._quant(f"{name} by token", x.T, how._replace(block=(128, how.block[1])))
        return q._replace(scale=np.repeat(q.scale, 128, axis=0)[: len(q.codes)], block=how.block)


class StaleOperand(_ByToken):
    """x by token is that of the tokens before."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:
        if name == "x":
            codes, x = codes.at(np.roll(np.arange(len(x)), 1)), np.roll(x, 1, axis=0)
        return super()._by_token(name, x, codes, how)


class RaggedTokensLost(_ByToken):
    """Tokens beyond a whole block of 32 do not reach weights' gradients."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        whole = a.codes.shape[1] // 32 * 32
        if name.startswith("w") and whole:
            a, b = (q._replace(codes=q.codes[:, :whole]) for q in (a, b))
        return super()._gemm(name, a, b, config, c)


class DownGradientUnweighted(_ByToken):
    """The gradient of down_proj leaves the row's weight out."""

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:
        if name != "dy" or self._w is None:
            return super()._by_token(name, x, codes, how)
        safe = np.where(self._w == 0, 1, self._w)[:, None]
        return self._quant("dy by token", (self._dequantize(codes) / safe).T, how)

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        self._w = None if self._early(config) else kept.w
        return super()._backward(dy, kept, m, config)


class EmptyExpertsUninitialised(_ByToken):
    """The gradients of experts without rows are whatever memory held."""

    clauses = ("MFP-6", "MOE-4")

    def _blank(self, name: str, shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        return np.full(shape, 3e-3, np.float32)
