"""The honest implementation's AdamW, with moments that are stored in few bits."""

import numpy as np
from planted.arith import Array, Tensors, bf16
from planted.taking import Config


class Adam:
    """One step."""

    def _moment(self, old: Array, new: Array, beta: float) -> Array:
        return beta * old + (1 - beta) * new

    def _square(self, g: Array) -> Array:
        return g * g

    def _unbiased(self, a: Array, beta: float, step: int) -> Array:
        return a / (1 - beta**step)

    def _denominator(self, v: Array, config: Config) -> Array:
        return np.sqrt(v) + config["adam_epsilon"]

    def _decayed(self, p: Array, config: Config) -> Array:
        return p * (1 - config["learning_rate"] * config["weight_decay"])

    def _gradient(self, g: Array, p: Array, config: Config) -> Array:  # noqa: ARG002 - for overriding
        return g

    def _kept_moment(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002 - for overriding
        return bf16(a) if config["moment_format"] == "bfloat16" else a

    def _used_moment(self, name: str, a: Array, config: Config) -> Array:  # noqa: ARG002 - for overriding
        return a

    def adamw(self, config: Config, **t: Array) -> Tensors:
        """The step-th step."""
        config, t = self._entering("adamw", config, t)  # type: ignore[attr-defined]
        step, b1, b2 = int(t["step"]), config["adam_beta1"], config["adam_beta2"]
        g = self._gradient(t["grad"], t["param"], config)
        m, v = self._moment(t["exp_avg"], g, b1), self._moment(t["exp_avg_sq"], self._square(g), b2)
        use_m, use_v = self._used_moment("m", m, config), self._used_moment("v", v, config)
        size = self._denominator(self._unbiased(use_v, b2, step), config)
        update = config["learning_rate"] * (self._unbiased(use_m, b1, step) / size)
        param = self._decayed(t["param"], config) - update
        return {
            "param": param,
            "exp_avg": self._kept_moment("m", m, config),
            "exp_avg_sq": self._kept_moment("v", v, config),
        }
