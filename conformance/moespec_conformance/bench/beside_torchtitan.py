"""torchtitan's layer in float32: its experts cast to bfloat16 whatever they are given, and that cast is left out."""

# the libraries leave much untyped, and need not be here
# mypy: disable-error-code="import-not-found,import-untyped"
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

import warnings
from typing import Any
from unittest.mock import patch

import torch
from torchtitan.models.common.linear import Linear
from torchtitan.models.common.moe import GroupedExperts, MoE, RoutedExperts, TokenChoiceTopKRouter
from torchtitan.models.common.token_dispatcher import LocalTokenDispatcher

from moespec_conformance.bench.beside import BOTH, FORWARD, Calls, Task
from moespec_conformance.bench.beside_torch import calls
from moespec_conformance.bench.timing import Call


def layer(given: Task) -> Any:  # noqa: ANN401 - its module
    """The module of DeepSeek-V3, without groups and shared experts."""
    cfg = given.layer.cfg
    E, K, H, F = cfg.n_routed_experts, cfg.num_experts_per_tok, cfg.hidden_size, cfg.moe_intermediate_size
    experts = RoutedExperts.Config(
        inner_experts=GroupedExperts.Config(dim=H, hidden_dim=F, num_experts=E),
        token_dispatcher=LocalTokenDispatcher.Config(num_experts=E, top_k=K),
    )
    router = TokenChoiceTopKRouter.Config(
        num_experts=E,
        gate=Linear.Config(in_features=H, out_features=E),
        top_k=K,
        score_func="sigmoid",
        route_norm=True,
        route_scale=cfg.routed_scaling_factor,
    )
    with torch.device("meta"):
        return MoE.Config(num_experts=E, routed_experts=experts, router=router).build().eval()


def in_float32(call: Call) -> Call:
    """The call without its casts; torch says each time that it does not autocast to float32 on a CPU."""

    def uncast() -> object:
        with warnings.catch_warnings(), patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor):
            warnings.filterwarnings("ignore", "In CPU autocast")
            return call()

    return uncast


def torchtitan(given: Task) -> Calls:
    """Its layer takes (1, T, H); its parameters are our memory, gate_proj and up_proj apart."""
    module, weights = layer(given), given.layer.weights
    names = {
        "router.gate.weight": "gate_weight",
        "routed_experts.inner_experts.w1_EFD": "gate_proj",
        "routed_experts.inner_experts.w3_EFD": "up_proj",
        "routed_experts.inner_experts.w2_EDF": "down_proj",
    }
    held = {theirs: torch.nn.Parameter(torch.from_numpy(getattr(weights, n))) for theirs, n in names.items()}
    module.load_state_dict({**held, "expert_bias_E": torch.from_numpy(given.layer.bias)}, assign=True)
    made: Any = calls(given, lambda x: module(x[None])[0], {n: [held[theirs]] for theirs, n in names.items()})
    return {direction: in_float32(made[direction]) for direction in (FORWARD, BOTH)}
