"""Section 22: one step of the optimizer."""

import numpy as np

from moespec_conformance.adapters.plain.config import Config, require
from moespec_conformance.adapters.plain.formats import decode, encode
from moespec_conformance.adapters.plain.tensors import Floats, Tensors


def kept(c: Config, moment: Floats) -> Floats:
    """OPT-2: a moment as it is stored."""
    if c["moment_format"] == "float32":
        return moment
    return decode("bfloat16", encode("bfloat16", moment, "nan")).astype(moment.dtype)


def adamw(c: Config, t: Tensors) -> Tensors:
    """OPT-1, OPT-3: the step is made of the moments before they are stored."""
    g, n, b1, b2 = t["grad"], int(t["step"]), c["adam_beta1"], c["adam_beta2"]
    require(n >= 1, "OPT-1: a step below 1")
    require(not (t["exp_avg_sq"] < 0).any(), "OPT-1: a negative second moment")
    m = b1 * t["exp_avg"] + (1 - b1) * g
    v = b2 * t["exp_avg_sq"] + (1 - b2) * (g * g)
    under = np.sqrt(v / (1 - b2**n)) + c["adam_epsilon"]
    rate = c["learning_rate"]
    param = t["param"] * (1 - rate * c["weight_decay"]) - rate * (m / (1 - b1**n)) / under
    return {"param": param, "exp_avg": kept(c, m), "exp_avg_sq": kept(c, v)}
