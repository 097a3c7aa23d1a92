"""The whole layer, forward and backward. Every token's routing is beyond doubt, so that a black box can be judged."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec_conformance.cases.combine import crowd, holes, random
from moespec_conformance.cases.expert import sparse
from moespec_conformance.cases.inputs import (
    Draw,
    config,
    in_bfloat16,
    layer_weights,
    mixed,
    one_entry,
    table,
)
from moespec_conformance.cases.models import prefix, profiles_of
from moespec_conformance.cases.sure import sure_tokens
from moespec_conformance.protocol import Case, Tensors

FORWARD = ("MOE-1", "MOE-2", "MOE-3", "GATE-8")
BACKWARD = ("MOE-2", "MOE-4", "MOE-5", "GATE-10")
Change = Callable[[Draw, Tensors], None]


def bias_around(offset: float, shift: int) -> Change:
    """A bias around an offset."""

    def change(draw: Draw, t: Tensors) -> None:
        t["bias"] = np.float32(offset) + draw.normal(len(t["gate_weight"]), shift=shift)

    return change


def favourite(_: Draw, t: Tensors) -> None:
    """The bias sends every token to expert 1, and nobody to experts 4 and 15."""
    t["bias"][:] = 0
    t["bias"][1], t["bias"][[4, 15]] = 3, -3


def logits_low(_: Draw, t: Tensors) -> None:
    """Scores of about 1e-6 still share one whole."""
    t["x"][:, 0], t["gate_weight"][:, 0] = 1, -14


def positive(draw: Draw, t: Tensors) -> None:
    """One sign and every digit in use, the router apart."""
    t["x"] = draw.positive(*t["x"].shape)
    for name in t:
        if name.endswith("_proj"):
            t[name] = draw.positive(*t[name].shape) / t[name].shape[-1]


def magnitudes(draw: Draw, t: Tensors) -> None:
    """Every token and every expert has a size of its own: nothing averages a wrong one away."""
    for name in t:
        if name in ("x", "dy") or name.endswith("_proj"):
            t[name] = mixed(draw, t[name], -8, 1)


def steep(_: Draw, t: Tensors) -> None:
    """Gates and ups of up to about 40: a clamp shows, in routed and shared experts."""
    for name in t:
        if name.endswith(("gate_proj", "up_proj")):
            t[name] *= np.float32(16)


def high_ids(_: Draw, t: Tensors) -> None:
    """The bias sends most tokens beyond expert 255."""
    t["bias"][256:] += np.float32(0.5)


def corridor(draw: Draw, t: Tensors) -> None:
    """Exact in any order, in float32 and bfloat16, gate included.

    A token is one 1; its router logits are +128 for four experts (by blocks of four) and -128 for the others, so
    scores are 1 and 0; pre-activations of gates are +128 or -128; the rest is small whole numbers, mostly 0.
    """
    tokens, hidden = t["x"].shape
    t["x"] = one_entry(draw.integers(tokens, 1, bits=5) % hidden, hidden)
    experts = len(t["gate_weight"])
    favoured = np.zeros((experts, hidden), np.bool)
    np.put_along_axis(favoured, np.stack([two_groups(draw) for _ in range(hidden)], axis=-1), values=True, axis=0)
    t["gate_weight"] = np.where(favoured, np.float32(128), np.float32(-128))
    if "bias" in t:
        t["bias"][:] = 0.25 * draw.dyadic(experts, bits=2)
    for name in [n for n in t if n.endswith("_proj")]:
        t[name] = corridor_matrix(draw, name, t[name].shape)


def two_groups(draw: Draw) -> Any:  # noqa: ANN401 - ids
    """Two experts in each of two of the four groups of four: what the gate then keeps is certain."""
    first, second = draw.ids(1, 2, 4)[0]
    return np.concatenate([4 * g + draw.ids(1, 2, 4)[0] for g in (first, second)])


def corridor_matrix(draw: Draw, name: str, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - an array
    """Saturating gates; ups that undo their size; sparse downs."""
    if name.endswith("gate_proj"):
        return np.where(draw.integers(*shape, bits=1) == 0, np.float32(-128), np.float32(128))
    return draw.dyadic(*shape, bits=2, shift=7) if name.endswith("up_proj") else sparse(draw, *shape)


def sole_entry(draw: Draw, t: Tensors) -> None:
    """The corridor, and for the backward one 2 in each token's dy."""
    corridor(draw, t)
    if "dy" in t:
        tokens, hidden = t["dy"].shape
        t["dy"] = one_entry(draw.ids(tokens, 1, hidden), hidden, 2)


