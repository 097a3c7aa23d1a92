"""Layers of torch alone, and of transformers: all on one set of weights, which are NumPy's own memory."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import grouped_mm, linear, silu

from moespec_conformance.bench.beside import BOTH, FORWARD, Calls, Task
from moespec_conformance.bench.timing import Call

Run = Callable[[torch.Tensor], torch.Tensor]
Leaves = Mapping[str, Sequence[torch.Tensor]]  # by our names: one tensor of all experts, or one of each
FIFTY = "autograd writes a gradient of all experts for every expert: about 50 times its forward"


def forward(run: Run, x: torch.Tensor) -> Call:
    """Without autograd."""

    def call() -> dict[str, Any]:
        with torch.no_grad():
            return {"y": run(x)}

    return call


def both(run: Run, x: torch.Tensor, dy: torch.Tensor, leaves: Leaves) -> Call:
    """With autograd, which makes a new gradient of every leaf each time."""
    x = x.clone().requires_grad_()
    flat = [x, *(leaf.requires_grad_() for each in leaves.values() for leaf in each)]

    def call() -> dict[str, Any]:
        y = run(x)
        dx, *rest = torch.autograd.grad(y, flat, dy, materialize_grads=True)
        grads = iter(rest)
        return {"y": y.detach(), "dx": dx, **{f"d{n}": [next(grads) for _ in each] for n, each in leaves.items()}}

    return call


def calls(given: Task, run: Run, leaves: Leaves) -> Calls:
    """One layer in both directions."""
    x, dy = (torch.from_numpy(a) for a in (given.layer.x, given.layer.dy))
    return {FORWARD: forward(run, x), BOTH: both(run, x, dy, leaves)}


def joined(given: Task) -> tuple[torch.Tensor, ...]:
    """The router's weight, gate_proj with up_proj, and down_proj."""
    weights = given.layer.weights
    arrays = weights.gate_weight, given.gate_up_proj, weights.down_proj
    return tuple(torch.from_numpy(a) for a in arrays)


def routed(given: Task, x: torch.Tensor, gate_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sigmoid scores, of which each token's largest share one whole: topk_idx and topk_weight (T, K)."""
    cfg = given.layer.cfg
    scores = linear(x, gate_weight).sigmoid()
    topk_weight, topk_idx = scores.topk(cfg.num_experts_per_tok, dim=-1)
    return topk_idx, cfg.routed_scaling_factor * topk_weight / topk_weight.sum(-1, keepdim=True)


def torch_loop(given: Task) -> Calls:
    """A loop over experts, each with tensors of its own."""
    gate_weight, gate_up_proj, down_proj = joined(given)
    experts = [list(each.unbind()) for each in (gate_up_proj, down_proj)]

    def run(x: torch.Tensor) -> torch.Tensor:
        topk_idx, topk_weight = routed(given, x, gate_weight)
        y = torch.zeros_like(x)
        for e, (gate_up, down) in enumerate(zip(*experts, strict=True)):
            t, k = torch.where(topk_idx == e)
            gate, up = linear(x[t], gate_up).chunk(2, dim=-1)
            y.index_add_(0, t, linear(silu(gate) * up, down) * topk_weight[t, k, None])
        return y

    leaves = {"gate_weight": [gate_weight], "gate_up_proj": experts[0], "down_proj": experts[1]}
    return calls(given, run, leaves)


def torch_grouped(given: Task) -> Calls:
    """All experts in one call a matrix, on rows in order of experts."""
    gate_weight, gate_up_proj, down_proj = joined(given)
    E = len(gate_weight)

    def run(x: torch.Tensor) -> torch.Tensor:
        topk_idx, topk_weight = routed(given, x, gate_weight)
        order = topk_idx.flatten().argsort(stable=True)
        ends = topk_idx.flatten().bincount(minlength=E).cumsum(0).to(torch.int32)
        t = order // topk_idx.shape[1]
        gate, up = grouped_mm(x[t], gate_up_proj.mT, offs=ends).chunk(2, dim=-1)
        rows = grouped_mm(silu(gate) * up, down_proj.mT, offs=ends) * topk_weight.flatten()[order, None]
        return torch.zeros_like(x).index_add_(0, t, rows)

    return calls(given, run, {"gate_weight": [gate_weight], "gate_up_proj": [gate_up_proj], "down_proj": [down_proj]})


def transformers_eager(given: Task) -> Calls:
    """DeepSeek-V3's layer as released, with its loop over experts."""
    return {**released(given, "eager"), BOTH: FIFTY}


def transformers_grouped(given: Task) -> Calls:
    """DeepSeek-V3's layer as released, with the experts of whole models."""
    return released(given, "grouped_mm")


def released(given: Task, experts: str) -> Calls:
    """The module, its parameters ours; without shared experts it has one of width 0."""
    from transformers.initialization import no_init_weights  # noqa: PLC0415
    from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config  # noqa: PLC0415
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE  # noqa: PLC0415

    cfg = given.layer.cfg
    fields = ("hidden_size", "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok")
    more = ("n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor")
    said: dict[str, Any] = {n: getattr(cfg, n) for n in (*fields, *more)} | {"experts_implementation": experts}
    hf = DeepseekV3Config(**said)
    with torch.device("meta"), no_init_weights():
        module = DeepseekV3MoE(hf).eval()
    names = "gate.weight", "experts.gate_up_proj", "experts.down_proj"
    gate_weight, gate_up_proj, down_proj = (torch.nn.Parameter(each) for each in joined(given))
    held: dict[str, Any] = dict(zip(names, (gate_weight, gate_up_proj, down_proj), strict=True))
    module.load_state_dict(held | empty(module, held), assign=True)
    leaves = {"gate_weight": [gate_weight], "gate_up_proj": [gate_up_proj], "down_proj": [down_proj]}
    return calls(given, lambda x: module(x[None])[0], leaves)


def empty(module: torch.nn.Module, held: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The rest of what it holds: a bias of zeros, and matrices of width 0."""
    return {name: torch.zeros(own.shape) for name, own in module.state_dict().items() if name not in held}
