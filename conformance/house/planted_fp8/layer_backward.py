"""Planted bugs: the layer's backward in FP8."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, Tensors, bf16

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked, Config
from .honest_layer import Grads, Kept, Matrices

PROFILES = ("fp8-layer",)
OPS = ("moe_fp8_backward",)
CLAUSES = ("MFP-5",)


class KeptInFloat32(Fp8):
    """Gate and up are kept as they are."""

    clauses = ("MFP-4",)

    def _keep(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002
        return a


class KeptInBFloat16(Fp8):
    """Gate and up are kept in bfloat16."""

    clauses = ("MFP-4",)

    def _keep(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002
        return bf16(a)


class KeptInPowersOfTwo(Fp8):
    """Gate and up are kept with powers of two as scales."""

    clauses = ("MFP-4",)

    def _keep(self, name: str, a: Array, config: Config) -> Array:
        return self._dequantize(self._quant(name, a, self._how(config)._replace(scales="ue8m0")))


class OnlyUpKept(Fp8):
    """The gate is kept as it is."""

    clauses = ("MFP-4",)

    def _keep(self, name: str, a: Array, config: Config) -> Array:
        return a if name == "gate" else super()._keep(name, a, config)


class _Turned(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("LIN-4", "MFP-5")


class GridNotTransposed(_Turned):
    """Codes are transposed, and the grid is read as it was."""

    def _turned(self, name: str, m: Blocked) -> Blocked:
        turned = super()._turned(name, m)
        return turned._replace(scale=m.scale.reshape(turned.scale.shape))


class BlocksNotTransposed(_Turned):
    """Codes and grid are transposed, and quantised anew in blocks along the wrong side."""

    def _turned(self, name: str, m: Blocked) -> Blocked:  # noqa: ARG002
        x = self._dequantize(m).T
        how = How("deepseek-v3", m.format, (1, x.shape[1]), "float32")
        q = self._quantize(x, how)
        blocks = -(-x.shape[1] // 32)
        return q._replace(scale=np.repeat(q.scale, blocks, axis=1), block=(1, 32))


class TransposeIsZero(_Turned):
    """The transposed copy was never filled."""

    def _turned(self, name: str, m: Blocked) -> Blocked:
        turned = super()._turned(name, m)
        return turned._replace(codes=np.zeros_like(turned.codes))


class TransposeIsStale(_Turned):
    """The transposed copy of up_proj is that of gate_proj."""

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        self._stale = m.gate
        return super()._backward(dy, kept, m, config)

    def _turned(self, name: str, m: Blocked) -> Blocked:
        return super()._turned(name, self._stale if name == "up" and self._stale is not None else m)


class _Quantised(Fp8):
    names: ClassVar[tuple[str, ...]] = ()

    def _how_changed(self, how: How) -> How:
        return how

    def _quant(self, name: str, x: Array, how: How) -> Blocked:
        return super()._quant(name, x, self._how_changed(how) if name in self.names else how)


class GradientInFloat32Scales(_Quantised):
    """The gradient on its way to experts has scales like all else."""

    names = ("dy", "dy by token")

    def _how_changed(self, how: How) -> How:
        return how._replace(scales="float32")


class GradientsInPowersOfTwo(_Quantised):
    """The gradients of gate and up have powers of two as scales."""

    names = ("dgate", "dup")

    def _how_changed(self, how: How) -> How:
        return how._replace(scales="ue8m0")


class GradientsInE5M2(_Quantised):
    """Gradients are E5M2."""

    names = ("dy", "dgate", "dup", "dy by token", "dgate by token", "dup by token")

    def _how_changed(self, how: How) -> How:
        return how._replace(format="e5m2") if how.format == "e4m3" else how


class _Plain(Fp8):
    names: ClassVar[tuple[str, ...]] = ()

    def _quant(self, name: str, x: Array, how: How) -> Blocked:
        if name not in self.names:
            return super()._quant(name, x, how)
        scale = np.ones((len(x), -(-x.shape[1] // how.block[1])), np.float32)
        return Blocked(bf16(np.ascontiguousarray(x)).view(np.uint32) >> 16, scale, "bfloat16", how.block)


class GradientNotQuantised(_Plain):
    """dy enters the product in bfloat16."""

    names = ("dy",)


class InnerGradientsNotQuantised(_Plain):
    """The gradients of gate and up enter products in bfloat16."""

    names = ("dgate", "dup")


class WeightGradientsInBFloat16(_Plain):
    """Operands of weights' gradients are bfloat16."""

    names, clauses = ("x by token", "dy by token", "dgate by token", "dup by token", "h by token"), ("MFP-6",)