def cancelling(draw: Draw, t: Tensors) -> None:
    """The corridor with small sums of large parts: what one half of h adds, the other takes back but for a little."""
    corridor(draw, t)
    for name in [n for n in t if n.endswith("_proj")]:
        if name.endswith("down_proj"):
            _, little = np.split(t[name], 2, axis=-1)
            large = 128 + draw.integers(*little.shape, bits=6).astype(np.float32)
            t[name] = np.concatenate([large, little - large], axis=-1)
        else:  # both halves of h are the same
            t[name] = np.concatenate([np.split(t[name], 2, axis=-2)[0]] * 2, axis=-2)


def plain_router(draw: Draw, t: Tensors) -> None:
    """The corridor's experts behind an ordinary gate: outputs are exact, so the router's gradient shows in bfloat16."""
    router, bias = draw.normal(*t["gate_weight"].shape), t["bias"].copy()
    sole_entry(draw, t)
    t["gate_weight"], t["bias"] = router, bias


def one(op: str, slug: str, clauses: tuple[str, ...], change: Change | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case; `how` holds tokens, given ids, config fields, and fields of Case."""
    tokens, ids, model = how.pop("tokens", 64), how.pop("ids", None), how.pop("model", "deepseek-v3")
    fields = {k: how.pop(k) for k in ("kind", "manner", "quick", "arithmetic", "profiles", "note") if k in how}
    fields.setdefault("profiles", profiles_of(model))
    name, arithmetic = f"{op.replace('_', '-')}-{prefix(model)}{slug}", fields.get("arithmetic", "float32")
    cfg = config(model, **how)

    def build() -> Tensors:
        t = tensors_of(name, cfg, 2 * tokens, change)
        t = in_bfloat16(t) if arithmetic == "bfloat16" else t
        if ids is None:
            t, topk_idx = sure_tokens(cfg, t, tokens, "gate_weight", arithmetic)
        else:
            topk_idx = ids(Draw(name + "/ids")).astype(np.int64)
        t |= {key: t[key][: len(topk_idx)] for key in ("x", "dy", "token_ids", "mask", "noise") if key in t}
        t["topk_idx"] = topk_idx
        unused = () if op == "moe_backward" else ("dy", "topk_idx") if ids is None else ("dy",)
        return {key: tensor for key, tensor in t.items() if key not in unused}

    return Case(name, op, cfg, build, clauses, **fields)


def tensors_of(name: str, cfg: dict[str, Any], tokens: int, change: Change | None) -> Tensors:
    """Ordinary inputs, changed."""
    draw = Draw(name)
    t = {"x": draw.normal(tokens, cfg["hidden_size"]), "dy": draw.normal(tokens, cfg["hidden_size"])}
    t |= layer_weights(draw, MoEConfig.from_dict(cfg)) | table(draw, MoEConfig.from_dict(cfg), tokens)
    if change:
        change(Draw(name + "/change"), t)
    return t


def cases() -> Iterator[Case]:
    """The same families forward and backward."""
    for op, clauses in (("moe", FORWARD), ("moe_backward", BACKWARD)):
        yield from usual(op, clauses)
        yield from crowds(op, clauses)
        yield from callers(op, clauses)


def usual(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """Ordinary numbers, one sign, corridors, biases."""
    yield one(op, "ordinary", clauses, kind="spread")
    yield one(op, "positive", clauses, positive, kind="spread")
    yield one(op, "wide", clauses, kind="spread", hidden_size=256, moe_intermediate_size=64, tokens=96, quick=False)
    kind = "spread" if op == "moe" else "bounded"  # rows of dgate_weight share their errors: no spread to speak of
    yield one(op, "magnitudes", clauses, magnitudes, kind=kind)
    yield one(op, "corridor", clauses, sole_entry, kind="exact", routed_scaling_factor=2.0)
    exact: dict[str, Any] = {"kind": "exact", "arithmetic": "bfloat16", "routed_scaling_factor": 2.0}
    yield one(op, "corridor-bfloat16", (*clauses, "MOE-7"), sole_entry, **exact)
    yield one(op, "router-bfloat16", ("GATE-10", "MOE-7"), plain_router, arithmetic="bfloat16")
    yield one(op, "bfloat16", (*clauses, "MOE-7"), arithmetic="bfloat16")
    yield one(op, "bfloat16-two-shared", ("MOE-3", "MOE-7"), arithmetic="bfloat16", n_shared_experts=2)
    yield one(op, "bias-minus-one", ("GATE-3", "GATE-4"), bias_around(-1, 4))
    yield one(op, "bias-plus-seven", ("GATE-3", "GATE-6"), bias_around(7, 4))
    yield one(op, "bias-large", ("GATE-3", "GATE-6"), bias_around(0, -1))
    yield one(op, "bias-absent", ("CFG-8",), selection_bias=False)
    yield one(op, "logits-low", ("GATE-7",), logits_low, tokens=48)
    yield one(op, "steep", ("EXP-2", *clauses), steep)
    yield one(op, "no-shared", ("MOE-1", "MOE-3", "CFG-1"), n_shared_experts=0)
    yield one(op, "two-shared", ("MOE-1", "MOE-3"), n_shared_experts=2)
    yield one(op, "scale-odd", ("GATE-8",), routed_scaling_factor=1.828125)
    yield one(op, "not-normalised", ("GATE-7", "GATE-8"), norm_topk_prob=False)
    yield one(op, "one-slot-not-normalised", ("GATE-8",), norm_topk_prob=False, num_experts_per_tok=1)


def crowds(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """Experts with no tokens and with too many; numbers that are not round."""
    yield one(op, "favourite", (*clauses, "EXP-4"), favourite, tokens=129)
    yield one(op, "favourite-256", (*clauses, "EXP-4"), favourite, tokens=256)
    yield one(op, "favourite-300", (*clauses, "EXP-4"), favourite, tokens=300, quick=False)
    for tokens in (127, 128, 129, 192, 300):
        two: dict[str, Any] = {"ids": crowd(tokens), "tokens": tokens, "num_experts_per_tok": 2}
        yield one(op, f"crowd-{tokens}", (*clauses, "GATE-9", "EXP-4"), **two)
    many = {"n_routed_experts": 384, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 8, "tokens": 32}
    yield one(op, "experts-384", clauses, high_ids, **many, hidden_size=32, moe_intermediate_size=16)
    odd: dict[str, Any] = {"n_routed_experts": 24, "n_group": 3, "num_experts_per_tok": 5, "hidden_size": 40}
    yield one(op, "odd-sizes", clauses, **odd, moe_intermediate_size=20, tokens=37)
    yield one(op, "ten-slots", clauses, n_group=1, topk_group=1, num_experts_per_tok=10)


def callers(op: str, clauses: tuple[str, ...]) -> Iterator[Case]:
    """Ways of being called; given ids."""
    yield one(op, "no-token", ("MOE-4", "MOE-6"), tokens=0)
    yield one(op, "one-token", clauses, tokens=1)
    yield one(op, "strided", ("MOE-8",), manner="strided")
    yield one(op, "again", ("MOE-8",), manner="again")
    yield one(op, "replay-drifted", ("GATE-9", *clauses), ids=random(), kind="spread")
    yield one(op, "replay-holes", ("GATE-9", "ARR-6", *clauses), ids=holes)
    yield one(op, "replay-holes-again", ("GATE-9", "MOE-8"), ids=holes, manner="again")
    for slug, width in (("replay-wider", 6), ("replay-narrower", 3)):
        yield one(op, slug, ("GATE-9",), ids=random(64, width), profiles=("variable-routing",))
