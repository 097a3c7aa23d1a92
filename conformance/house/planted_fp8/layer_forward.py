"""Planted bugs: the layer's forward in FP8."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, Tensors, bf16
from planted.honest_gate import Routing
from planted.honest_glu import Mlp

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked, Config
from .honest_layer import Kept, Matrices

PROFILES = ("fp8-layer",)
OPS = ("moe_fp8",)
CLAUSES = ("MFP-3",)


class _Quantised(Fp8):
    """Other ways to quantise some tensors."""

    names: ClassVar[tuple[str, ...]] = ()

    def _changed(self, x: Array, how: How) -> Blocked:
        return self._quantize(x, how)

    def _quant(self, name: str, x: Array, how: How) -> Blocked:
        return self._changed(x, how) if name in self.names else super()._quant(name, x, how)


def plain(x: Array) -> Blocked:
    """Nearly as it is: bfloat16 with scales of 1."""
    return Blocked(bf16(x).view(np.uint32) >> 16, np.ones((len(x), 1), np.float32), "bfloat16", (1, x.shape[1]))


class XNotQuantised(_Quantised):
    """x enters experts in bfloat16."""

    names, clauses = ("x",), ("MFP-2",)

    def _changed(self, x: Array, how: How) -> Blocked:
        blocks = -(-x.shape[1] // how.block[1])
        return plain(x)._replace(scale=np.ones((len(x), blocks), np.float32), block=how.block)


class HNotQuantised(XNotQuantised):
    """h enters down_proj in bfloat16."""

    names, clauses = ("h",), ("MFP-3",)


class XInOneBlock(_Quantised):
    """x has one scale for all."""

    names, clauses = ("x",), ("MFP-2",)

    def _changed(self, x: Array, how: How) -> Blocked:
        q = self._quantize(x, how._replace(block=(max(len(x), 1), x.shape[1] or 1)))
        blocks = -(-x.shape[1] // how.block[1])
        return q._replace(scale=np.broadcast_to(q.scale[:1, :1], (len(x), blocks)), block=how.block)


class HInOneBlock(XInOneBlock):
    """h has one scale an expert."""

    names, clauses = ("h",), ("MFP-3",)


class SentInFloat32Scales(Fp8):
    """What is sent has scales like all else, not powers of two."""

    clauses = ("MFP-2",)

    def _how_sent(self, config: Config) -> How:
        return self._how(config)


class AllInPowersOfTwo(_Quantised):
    """h has powers of two as scales, like what is sent."""

    names = ("h",)

    def _changed(self, x: Array, how: How) -> Blocked:
        return self._quantize(x, how._replace(scales="ue8m0"))


class RouterReadsCodes(Fp8):
    """The router reads x as it was quantised."""

    clauses = ("MFP-1",)

    def _route(self, cfg: Config, t: Tensors, *, backward: bool = False) -> Routing:
        x = self._dequantize(self._quantize(t["x"], self._how_sent(cfg)))
        return super()._route(cfg, {**t, "x": x}, backward=backward)._replace(x=t["x"])


class SharedReadsX(Fp8):
    """The shared expert reads x in bfloat16."""

    clauses = ("MFP-2",)

    def _shared_input(self, x: Array, codes: Blocked, config: Config) -> Blocked:  # noqa: ARG002
        return plain(x)._replace(scale=np.ones_like(codes.scale), block=codes.block)


class SharedQuantisesApart(Fp8):
    """The shared expert quantises x for itself, in `scale_format`."""

    clauses = ("MFP-2",)

    def _shared_input(self, x: Array, codes: Blocked, config: Config) -> Blocked:  # noqa: ARG002
        return self._quantize(x, self._how(config))


class ExpertsQuantiseApart(Fp8):
    """Each expert quantises its rows for itself, with one scale for all of them."""

    clauses = ("MFP-2",)

    def _routed_input(self, x: Array, codes: Blocked, token: Array, config: Config) -> Blocked:
        how = self._how_sent(config)
        q = self._quantize(x[token], how._replace(block=(len(token), how.block[1])))
        return q._replace(scale=np.repeat(q.scale, len(token), axis=0), block=codes.block)


class RowScalesOfWrongTokens(Fp8):
    """An expert's rows have the scales of the first tokens."""

    clauses = ("MFP-2",)

    def _routed_input(self, x: Array, codes: Blocked, token: Array, config: Config) -> Blocked:
        sent = super()._routed_input(x, codes, token, config)
        return sent._replace(scale=codes.scale[: len(token)])


