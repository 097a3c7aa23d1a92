"""Honest variants of the layer in FP8, and of AdamW. None may be flagged."""

import numpy as np
from planted.arith import Array, Tensors
from planted.honest_glu import Mlp
from planted.taking import Config

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked

LAYER = ("fp8-layer",)
MOMENTS = ("moments",)


class NotLifted(Fp8):
    """FP4 experts are multiplied as they are, in their own blocks: the same numbers."""

    profiles = LAYER

    def _lifted(self, q: Blocked, how: How) -> Blocked:  # noqa: ARG002
        return q


class Float64BetweenProducts(Fp8):
    """SwiGLU and its slopes are computed in float64."""

    profiles = LAYER

    def _glu(self, m: Mlp, gate: Array | None, up: Array) -> Array:
        wide = None if gate is None else gate.astype(np.float64)
        return super()._glu(m, wide, up.astype(np.float64)).astype(np.float32)

    def _glu_vjp(self, m: Mlp, gate: Array | None, up: Array, dh: Array) -> tuple[Array | None, Array]:
        wide = None if gate is None else gate.astype(np.float64)
        dgate, dup = super()._glu_vjp(m, wide, up.astype(np.float64), dh.astype(np.float64))
        return None if dgate is None else dgate.astype(np.float32), dup.astype(np.float32)


class Traced(Fp8):
    """The layer hands out its routing and its parts."""

    profiles = ("fp8-layer",)

    def moe_fp8(self, config: Config, **t: Array) -> Tensors:
        """The layer, and its routing."""
        r, _, y, _ = self._layer("moe_fp8", config, t)
        return {"topk_idx": r.ids, "topk_weight": self._weights(r).astype(np.float32), "y": y}


class WorstSlotsFirst(Fp8):
    """Slots come worst first."""

    profiles = LAYER

    def _top(self, choice: Array, k: int) -> Array:
        return super()._top(choice, k)[:, ::-1]


class ScalesByMultiplying(Fp8):
    """amax * (1 / top), and x * (1 / scale), in the layer."""

    profiles = LAYER

    def _block_scale(self, amax: Array, how: How) -> Array:
        return super()._block_scale(amax, how) if how.scales == "ue8m0" else amax * (1 / self._largest(how))

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        if how.scales == "ue8m0":
            return super()._numbers(x, amax, scale, how)
        return x * self._by_element(1 / scale, how.block, x.shape)


class Lerp(Fp8):
    """Moments move by (1 - beta) of the difference, from the nearer end."""

    profiles = MOMENTS

    def _moment(self, old: Array, new: Array, beta: float) -> Array:
        return old + (1 - beta) * (new - old) if beta > 0.5 else new - beta * (new - old)


class RootsApart(Fp8):
    """sqrt(v) / sqrt(1 - b2^n)."""

    profiles = MOMENTS

    def adamw(self, config: Config, **t: Array) -> Tensors:
        """The step-th step, as torch's single-tensor form goes."""
        config, t = self._entering("adamw", config, t)
        n, b1, b2, rate = int(t["step"]), config["adam_beta1"], config["adam_beta2"], config["learning_rate"]
        m, v = self._moment(t["exp_avg"], t["grad"], b1), self._moment(t["exp_avg_sq"], t["grad"] ** 2, b2)
        denominator = np.sqrt(v) / np.float32(np.sqrt(1 - b2**n)) + config["adam_epsilon"]
        param = self._decayed(t["param"], config) - (rate / (1 - b1**n)) * (m / denominator)
        return {"param": param} | {
            name: self._kept_moment(name, a, config) for name, a in (("exp_avg", m), ("exp_avg_sq", v))
        }


class AdamInFloat64(Fp8):
    """The step in float64, rounded at the end."""

    profiles = MOMENTS

    def adamw(self, config: Config, **t: Array) -> Tensors:
        """The step-th step."""
        made = super().adamw(config, **t)
        return {name: a.astype(np.float32) for name, a in made.items()}

    def _entering(self, op: str, config: Config, t: Tensors) -> tuple[Config, Tensors]:
        config, t = super()._entering(op, config, t)
        return config, {n: a.astype(np.float64) if op == "adamw" and a.dtype.kind == "f" else a for n, a in t.items()}
