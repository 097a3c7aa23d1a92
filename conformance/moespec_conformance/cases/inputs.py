"""Inputs that are the same numbers everywhere: raw words of a counter-based generator, and exact arithmetic.

Philox 4x64 is keyed by the first 8 bytes (little-endian) of the SHA-256 of a text; only `random_raw` is used, whose
stream is fixed. `normal` adds four 16-bit words: bell-shaped, standard deviation 1.15, 18 bits, exact in float32.
"""

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from moespec.config import MoEConfig
from moespec.fields import NEUTRAL
from moespec.fields_fp8 import completed
from moespec_conformance.cases.models import MODELS
from moespec_conformance.protocol import BFLOAT16, Tensors

Tensor = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class Draw:
    """A stream of numbers named by a text."""

    def __init__(self, name: str) -> None:
        """Key the generator by the name."""
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        self.words = np.random.Philox(key=key)

    def integers(self, *shape: int, bits: int = 16) -> I64:
        """Whole numbers below 2**bits."""
        count = int(np.prod(shape))
        return (np.atleast_1d(self.words.random_raw(count)) >> np.uint64(64 - bits)).astype(np.int64).reshape(shape)

    def normal(self, *shape: int, shift: int = 0) -> F32:
        """Bell-shaped numbers of standard deviation 1.15 * 2**-shift."""
        four = self.integers(4, *shape)
        return np.asarray((four.sum(axis=0) - 2 * 65535) * 2.0 ** (-15 - shift), np.float32)

    def dyadic(self, *shape: int, bits: int = 3, shift: int = 0) -> F32:
        """Small whole numbers, -2**(bits-1) … 2**(bits-1) - 1, times 2**-shift: sums of them are exact."""
        return np.asarray((self.integers(*shape, bits=bits) - 2 ** (bits - 1)) * 2.0**-shift, np.float32)

    def positive(self, *shape: int) -> F32:
        """1 + k 2**-12 for k below 2**11: all of one sign, and every digit counts."""
        return np.asarray(1 + self.integers(*shape, bits=11) * 2.0**-12, np.float32)

    def ids(self, tokens: int, slots: int, experts: int) -> I64:
        """Distinct experts for each token."""
        return np.argsort(self.integers(tokens, experts, bits=63), axis=-1, kind="stable")[:, :slots]


def one_entry(columns: I64, width: int, value: float = 1.0) -> F32:
    """Rows of zeros, but for one value each, in these columns (rows, 1)."""
    return np.where(np.arange(width) == columns, np.float32(value), np.float32(0))


def config(model: str = "deepseek-v3", **changed: Any) -> dict[str, Any]:  # noqa: ANN401 - config values
    """The tiny twin of a model, with changes."""
    tiny: dict[str, Any] = {
        "hidden_size": 64,
        "moe_intermediate_size": 32,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "group_score": "top2_sum",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "selection_bias": True,
        **NEUTRAL,
    }
    made = {**tiny, **MODELS[model], **changed}
    return made if made["n_group"] > 1 else {**made, "group_score": None}


def fp8_config(model: str = "deepseek-v3", **changed: Any) -> dict[str, Any]:  # noqa: ANN401 - config values
    """The same for an op of FP8: every field of CFG-17 … CFG-20 is said, blocks as lists, which is what JSON has."""
    said: dict[str, Any] = json.loads(json.dumps(completed(config(model, **changed))))
    return said


def shift_of(size: int) -> int:
    """About log2(sqrt(size)): keeps sums over this size near 1."""
    return int(size).bit_length() // 2


def expert_weights(draw: Draw, hidden: int, width: int, *experts: int, gated: bool = True) -> Tensors:
    """Matrices of one expert, or of `experts` of them."""
    weights = {
        "gate_proj": draw.normal(*experts, width, hidden, shift=shift_of(hidden)),
        "up_proj": draw.normal(*experts, width, hidden, shift=shift_of(hidden)),
        "down_proj": draw.normal(*experts, hidden, width, shift=shift_of(width)),
    }
    return weights if gated else {name: weights[name] for name in ("up_proj", "down_proj")}


def layer_weights(draw: Draw, cfg: MoEConfig) -> Tensors:
    """All trained tensors of a layer, and the bias if it has one (small)."""
    hidden, experts = cfg.hidden_size, cfg.n_routed_experts
    weights = {
        "gate_weight": draw.normal(experts, hidden, shift=shift_of(hidden)),
        **expert_weights(draw, hidden, cfg.moe_intermediate_size, experts, gated=cfg.gated),
    }
    if cfg.n_shared_experts:
        shared = expert_weights(draw, hidden, cfg.shared_width, gated=cfg.gated)
        weights |= {f"shared_{name}": tensor for name, tensor in shared.items()}
    if cfg.selection_bias:
        weights["bias"] = draw.normal(experts, shift=4)
    return weights


def table(draw: Draw, cfg: MoEConfig, tokens: int) -> Tensors:
    """For a hash layer: the tokens' own ids, and each possible one's experts."""
    if not cfg.hash_routing:
        return {}
    entries = 50
    token_ids = draw.integers(tokens, bits=31) % entries
    return {"token_ids": token_ids, "tid2eid": draw.ids(entries, cfg.num_experts_per_tok, cfg.n_routed_experts)}


def mixed(draw: Draw, tensor: Tensor, low: int, high: int) -> Tensor:
    """The same numbers, each slice along the first axis times its own power of two, 2**low … 2**high."""
    powers = low + draw.integers(len(tensor), bits=16) % (high - low + 1)
    scaled = tensor * np.exp2(powers).reshape(-1, *[1] * (tensor.ndim - 1))
    return scaled.astype(np.float32)


def in_bfloat16(tensors: Tensors) -> Tensors:
    """x, dy and weights as bfloat16 numbers; what the router keeps in float32, and ids, as they are."""
    keep = ("bias", "topk_weight", "dtopk_weight", "row_weight", "dscores", "dlogits", "noise")
    return {
        name: tensor.astype(BFLOAT16) if tensor.dtype == np.float32 and name not in keep else tensor
        for name, tensor in tensors.items()
    }
