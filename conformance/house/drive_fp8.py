"""Runs the lines of FP8 and of the moments on arrays of any reading: for the shape comments, and for CuPy's doors."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moespec_conformance.cases.inputs import config
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.foreign import Foreign

FILES = ("quant", "accumulate", "linear", "expert_fp8", "moe_fp8", "streamed", "optim")
SIZES = {
    "hidden_size": 11,
    "moe_intermediate_size": 8,
    "n_routed_experts": 12,
    "n_shared_experts": 6,
    "num_experts_per_tok": 5,
    "n_group": 1,
    "topk_group": 1,
    "group_score": None,
}
# blocks that are smaller than the matrices, so that grids have sizes of their own
BLOCKS = {"block": (3, 4), "a_block": (1, 4), "b_block": (4, 4), "promote_every": 4}
Lift = Callable[[Any], Any]


def drive_fp8(ref: Any, lift: Lift = np.asarray) -> None:
    """Every op of FP8 and AdamW, on a copy of the reference that is checked, or on the reference itself."""
    cfg = ref.MoEConfig.from_dict(config(**SIZES, **BLOCKS))
    drive_blocks(ref, cfg, lift)
    drive_layer(ref, cfg, lift)
    rng = np.random.default_rng(3)
    some = [lift(rng.random((3, 4)).astype(np.float32)) for _ in range(4)]
    ref.optim.adamw(ref.optim.Trained(*some[:3]), some[3], 2, cfg)


def drive_blocks(ref: Any, cfg: Any, lift: Lift) -> None:
    """Every way to choose a scale, blocks ragged and not; requantised, dequantised, lifted, and multiplied."""
    rng = np.random.default_rng(4)
    x = lift(rng.standard_normal((13, 10)).astype(np.float32))
    for recipe in ref.recipes.RECIPES:
        for scale_format in ("float32", "ue8m0"):
            scheme = ref.quant.Scheme(recipe, "e4m3", (3, 4), scale_format, "saturate")
            ref.quant.quantized_numbers(x, scheme)
            if lift != Bounded.lift:
                quantized = ref.quant.quantize(x, scheme)
                ref.quant.requantize(quantized, scheme, scheme._replace(block=(2, 5)))
    if lift == Bounded.lift:
        return
    small = ref.quant.Scheme("deepseek-v4-fp4", "e2m1", (1, 2), "ue8m0", "saturate")
    large = small._replace(format="e4m3", block=(6, 5))
    ref.quant.lift(ref.quant.quantize(x, small), small, large)
    drive_products(ref, cfg, lift)


def drive_products(ref: Any, cfg: Any, lift: Lift) -> None:
    """Every accumulator, with c and without, promoted and not; grouped by rows and along the contraction."""
    rng, linear, quant = np.random.default_rng(5), ref.linear, ref.quant
    scheme = quant.Scheme("deepseek-v3", "e4m3", (1, 4), "float32", "saturate")

    def operand(*shape: int, block: tuple[int, int] = (1, 4)) -> Any:
        matrix = lift(rng.standard_normal(shape).astype(np.float32))
        return linear.Operand(quant.quantize(matrix, scheme._replace(block=block)), scheme._replace(block=block))

    a, b = operand(13, 20), operand(9, 20, block=(4, 4))
    c = lift(rng.random((13, 9)).astype(np.float32))
    ones = [linear.Operand(o.matrix._replace(scale=np.ones_like(o.matrix.scale)), o.scheme) for o in (a, b)]
    for accumulate in ("exact", "float32", "promoted", "hopper", "ada", "blackwell"):
        for given in (None, c):
            linear.matmul(a, b, linear.Adding(accumulate, 4), given)
            if accumulate != "promoted":
                linear.matmul(*ones, linear.Adding(accumulate, 0), given)
    how = linear.Adding("promoted", 4)
    stack = quant.Quantized(*(np.stack([plane] * cfg.n_routed_experts) for plane in b.matrix))
    index = lift(rng.integers(-1, 3, 13))
    linear.grouped(a, linear.Operand(stack, b.scheme), index, how)
    along = lift(rng.random((cfg.n_routed_experts, 13, 9)).astype(np.float32))
    linear.k_grouped(a, operand(9, 20), [8, 0, 12] + [0] * 9, along, how)


def members(ref: Any, cfg: Any, lift: Lift) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
    """Layers with gradients from codes and from values, with a gate and without: config, weights, and tokens."""
    rng, expert, layer = np.random.default_rng(6), ref.expert_fp8, ref.moe_fp8
    e, f, h, s = cfg.n_routed_experts, cfg.moe_intermediate_size, cfg.hidden_size, cfg.shared_width

    def number(*shape: int) -> Any:
        return lift(rng.standard_normal(shape).astype(np.float32))

    def stored(*shape: int) -> Any:
        one = expert.operand(number(*shape[-2:]), expert.scheme_b(cfg))
        stacked = [lift(np.stack([np.zeros(plane.shape, np.float32)] * shape[0])) for plane in one.matrix]
        return one if len(shape) == 2 else one._replace(matrix=ref.quant.Quantized(*stacked))

    for changed in (
        {},
        {"recipe": "torchao", "weight_position": "before_down"},
        {"gated": False, "hidden_act": "relu"},
    ):
        member = replace(cfg, **changed)
        routed, shared = (
            expert.Fp8Expert(stored(*k, f1, h) if member.gated else None, stored(*k, f1, h), stored(*k, h, f1))
            for k, f1 in (((e,), f), ((), s))
        )
        ids = np.argsort(rng.random((7, e)), axis=-1)[:, : cfg.num_experts_per_tok]
        topk_idx = Foreign(ids) if lift is Foreign else ids
        yield member, layer.Fp8Weights(routed, shared), (number(7, h), number(7, h), topk_idx, number(*ids.shape))


def drive_layer(ref: Any, cfg: Any, lift: Lift) -> None:
    """Every member forward and backward, whole and, where there are codes, an expert at a time."""
    for member, weights, (x, dy, topk_idx, topk_weight) in members(ref, cfg, lift):
        dweights = ref.ops_moe_fp8.gradients(member, x)
        *_, cache = ref.moe_fp8.layer_forward(x, topk_idx, topk_weight, weights, member)
        ref.moe_fp8.layer_backward(dy, cache, weights, dweights, member)
        if lift != Bounded.lift:
            experts = at_hand(ref, weights)
            _, cache = ref.streamed.layer_forward(x, topk_idx, topk_weight, experts, member)
            ref.streamed.layer_backward(dy, cache, experts, ignore, member)


def drive_streamed_ranks(ref: Any, lift: Lift) -> None:
    """An expert at a time on two ranks, on a copy whose T is a rank's tokens."""
    cfg = ref.MoEConfig.from_dict(config(**SIZES, **BLOCKS))
    for member, weights, (x, dy, topk_idx, topk_weight) in members(ref, cfg, lift):
        tokens = ref.moe_ranks.Tokens(*([a[:3], a[3:]] for a in (x, topk_idx, topk_weight)))
        experts, comm = at_hand(ref, weights), ref.ranks.in_process(2)
        _, cache = ref.streamed_ranks.layer_ranks_forward(tokens, experts, member, comm)
        ref.streamed_ranks.layer_ranks_backward([dy[:3], dy[3:]], cache, experts, ignore, member)


def at_hand(ref: Any, weights: Any) -> Callable[[int], Any]:
    """A source of experts that has them all."""
    experts = weights.routed.up_proj.shape[0]
    return lambda e: ref.moe_fp8.one_of(weights.routed, e) if e < experts else weights.shared


def ignore(*_: Any) -> None:
    """Take an expert's gradients, and keep nothing."""