class SecondRankWithFirstScales(Fp8):
    """The second half of the tokens has the first half's scales."""

    clauses = ("MFP-2",)

    def _routed_input(self, x: Array, codes: Blocked, token: Array, config: Config) -> Blocked:
        half = max(len(x) // 2, 1)
        return super()._routed_input(x, codes._replace(scale=codes.scale[np.arange(len(x)) % half]), token, config)


class WeightAfterQuantisation(Fp8):
    """The row's weight multiplies what leaves down_proj, though it should enter before."""

    def _entered(self, h: Array, w: Array, config: Config) -> Array:  # noqa: ARG002
        return h

    def _forward(self, x: Array, codes: Blocked, w: Array, m: Matrices, config: Config) -> tuple[Array, Kept]:
        y, kept = super()._forward(x, codes, w, m, config)
        return (y * w[:, None] if self._early(config) else y), kept


class WeightBeforeQuantisation(Fp8):
    """The row's weight enters before down_proj, whatever the config says."""

    def _early(self, cfg: Config) -> bool:  # noqa: ARG002
        return True


class WeightedTwice(Fp8):
    """The row's weight enters before down_proj, and multiplies the output."""

    def _entered(self, h: Array, w: Array, config: Config) -> Array:  # noqa: ARG002
        return h * w[:, None]


class WeightForgotten(Fp8):
    """The row's weight never enters where it should enter before down_proj."""

    def _entered(self, h: Array, w: Array, config: Config) -> Array:  # noqa: ARG002
        return h


class ClampAfterQuantisation(Fp8):
    """Gate and up are quantised, and then clamped."""

    def _opened(self, config: Config, gate: Array | None, up: Array) -> Array:
        if config["swiglu_limit"]:
            gate = None if gate is None else self._keep("gate", gate, config)
            up = self._keep("up", up, config)
        return super()._opened(config, gate, up)


class ClampOfH(Fp8):
    """h is clamped, not gate and up."""

    def _limit(self, m: Mlp) -> float:  # noqa: ARG002
        return np.inf

    def _opened(self, config: Config, gate: Array | None, up: Array) -> Array:
        limit = config["swiglu_limit"] or np.inf
        return np.clip(super()._opened(config, gate, up), -limit, limit)


class ClampMissing(Fp8):
    """Nothing is clamped."""

    def _limit(self, m: Mlp) -> float:  # noqa: ARG002
        return np.inf


class ForwardOfKept(Fp8):
    """The forward, too, makes h of gate and up as they are kept."""

    clauses = ("MFP-4", "MFP-3")

    def _opened(self, config: Config, gate: Array | None, up: Array) -> Array:
        kept = None if gate is None else self._keep("gate", gate, config)
        return super()._opened(config, kept, self._keep("up", up, config))


class GateAndUpExchanged(Fp8):
    """silu(up) * gate."""

    def _opened(self, config: Config, gate: Array | None, up: Array) -> Array:
        return super()._opened(config, up, gate) if gate is not None else super()._opened(config, gate, up)


class HInBFloat16(Fp8):
    """h is stored in bfloat16 before it is quantised."""

    def _stored(self, name: str, a: Array) -> Array:
        return bf16(a) if name == "h" else a


class SumInBFloat16(Fp8):
    """Each expert's output is stored in bfloat16."""

    clauses = ("MFP-1",)

    def _stored(self, name: str, a: Array) -> Array:
        return bf16(a) if name in ("out", "weighted") else a
