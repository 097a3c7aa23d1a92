"""Planted bugs: AdamW and its moments."""

import numpy as np
from planted.arith import Array, Tensors, bf16, fp16
from planted.taking import Config

from .honest import Fp8

PROFILES = ("moments",)
OPS = ("adamw",)
CLAUSES = ("OPT-1",)


class StepMinusOne(Fp8):
    """The bias is corrected as at the step before."""

    def _unbiased(self, a: Array, beta: float, step: int) -> Array:
        return super()._unbiased(a, beta, step - 1)


class StepPlusOne(Fp8):
    """The bias is corrected as at the step after."""

    def _unbiased(self, a: Array, beta: float, step: int) -> Array:
        return super()._unbiased(a, beta, step + 1)


class BiasLeft(Fp8):
    """The bias is not corrected."""

    def _unbiased(self, a: Array, beta: float, step: int) -> Array:  # noqa: ARG002
        return a


class EpsilonInsideRoot(Fp8):
    """Epsilon is added before the root."""

    def _denominator(self, v: Array, config: Config) -> Array:
        return np.sqrt(v + np.float32(config["adam_epsilon"]))


class EpsilonMissing(Fp8):
    """There is no epsilon."""

    def _denominator(self, v: Array, config: Config) -> Array:  # noqa: ARG002
        return np.sqrt(v)


class EpsilonAsFloor(Fp8):
    """Epsilon is a floor."""

    def _denominator(self, v: Array, config: Config) -> Array:
        return np.maximum(np.sqrt(v), np.float32(config["adam_epsilon"]))


class EpsilonOf1e8(Fp8):
    """Epsilon is 1e-8, whatever the config says."""

    def _denominator(self, v: Array, config: Config) -> Array:
        return super()._denominator(v, {**config, "adam_epsilon": 1e-8})


class WithoutRoot(Fp8):
    """The second moment's root is not taken."""

    def _denominator(self, v: Array, config: Config) -> Array:
        return v + np.float32(config["adam_epsilon"])


class EpsilonBeforeCorrection(Fp8):
    """Epsilon is added to the root of the second moment before that is corrected."""

    def _unbiased(self, a: Array, beta: float, step: int) -> Array:
        self._factor_now = 1 - beta**step
        return super()._unbiased(a, beta, step)

    def _denominator(self, v: Array, config: Config) -> Array:
        root = np.sqrt(np.float32(self._factor_now))
        return (np.sqrt(v) * root + np.float32(config["adam_epsilon"])) / root


class DecayInGradient(Fp8):
    """Weight decay is added to the gradient."""

    def _gradient(self, g: Array, p: Array, config: Config) -> Array:
        return g + config["weight_decay"] * p

    def _decayed(self, p: Array, config: Config) -> Array:  # noqa: ARG002
        return p


class DecayMissing(Fp8):
    """Weights do not decay."""

    def _decayed(self, p: Array, config: Config) -> Array:  # noqa: ARG002
        return p


class DecayWithoutRate(Fp8):
    """Weight decay is not multiplied with the learning rate."""

    def _decayed(self, p: Array, config: Config) -> Array:
        return p * (1 - config["weight_decay"])


class SquareOfMoment(Fp8):
    """The second moment's square is not taken."""

    def _square(self, g: Array) -> Array:
        return np.abs(g)


class SquareInFloat16(Fp8):
    """The gradient's square passes through float16."""

    def _square(self, g: Array) -> Array:
        return fp16(g * g)


class GradientInBFloat16(Fp8):
    """The gradient is read in bfloat16."""

    def _gradient(self, g: Array, p: Array, config: Config) -> Array:  # noqa: ARG002
        return bf16(g)


class BetasExchanged(Fp8):
    """beta1 and beta2 are exchanged."""

    def adamw(self, config: Config, **t: Array) -> Tensors:
        """The step-th step."""
        return super().adamw({**config, "adam_beta1": config["adam_beta2"], "adam_beta2": config["adam_beta1"]}, **t)


class BetaOf999(Fp8):
    """beta2 is 0.999, whatever the config says."""

    def _moment(self, old: Array, new: Array, beta: float) -> Array:
        return super()._moment(old, new, 0.999 if beta > 0.9 else beta)


class Undamped(Fp8):
    """The new gradient is not multiplied with 1 - beta."""

    def _moment(self, old: Array, new: Array, beta: float) -> Array:
        return beta * old + new


class ParamInBFloat16(Fp8):
    """The master weights are bfloat16."""

    def _decayed(self, p: Array, config: Config) -> Array:
        return bf16(super()._decayed(p, config))


class RoundedBeforeUse(Fp8):
    """The step is made of the rounded moments."""

    clauses = ("OPT-3",)

    def _used_moment(self, name: str, a: Array, config: Config) -> Array:
        return self._kept_moment(name, a, config)


class MomentsTruncated(Fp8):
    """Moments are cut to bfloat16."""

    clauses = ("OPT-2",)

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:
        if config["moment_format"] != "bfloat16":
            return super()._kept_moment(name, a, config)
        return (a.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


class MomentsInFloat32(Fp8):
    """Moments are not rounded."""

    clauses = ("OPT-2",)

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002
        return a


class FirstMomentOnly(Fp8):
    """Only the first moment is rounded."""

    clauses = ("OPT-2",)

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:
        return super()._kept_moment(name, a, config) if name == "m" else a


class MomentsInFloat16(Fp8):
    """Moments are stored in float16."""

    clauses = ("OPT-2",)

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:
        return fp16(a) if config["moment_format"] == "bfloat16" else super()._kept_moment(name, a, config)


class MomentsAlwaysRounded(Fp8):
    """Moments are rounded, although they should be float32."""

    clauses = ("OPT-1", "CFG-20")

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002
        return bf16(a)


class MomentsStochastic(Fp8):
    """Moments are rounded stochastically."""

    clauses = ("OPT-2",)

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:
        if config["moment_format"] != "bfloat16":
            return super()._kept_moment(name, a, config)
        noise = np.random.default_rng(0).integers(0, 1 << 16, a.shape, np.uint32)
        return ((a.astype(np.float32).view(np.uint32) + noise) & np.uint32(0xFFFF0000)).view(np.float32)
