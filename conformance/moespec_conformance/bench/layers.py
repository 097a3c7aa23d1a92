"""Layers of the sizes that are measured, with Gaussian tokens and weights."""

from typing import NamedTuple

import numpy as np

from moespec.arrays import Float
from moespec.config import MoEConfig
from moespec.moe import MoEWeights


class Shape(NamedTuple):
    """Sizes of one layer, in SPEC.md's letters."""

    T: int
    H: int
    F: int
    E: int
    K: int
    S: int = 0

    def __str__(self) -> str:
        """Letters and sizes in one word."""
        return " ".join(f"{letter}{size}" for letter, size in self._asdict().items() if size)


SHAPES = (
    Shape(T=512, H=1024, F=256, E=64, K=6),
    Shape(T=1024, H=2048, F=1408, E=64, K=6),
    Shape(T=4096, H=2048, F=512, E=64, K=8),
    Shape(T=8, H=2048, F=1408, E=16, K=6),
)
PREFILL = 64  # tokens from which on a shape is no longer decoding


class Layer(NamedTuple):
    """One layer with its tokens, and the buffers of its gradients."""

    cfg: MoEConfig
    x: Float  # (T, H)
    dy: Float  # (T, H)
    bias: Float  # (E,)
    weights: MoEWeights
    dweights: MoEWeights


def config(shape: Shape) -> MoEConfig:
    """DeepSeek-V3's router without groups."""
    return MoEConfig.from_dict(
        {
            "hidden_size": shape.H,
            "moe_intermediate_size": shape.F,
            "n_routed_experts": shape.E,
            "n_shared_experts": shape.S,
            "num_experts_per_tok": shape.K,
            "n_group": 1,
            "topk_group": 1,
            "group_score": None,
            "scoring_func": "sigmoid",
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "selection_bias": True,
        }
    )


def build(shape: Shape, dtype: str = "float32", seed: int = 0) -> Layer:
    """Gaussian tokens and weights, scaled so that every product keeps their size."""
    rng = np.random.default_rng(seed)
    T, H, F, E, _, S = shape

    def draw(*sizes: int) -> Float:
        drawn = rng.standard_normal(sizes, np.float32)
        drawn *= max(1, sizes[-1]) ** -0.5
        return drawn.astype(dtype, copy=False)

    routed = draw(E, H), draw(E, F, H), draw(E, F, H), draw(E, H, F)
    weights = MoEWeights(*routed, draw(S * F, H), draw(S * F, H), draw(H, S * F))
    x, dy = draw(T, H) * np.sqrt(H).astype(dtype), draw(T, H)
    return Layer(config(shape), x, dy, np.zeros(E, dtype), weights, MoEWeights(*map(np.zeros_like, weights)))