class GradientWeightedAfter(Fp8):
    """dy is quantised before the row's weight multiplies it."""

    def _quant(self, name: str, x: Array, how: How) -> Blocked:
        if name != "dy" or self._plain_dy is None:
            return super()._quant(name, x, how)
        return super()._quant(name, self._plain_dy, how)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config, c)
        return y * self._w[:, None] if name == "dh" and self._plain_dy is not None else y

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        self._plain_dy, self._w = None if self._early(config) else dy, kept.w
        return super()._backward(dy, kept, m, config)


class _Drow(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("MFP-5", "MOE-2")

    def _other_y(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Array:
        raise NotImplementedError

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        return super()._backward(dy, kept._replace(y=self._other_y(dy, kept, m, config)), m, config)


class DrowOfKeptH(_Drow):
    """The gradient of a row's weight is made of an output computed again, of gate and up as kept."""

    def _other_y(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Array:  # noqa: ARG002
        h = self._quantize(self._opened(config, kept.gate, kept.up), self._how(config))
        return self._gemm("again", h, m.down, config)


class DrowOfWeightedY(_Drow):
    """The gradient of a row's weight is made of the weighted output."""

    def _other_y(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Array:  # noqa: ARG002
        return kept.y * kept.w[:, None]


class DrowOfCodes(Fp8):
    """The gradient of a row's weight is made of dy as it was quantised."""

    clauses = ("MFP-5", "MOE-2")

    def _drow(self, d: Array, out: Array) -> Array:
        how = How("deepseek-v3", "e4m3", (1, 128), "ue8m0")
        return super()._drow(self._dequantize(self._quantize(d, how)), out)


class DrowInBFloat16(Fp8):
    """The gradient of a row's weight is rounded to bfloat16."""

    clauses = ("MFP-5", "MFP-1", "MOE-2")

    def _drow(self, d: Array, out: Array) -> Array:
        return bf16(super()._drow(d, out))


class GradientsLeaveInBFloat16(Fp8):
    """Gradients of weights leave in bfloat16."""

    clauses = ("MFP-1",)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config, c)
        return bf16(y) if name.startswith("w") else y


class ClampPasses(Fp8):
    """What was beyond a limit has a gradient."""

    clauses = ("MFP-4", "MFP-5", "EXP-5", "MFP-3")

    def _passes(self, m: object, gate: Array, up: Array) -> tuple[Array, Array]:  # noqa: ARG002
        return np.ones_like(gate, np.bool), np.ones_like(up, np.bool)


class SlopeOfQuantiser(Fp8):
    """What a quantiser rounded to 0 has no gradient."""

    clauses = ("MFP-7",)

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        g = super()._backward(dy, kept, m, config)
        return g._replace(x=np.where(kept.codes.codes & 127, g.x, 0))


class DxWithoutGate(Fp8):
    """dx lacks what came through gate_proj."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config, c)
        return np.zeros_like(y) if name == "dx gate" else y


class RouterGradientMissing(Fp8):
    """dx lacks what came through the router."""

    clauses = ("MFP-1", "MOE-5", "MFP-5")

    def _router_vjp(self, r: object, dw: Array, name: str) -> tuple[Array, Tensors]:
        dx, of = super()._router_vjp(r, dw, name)  # type: ignore[arg-type]
        return np.zeros_like(dx), of


class EarlyWeightGradientOfY(Fp8):
    """The gradient of a row's weight is <dy, y>, where the weight enters before down_proj, too."""

    clauses = ("MFP-5", "EXP-6", "MOE-2")

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        g = super()._backward(dy, kept, m, config)
        return g._replace(w=self._drow(dy, kept.y)) if self._early(config) else g


class RecipeOfV31(Fp8):
    """The recipe named is taken for DeepSeek-V3.1's, powers of two throughout."""

    clauses = ("MFP-2", "MFP-4", "MFP-5", "MFP-6", "MFP-3")

    def _how(self, config: Config) -> How:
        return super()._how(config)._replace(scales="ue8m0")
