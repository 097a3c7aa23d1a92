"""The FP8 layer an expert at a time: every bit of moe_fp8's, in one process and over ranks, and no expert kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from test_moe_fp8 import config_of, matrices, stored

from moespec import MoEConfig, moe_fp8, streamed, streamed_ranks
from moespec.expert import ExpertWeights
from moespec.expert_fp8 import Fp8Expert
from moespec.moe import expert_of, shared_of
from moespec.moe_ranks import Tokens
from moespec.ops_moe_fp8 import gradients, weights_of
from moespec.ranks import Communicator, Messages, in_process
from moespec.recipes import RECIPES

f32 = np.float32
E = 8
TOKENS = 300  # two pieces for the shared expert, and for expert 2; the second ends inside a block


def layer_of(cfg: MoEConfig) -> Any:
    """Weights, tokens, dy and routing: expert 2 has nearly all tokens, expert 5 none, some slots are empty."""
    rng = np.random.default_rng(7)
    weights = weights_of(cfg, stored(cfg, matrices(cfg, lambda *shape: (rng.standard_normal(shape) / 8).astype(f32))))
    x, dy = rng.standard_normal((2, TOKENS, cfg.hidden_size)).astype(f32)
    want = rng.random((TOKENS, E))
    want[:, 2] += 2
    want[:, 5] = -1
    topk_idx = rng.permuted(np.argsort(-want, axis=-1)[:, : cfg.num_experts_per_tok], axis=-1)
    topk_idx[::9, :2] = -1
    return weights, x, dy, topk_idx, rng.random(topk_idx.shape).astype(f32)


def at_hand(weights: moe_fp8.Fp8Weights, e: int) -> Fp8Expert:
    """A source of experts that has them all."""
    assert e != 5, "an expert without rows is asked for"
    if e < E:
        return moe_fp8.one_of(weights.routed, e)
    assert weights.shared is not None
    return weights.shared


def whole(cfg: MoEConfig, layer: Any) -> tuple[dict[str, Any], dict[int, ExpertWeights]]:
    """What moe_fp8 makes of it: outputs by name, and the gradients of each expert that has some."""
    weights, x, dy, topk_idx, topk_weight = layer
    dweights = gradients(cfg, x)
    routed, shared, cache = moe_fp8.layer_forward(x, topk_idx, topk_weight, weights, cfg)
    dx, dx_shared, dtopk_weight = moe_fp8.layer_backward(dy, cache, weights, dweights, cfg)
    made = {e: expert_of(dweights, e) for e in range(E) if e != 5}
    made |= {E: shared_of(dweights)} if weights.shared is not None else {}
    return {"y": routed + shared, "dx": dx, "dx_shared": dx_shared, "dtopk_weight": dtopk_weight}, made


def keep(taken: dict[int, ExpertWeights], e: int, dweights: ExpertWeights) -> None:
    """Copies, since the memory is used again; what every rank has (the shared expert's) must not differ."""
    if e in taken:
        same(dict(enumerate(dweights)), dict(enumerate(taken[e])))
    taken[e] = ExpertWeights(*map(np.copy, dweights))


def same(got: dict[Any, Any], want: dict[Any, Any]) -> None:
    """Every bit."""
    assert set(got) == set(want)
    for name, wanted in want.items():
        assert got[name].dtype == wanted.dtype == f32
        assert got[name].shape == wanted.shape
        assert np.array_equal(got[name].view(np.uint32), wanted.view(np.uint32)), name


def streaming(cfg: MoEConfig, layer: Any) -> tuple[dict[str, Any], dict[int, ExpertWeights]]:
    """The same, an expert at a time."""
    weights, x, dy, topk_idx, topk_weight = layer
    taken, experts = dict[int, ExpertWeights](), partial(at_hand, weights)
    y, cache = streamed.layer_forward(x, topk_idx, topk_weight, experts, cfg)
    dx, dx_shared, dtopk_weight = streamed.layer_backward(dy, cache, experts, partial(keep, taken), cfg)
    return {"y": y, "dx": dx, "dx_shared": dx_shared, "dtopk_weight": dtopk_weight}, taken


def over_ranks(cfg: MoEConfig, layer: Any, size: int) -> tuple[dict[str, Any], dict[int, ExpertWeights]]:
    """The same, over ranks in this process."""
    outputs, taken = on_ranks(cfg, layer, in_process(size))
    return {name: np.concatenate(parts) for name, parts in outputs.items()}, taken


def part_of(rank: int, size: int) -> slice:
    """Each rank's tokens: none for the last, if there are several."""
    cuts = [*np.linspace(0, TOKENS, max(size, 2), dtype=int).tolist(), TOKENS]
    return slice(cuts[rank], cuts[rank + 1])


def on_ranks(cfg: MoEConfig, layer: Any, comm: Communicator) -> tuple[dict[str, list[Any]], dict[int, ExpertWeights]]:
    """The outputs of the ranks that this process plays, and what their experts have as gradients."""
    weights, *tokens = layer
    taken, experts = dict[int, ExpertWeights](), partial(at_hand, weights)
    x, dy, topk_idx, topk_weight = ([a[part_of(r, comm.size)] for r in comm.ranks] for a in tokens)
    y, cache = streamed_ranks.layer_ranks_forward(Tokens(x, topk_idx, topk_weight), experts, cfg, comm)
    back = streamed_ranks.layer_ranks_backward(dy, cache, experts, partial(keep, taken), cfg)
    return dict(zip(("y", "dx", "dx_shared", "dtopk_weight"), (y, *back), strict=True)), taken


WAYS: dict[str, Callable[..., Any]] = {
    "one process": streaming,
    "2 ranks": partial(over_ranks, size=2),
    "4 ranks": partial(over_ranks, size=4),
}
MEMBERS: dict[str, dict[str, Any]] = {
    **{name: {"recipe": name} for name in RECIPES},
    "before down": {"recipe": "torchao", "weight_position": "before_down", "n_shared_experts": 0},
    "no gate": {"gated": False, "hidden_act": "relu", "n_shared_experts": 1},
    "tensor core": {"recipe": "deepgemm", "accumulate": "ada", "hidden_size": 32, "moe_intermediate_size": 32},
}


def member_of(name: str) -> MoEConfig:
    """One of the members, with its recipe's blocks."""
    changed = {"n_routed_experts": E, **MEMBERS[name]}
    rule = RECIPES[changed.get("recipe", "deepseek-v3")]
    blocks = {n: getattr(rule, n) for n in ("a_block", "b_block", "b_format", "scale_format")}
    return config_of(**blocks, **{"hidden_size": 64, **changed})


@pytest.mark.spec("MFP-6")
@pytest.mark.spec("RNK-6")
@pytest.mark.parametrize("name", MEMBERS)
def test_every_bit_is_the_whole_layers(name: str) -> None:
    """Every recipe; pieces of an expert's rows; experts without rows; FP4; ranks without tokens."""
    cfg = member_of(name)
    layer = layer_of(cfg)
    outputs, taken = whole(cfg, layer)
    for way in WAYS.values():
        got, mine = way(cfg, layer)
        same(got, outputs)
        assert set(mine) == set(taken)
        for e, dweights in mine.items():
            same(dweights._asdict(), taken[e]._asdict())


@pytest.mark.spec("MFP-2")
@pytest.mark.parametrize(("recipe", "times"), [("deepseek-v3", 0), ("torchao", 2)])
def test_a_byte_a_number_is_kept_and_sent(recipe: str, times: int) -> None:
    """Between ranks x itself goes only where a recipe asks for its values: to the experts, and to the shared one."""
    cfg = member_of(recipe)
    weights, x, dy, topk_idx, topk_weight = layer_of(cfg)
    experts, comm, sent = partial(at_hand, weights), in_process(2), list[Any]()
    _, cache = streamed.layer_forward(x, topk_idx, topk_weight, experts, cfg)
    assert cache.sent.x_codes.matrix.codes.dtype == np.uint8

    def alltoall(messages: Messages) -> Messages:
        sent.append(messages[0][0])
        return comm.alltoall(messages)

    tokens = Tokens(*(np.array_split(a, 2) for a in (x, topk_idx, topk_weight)))
    watched = comm._replace(alltoall=alltoall)
    _, kept = streamed_ranks.layer_ranks_forward(tokens, experts, cfg, watched)
    streamed_ranks.layer_ranks_backward(np.array_split(dy, 2), kept, experts, lambda *_: None, cfg)
    assert sum(a.shape[1:] == x.shape[1:] and a[0] in x for a in sent) == times


@pytest.mark.spec("MFP-3")
@pytest.mark.parametrize("shared", [0, 2])
def test_without_tokens_no_expert_is_asked_for(shared: int) -> None:
    """Nor handed a gradient."""
    cfg = config_of(n_shared_experts=shared)
    none = np.zeros((0, cfg.hidden_size), f32)
    ids = np.zeros((0, cfg.num_experts_per_tok), int)

    def never(*_: Any) -> Any:
        raise AssertionError("asked for")

    y, cache = streamed.layer_forward(none, ids, ids.astype(f32), never, cfg)
    made = streamed.layer_backward(none, cache, never, never, cfg)
    assert [a.shape for a in (y, *made)] == [none.shape] * 3 + [ids.shape]
