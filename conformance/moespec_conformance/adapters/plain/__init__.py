"""The layers a second time, written from SPEC.md alone: one token, one slot, one row at a time."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy.typing as npt

from moespec_conformance.adapters.plain.balance import balance_loss, balance_loss_backward
from moespec_conformance.adapters.plain.bias import bias_steps, bias_update
from moespec_conformance.adapters.plain.blocks import cast, dequantize, lift_fp4, quantize, requantize
from moespec_conformance.adapters.plain.capacity import capacity, capacity_backward
from moespec_conformance.adapters.plain.config import Config, check_config
from moespec_conformance.adapters.plain.expert import expert, expert_backward
from moespec_conformance.adapters.plain.gate import gate, gate_backward
from moespec_conformance.adapters.plain.layer import combine, dispatch, moe, moe_backward
from moespec_conformance.adapters.plain.layer_fp8 import moe_fp8, moe_fp8_backward
from moespec_conformance.adapters.plain.layouts import k_grouped_matmul, layout
from moespec_conformance.adapters.plain.mixture import mixture_loss, mixture_loss_backward
from moespec_conformance.adapters.plain.moments import adamw
from moespec_conformance.adapters.plain.norm import cross_entropy, cross_entropy_backward, rms_norm, rms_norm_backward
from moespec_conformance.adapters.plain.products import grouped_matmul_fp8, matmul_fp8
from moespec_conformance.adapters.plain.ranks import combine_ranks, dispatch_ranks, moe_ranks, moe_ranks_backward
from moespec_conformance.adapters.plain.tensors import Tensors, checked


def method(op: Callable[[Config, Tensors], Tensors]) -> Callable[..., Tensors]:
    """Make a function of checked tensors the adapter's method of the same name."""

    def asked(_: object, config: Config, **t: npt.NDArray[Any]) -> Tensors:
        c = check_config(config)
        return op(c, checked(op.__name__, c, t))

    return asked


MODELS = """deepseek-v3 deepseek-r1 deepseek-v3.1 deepseek-v3.2 deepseek-moe-16b deepseek-v2-lite deepseek-v2
    deepseek-v4-flash deepseek-v4-pro kimi-k2 glm-4.5 mixtral-8x7b mixtral-8x22b grok-1 switch glam gshard"""
OTHERS = """variants mask ties variable-routing noisy-topk softmax-over-chosen expert-choice hierarchical jacobs-jordan
    balance capacity layouts ranks norm-loss reject relation batch-invariant"""


RECIPES = """deepseek-v3 deepseek-v3.1 deepgemm tilekernels transformer-engine torchao mx-floor mx-rceil
    deepseek-v4-fp4"""
SMALL = "fp8 fp8-products fp8-exact hopper ada blackwell fp8-layer moments"


class Adapter:
    """The ops of section 3, each as its clauses say it."""

    name, version, arithmetic = "plain", version("moespec"), ("float32",)
    profiles = (*MODELS.split(), *OTHERS.split(), *SMALL.split(), *(f"recipe-{n}" for n in RECIPES.split()))
    gate, gate_backward = method(gate), method(gate_backward)
    expert, expert_backward = method(expert), method(expert_backward)
    dispatch, combine = method(dispatch), method(combine)
    moe, moe_backward = method(moe), method(moe_backward)
    mixture_loss, mixture_loss_backward = method(mixture_loss), method(mixture_loss_backward)
    layout, k_grouped_matmul = method(layout), method(k_grouped_matmul)
    dispatch_ranks, combine_ranks = method(dispatch_ranks), method(combine_ranks)
    moe_ranks, moe_ranks_backward = method(moe_ranks), method(moe_ranks_backward)
    capacity, capacity_backward = method(capacity), method(capacity_backward)
    balance_loss, balance_loss_backward = method(balance_loss), method(balance_loss_backward)
    bias_update, bias_steps = method(bias_update), method(bias_steps)
    rms_norm, rms_norm_backward = method(rms_norm), method(rms_norm_backward)
    cross_entropy, cross_entropy_backward = method(cross_entropy), method(cross_entropy_backward)
    cast, quantize, dequantize = method(cast), method(quantize), method(dequantize)
    requantize, lift_fp4 = method(requantize), method(lift_fp4)
    matmul_fp8, grouped_matmul_fp8 = method(matmul_fp8), method(grouped_matmul_fp8)
    moe_fp8, moe_fp8_backward = method(moe_fp8), method(moe_fp8_backward)
    adamw = method(adamw)
