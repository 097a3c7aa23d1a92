"""Inputs of every op at a size that is worth timing, made from the ops' own signatures."""

from typing import Any

import numpy as np

from moespec import PRESETS
from moespec.config import MoEConfig
from moespec.dispatch import count_rows, rows_by_expert
from moespec.expert_fp8 import scheme_a, scheme_b
from moespec.ops import RUN
from moespec.quant import Scheme, quantize
from moespec.signatures import OPS, Tensor, expected, sizes
from moespec.storage import outside, scale_outside

Tensors = dict[str, Any]

# DeepSeek-V3's layer, an eighth as wide and with a quarter of its experts
WIDE: dict[str, Any] = {
    "hidden_size": 1024,
    "moe_intermediate_size": 256,
    "n_routed_experts": 64,
    "n_group": 4,
    "topk_group": 2,
    "accumulate": "exact",
}
NARROW = {"hidden_size": 128, "moe_intermediate_size": 128, "n_routed_experts": 16}  # an expert's output by each token
CONFIGS: dict[str, dict[str, Any]] = {
    "mixture_loss": NARROW,
    "mixture_loss_backward": NARROW,
    "balance_loss": {"balance_kind": "sequence", "alpha": 1e-4},
    "balance_loss_backward": {"balance_kind": "sequence", "alpha": 1e-4},
    "bias_update": {"bias_update_rate": 1e-3},
    "bias_steps": {"bias_update_rate": 1e-3},
    "capacity": {"capacity_factor": 1.0, "drop_policy": "probs"},
    "capacity_backward": {"capacity_factor": 1.0, "drop_policy": "probs"},
    **{op: {"n_device": 4} for op in ("dispatch_ranks", "combine_ranks", "moe_ranks", "moe_ranks_backward")},
    "requantize": {"a_block": (1, 128), "b_block": (128, 1)},
    "lift_fp4": {"a_format": "e2m1", "a_block": (1, 32), "b_block": (128, 128), "scale_format": "ue8m0"},
}
SIZES = {"T": 512, "N": 512, "M": 512, "C": 1024, "V": 8192, "P": 8, "B": 4}
PRODUCT = {"M": 256, "N": 512, "C": 2048}  # of FP8 matrices


def config(op: str) -> MoEConfig:
    """The layer that an op is timed in."""
    fields = {**PRESETS["deepseek-v3"].moe.to_dict(), **WIDE, **CONFIGS.get(op, {})}
    return MoEConfig.from_dict(fields)


def inputs(op: str, cfg: MoEConfig, tokens: int = SIZES["T"], seed: int = 0) -> Tensors:
    """All tensors that the op must be given."""
    draw = np.random.default_rng(seed)
    letters = {**SIZES, **(PRODUCT if op.endswith("matmul_fp8") else {}), **sizes(cfg), "T": tokens}
    letters["W"] = letters["K"]
    given: Tensors = {}
    for name, tensor in expected(OPS[op].inputs, cfg).items():
        if not tensor.when.startswith("?"):
            given[name] = one(tensor, letters, cfg, draw)
    return {**given, **agreeing(op, cfg, given, tokens)}


def one(tensor: Tensor, letters: dict[str, int], cfg: MoEConfig, draw: np.random.Generator) -> Any:  # noqa: ANN401
    """A tensor by itself: Gaussian, or ids, or positive weights, or codes and scales of Gaussians."""
    if tensor.holds in ("codes", "scale"):
        return quantized(tensor, letters, cfg)
    shape = tuple(letters[letter] for letter in tensor.dims)
    if tensor.holds == "ids":
        return np.argsort(draw.random((*shape[:-1], letters["E"])), axis=-1)[..., : shape[-1]]
    if tensor.holds == "index":
        return draw.integers(0, 8, shape) if tensor.dims else np.array(1)
    if tensor.name in ("topk_weight", "scores", "recv_topk_weight", "exp_avg_sq"):
        return draw.random(shape, np.float32)
    if tensor.name == "bias":
        return np.zeros(shape, np.float32)
    wide = shape[-1] if len(shape) > 1 and tensor.name.endswith(("weight", "_proj")) else 1
    return np.asarray(draw.standard_normal(shape, np.float32) * np.float32(wide**-0.5))


def quantized(tensor: Tensor, letters: dict[str, int], cfg: MoEConfig) -> Any:  # noqa: ANN401 - codes or scales
    """Codes or scales of a Gaussian matrix, or of a stack of them; both are made of the same one."""
    *stack, row, column = (token.split("/")[0].split(":")[0] for token in tensor.dims)
    scheme, shape = scheme_of(tensor, cfg), (letters[row], letters[column])
    name = tensor.name.removesuffix("codes").removesuffix("scale")
    x = np.random.default_rng(sum(map(ord, name))).standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
    codes, scale = quantize(x, scheme)
    made = outside(codes, scheme.fmt) if tensor.holds == "codes" else scale_outside(scale, scheme.scale_format)
    return np.broadcast_to(made, (*(letters[s] for s in stack), *made.shape)).copy()


def scheme_of(tensor: Tensor, cfg: MoEConfig) -> Scheme:
    """How the operand is quantised that a tensor is of: a, b, or the config's single one."""
    operand = tensor.dims[-1].partition(":")[2] or tensor.dims[-1].partition("/")[2][0]
    single = scheme_a(cfg)._replace(format=cfg.format, block=cfg.block)
    return {"a": scheme_a(cfg), "b": scheme_b(cfg), "q": single}[operand]


def agreeing(op: str, cfg: MoEConfig, given: Tensors, tokens: int) -> Tensors:
    """Tensors that must agree with others: rows with ids, counts with rows, ranks with tokens."""
    made: Tensors = {}
    if "token_rank" in given:
        made["token_rank"] = np.arange(tokens) * cfg.n_device // tokens
    if op == "combine":
        ids = one(Tensor("topk_idx", ("T", "K"), "ids"), {"T": tokens, **sizes(cfg)}, cfg, np.random.default_rng(1))
        rows = rows_by_expert(ids, cfg.n_routed_experts)
        made |= {"row_token": rows.row_token, "row_slot": rows.row_slot}
        made["rows"] = np.resize(given["rows"], (len(rows.row_token), cfg.hidden_size))
    if op == "combine_ranks":
        sent = RUN["dispatch_ranks"](cfg, **inputs("dispatch_ranks", cfg, tokens))
        made |= {name: sent[name] for name in ("rows", "recv_topk_weight", "recv_count", "recv_token")}
    if op == "k_grouped_matmul":
        made["expert_size"] = np.full(cfg.n_routed_experts, SIZES["N"] // cfg.n_routed_experts)
    if op == "grouped_matmul_fp8":
        made["group_index"] = np.sort(np.arange(PRODUCT["M"]) % cfg.n_routed_experts)
    if op == "bias_update":
        made["expert_count"] = count_rows(np.arange(tokens)[:, None] % cfg.n_routed_experts, cfg.n_routed_experts)
    if op == "bias_steps":
        made |= {"pass_kind": np.zeros(SIZES["P"], np.int64), "pass_rank": np.zeros(SIZES["P"], np.int64)}
        made["pass_step"] = np.arange(SIZES["P"])
    return made


def moved(tensors: Tensors) -> int:
    """Bytes of some tensors."""
    return sum(np.asarray(t).nbytes for t in tensors.values())
