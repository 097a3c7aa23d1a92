"""AdamW whose moments are kept in bfloat16, as DeepSeek-V3 trains (SPEC: OPT)."""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float
from moespec.config import MoEConfig
from moespec.formats import FORMATS, nearest


class Trained(NamedTuple):
    """What is trained, and the running means of its gradient and of the gradient's square."""

    param: Float  # (M, C)
    exp_avg: Float  # (M, C)
    exp_avg_sq: Float  # (M, C)


def stored(moment: Float, cfg: MoEConfig) -> Float:
    """OPT-2: a moment as it is kept, rounded to the nearest bfloat16 after each step; infinity stays."""
    return nearest(moment, FORMATS["bfloat16"]) if cfg.moment_format == "bfloat16" else moment


def adamw(
    before: Trained,
    grad: Float,  # (M, C)
    step: int,
    cfg: MoEConfig,
) -> Trained:
    """One step of AdamW, the step-th from 1 on; the master weights are float32."""
    # OPT-1: moments; weight decay is apart from the gradient
    beta1, beta2 = cfg.adam_beta1, cfg.adam_beta2
    exp_avg = beta1 * before.exp_avg + (1 - beta1) * grad  # (M, C)
    exp_avg_sq = beta2 * before.exp_avg_sq + (1 - beta2) * (grad * grad)  # (M, C)

    # OPT-3: the step is made of the moments before they are rounded for storage
    mean = exp_avg / (1 - beta1**step)  # (M, C)
    size = np.sqrt(exp_avg_sq / (1 - beta2**step)) + cfg.adam_epsilon  # (M, C)
    kept = before.param * (1 - cfg.learning_rate * cfg.weight_decay)  # (M, C)
    return Trained(kept - cfg.learning_rate * (mean / size), stored(exp_avg, cfg), stored(exp_avg_sq, cfg))
