"""Megatron-Core's layer on a CPU, in its one-process form: SequentialMLP behind the all-gather dispatcher.

It asks for the current CUDA device, and without Transformer Engine misses a name; both are put in. Its selection bias
would be made on a GPU, so there is none: here it is zeros. All its parameters are our memory.
"""

# the libraries leave much untyped, and need not be here
# mypy: disable-error-code="import-not-found,import-untyped"
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

from typing import Any
from unittest.mock import patch

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import distributed

from moespec_conformance.bench.beside import BOTH, FORWARD, Calls, Task
from moespec_conformance.bench.beside_torch import calls, joined
from moespec_conformance.bench.timing import Call

GROUPS = ("tp", "cp", "ep", "tp_cp", "tp_ep", "tp_dp_cp", "expt_tp", "expt_dp")


def configured(given: Task) -> Any:  # noqa: ANN401 - its configuration
    """DeepSeek-V3's router without groups, experts of SwiGLU without biases."""
    cfg = given.layer.cfg
    return TransformerConfig(
        num_layers=1,
        num_attention_heads=1,
        hidden_size=cfg.hidden_size,
        ffn_hidden_size=cfg.moe_intermediate_size,
        moe_ffn_hidden_size=cfg.moe_intermediate_size,
        num_moe_experts=cfg.n_routed_experts,
        moe_router_topk=cfg.num_experts_per_tok,
        moe_router_score_function="sigmoid",
        moe_router_topk_scaling_factor=cfg.routed_scaling_factor,
        moe_router_load_balancing_type="none",
        moe_token_dispatcher_type="allgather",  # noqa: S106 - no password
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        use_cpu_initialization=True,
        perform_initialization=False,
    )


def alone() -> Any:  # noqa: ANN401 - a process group
    """The group of this process."""
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    return distributed.group.WORLD


def layer(given: Task) -> Any:  # noqa: ANN401 - its module
    """The module, where every group is of one process."""
    linears = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    experts = MoESubmodules(experts=ModuleSpec(module=SequentialMLP, submodules=linears))
    groups = ProcessGroupCollection(**dict.fromkeys(GROUPS, alone()))
    return MoELayer(configured(given), experts, layer_number=1, pg_collection=groups).eval()


def on_a_cpu(call: Call) -> Call:
    """The call, with what is missing here."""

    def stood_in() -> object:
        names = {"target": moe_utils, "attribute": "te_general_gemm", "new": None, "create": True}
        with patch.object(torch.cuda, "current_device", lambda: "cpu"), patch.object(**names):
            return call()

    return stood_in


def megatron(given: Task) -> Calls:
    """Its layer takes (T, 1, H)."""
    gate_weight, gate_up_proj, down_proj = joined(given)
    module: Any = on_a_cpu(lambda: layer(given))()
    module.router.weight.data = gate_weight
    own = module.experts.local_experts
    for expert, gate_up, down in zip(own, gate_up_proj, down_proj, strict=True):
        expert.linear_fc1.weight.data, expert.linear_fc2.weight.data = gate_up, down
    leaves = {
        "gate_weight": [module.router.weight],
        "gate_up_proj": [expert.linear_fc1.weight for expert in own],
        "down_proj": [expert.linear_fc2.weight for expert in own],
    }
    made: Any = calls(given, lambda x: module(x[:, None])[0][:, 0], leaves)
    return {direction: on_a_cpu(made[direction]) for direction in (FORWARD, BOTH)}
