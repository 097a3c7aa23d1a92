"""The gate, forward and backward: biases, extreme and equal logits, odd topologies, replay."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec_conformance.cases import combine
from moespec_conformance.cases.inputs import I64, Draw, config, in_bfloat16, shift_of, table
from moespec_conformance.cases.models import prefix, profiles_of
from moespec_conformance.cases.sure import sure_tokens
from moespec_conformance.protocol import Case, Tensors

CHOICE = ("GATE-1", "GATE-2", "GATE-3", "GATE-4", "GATE-5")
WEIGHTS = ("GATE-6", "GATE-7", "GATE-8")
ALL = (*CHOICE, *WEIGHTS)
Change = Callable[[Draw, Tensors], None]


def ordinary(name: str, cfg: dict[str, Any], tokens: int = 64) -> Tensors:
    """Bell-shaped x and weight, logits of about 1, and a small bias if the config has one."""
    draw, hidden, experts = Draw(name), cfg["hidden_size"], cfg["n_routed_experts"]
    tensors = {
        "x": draw.normal(tokens, hidden),
        "weight": draw.normal(experts, hidden, shift=shift_of(hidden)),
    }
    tensors |= {"bias": draw.normal(experts, shift=4)} if cfg["selection_bias"] else {}
    return tensors | table(draw, MoEConfig.from_dict(cfg), tokens)


def biased(offset: float, shift: int) -> Change:
    """A bias around an offset."""

    def change(draw: Draw, t: Tensors) -> None:
        t["bias"] = np.float32(offset) + draw.normal(len(t["weight"]), shift=shift)

    return change


def logits_around(offset: float) -> Change:
    """Logits moved by an offset: x has a column of ones that meets it."""

    def change(_: Draw, t: Tensors) -> None:
        t["x"][:, 0], t["weight"][:, 0] = 1, offset

    return change


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(draw: Draw, t: Tensors) -> None:
        for one in changes:
            one(draw, t)

    return change


def scaled(factor: float) -> Change:
    """Logits times a factor."""

    def change(_: Draw, t: Tensors) -> None:
        t["weight"] *= np.float32(factor)

    return change


def twins(_: Draw, t: Tensors) -> None:
    """Every expert has an exact double: ties at the boundary, each member of which is legal."""
    t["weight"][1::2], t["bias"][1::2] = t["weight"][::2], t["bias"][::2]


def near_twins(_: Draw, t: Tensors) -> None:
    """Every expert has a double that differs in the tenth bit: clear in float32, equal in bfloat16."""
    t["weight"][1::2] = t["weight"][::2] * np.float32(1 + 2.0**-10)
    t["bias"][1::2] = t["bias"][::2]


def close_twins(_: Draw, t: Tensors) -> None:
    """Every expert has a double that differs in the sixteenth bit: clear in float32, but only just."""
    t["weight"][1::2] = t["weight"][::2] * np.float32(1 + 2.0**-16)
    t["bias"][1::2] = t["bias"][::2]


def tied_groups(_: Draw, t: Tensors) -> None:
    """All groups are worth the same, made up differently: two of them may stand, never three."""
    t["x"][:] = 0
    t["bias"][:] = np.tile([0.0, -1.0, -2.0, -3.0], 4) + np.repeat([0.0, 0.25, 0.5, 0.75], 4) * np.tile(
        [1, -1, 0, 0], 4
    )


def all_equal(_: Draw, t: Tensors) -> None:
    """Nothing to choose by."""
    t["x"][:], t["bias"][:] = 0, 0


def positive(draw: Draw, t: Tensors) -> None:
    """One sign and every digit in use: rounding the inputs of the product shows."""
    t["x"], t["weight"] = draw.positive(*t["x"].shape), draw.positive(*t["weight"].shape) / t["weight"].shape[1] / 2


def strong_high_ids(_: Draw, t: Tensors) -> None:
    """The bias sends most tokens beyond expert 255."""
    t["bias"][256:] += 0.5


def one_strong_expert_a_group(_: Draw, t: Tensors) -> None:
    """Each group's best is far above its second: the maximum and the sum of two rank groups differently."""
    t["bias"][:: len(t["bias"]) // 4] += 0.25


def forward(slug: str, clauses: tuple[str, ...] = ALL, change: Change | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case of op gate; `how` holds config fields, tokens, and fields of Case."""
    tokens, model = how.pop("tokens", 64), how.pop("model", "deepseek-v3")
    fields = {k: how.pop(k) for k in ("kind", "manner", "quick", "arithmetic", "profiles", "note") if k in how}
    fields.setdefault("profiles", profiles_of(model))
    name, cfg = f"gate-{prefix(model)}{slug}", config(model, **how)

    def build() -> Tensors:
        tensors = ordinary(name, cfg, tokens)
        if change:
            change(Draw(name + "/change"), tensors)
        return in_bfloat16(tensors) if fields.get("arithmetic") == "bfloat16" else tensors

    return Case(name, "gate", cfg, build, clauses, **fields)


def replay(slug: str, edit: Callable[[Draw, Any], Any], **how: Any) -> Case:  # noqa: ANN401
    """Given ids that are not the gate's own; `edit` makes them from random ones (T,K)."""
    fields, model = {k: how.pop(k) for k in ("kind", "profiles") if k in how}, how.pop("model", "deepseek-v3")
    fields.setdefault("profiles", profiles_of(model))
    name, cfg = f"gate-{prefix(model)}replay-{slug}", config(model, **how)

    def build() -> Tensors:
        tensors, draw = ordinary(name, cfg), Draw(name + "/ids")
        ids = draw.ids(64, cfg["num_experts_per_tok"], cfg["n_routed_experts"])
        return tensors | {"topk_idx": edit(draw, ids)}

    return Case(name, "gate", cfg, build, ("GATE-9", "GATE-1", "GATE-2", *WEIGHTS, "ARR-6"), **fields)


def drifted(_: Draw, ids: Any) -> Any:  # noqa: ANN401 - ids
    """The random ids as they are."""
    return ids


def holes(draw: Draw, _: I64) -> I64:
    """Empty slots, and tokens without any expert."""
    return combine.holes(draw)


def backward(slug: str, clauses: tuple[str, ...], change: Change | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case of op gate_backward: the gate's own ids where they are beyond doubt, or ids that `edit` makes.

    `also` names further gradients that come in.
    """
    tokens, edit, model = how.pop("tokens", 64), how.pop("edit", None), how.pop("model", "deepseek-v3")
    also = how.pop("also", ())
    fields = {k: how.pop(k) for k in ("kind", "manner", "arithmetic", "note", "profiles") if k in how}
    fields.setdefault("profiles", profiles_of(model))
    name, cfg = f"gate-backward-{prefix(model)}{slug}", config(model, **how)

    def build() -> Tensors:
        tensors = ordinary(name, cfg, 2 * tokens)
        if change:
            change(Draw(name + "/change"), tensors)
        if fields.get("arithmetic") == "bfloat16":
            tensors = in_bfloat16(tensors)
        tensors, ids = sure_tokens(cfg, tensors, tokens, "weight", fields.get("arithmetic", "float32"))
        draw = Draw(name + "/ids")
        ids = ids if edit is None else edit(draw, draw.ids(len(ids), ids.shape[1], cfg["n_routed_experts"]))
        tensors |= {"topk_idx": ids, "dtopk_weight": draw.normal(*ids.shape)}
        return tensors | {name: draw.normal(len(ids), cfg["n_routed_experts"], shift=2) for name in also}

    return Case(name, "gate_backward", cfg, build, ("GATE-10", *clauses), **fields)


def cases() -> Iterator[Case]:
    """Every case of gate and gate_backward."""
    yield from biases()
    yield from extremes()
    yield from topologies()
    yield from callers()
    yield from backwards()


def biases() -> Iterator[Case]:
    """A bias leaks into weights only if there is one; a mask of 0 shows only if choices are negative."""
    yield forward("ordinary", kind="spread", tokens=128)
    yield forward("bias-zero", change=biased(0, 40))
    yield forward("bias-large", ("GATE-3", "GATE-4", "GATE-5", *WEIGHTS), biased(0, -1))
    yield forward("bias-minus-one", ("GATE-3", "GATE-4", "GATE-5", "GATE-6"), biased(-1, 4), tokens=128)
    yield forward("bias-minus-two", ("GATE-3", "GATE-4", "GATE-5", "GATE-6"), biased(-2, 4), tokens=128)
    yield forward("bias-minus-thirty", ("GATE-3", "GATE-4", "GATE-5", "GATE-6"), biased(-30, 2))
    yield forward("bias-plus-seven", ("GATE-3", "GATE-5", "GATE-6"), biased(7, 4), tokens=128)
    low = both(biased(12, 4), logits_around(-14.0))
    yield forward("bias-plus-twelve-low-logits", ("GATE-3", "GATE-5", "GATE-6", "GATE-7"), low)
    yield forward("bias-absent", ("GATE-3", "CFG-8", *ALL), selection_bias=False)
    yield forward("bias-one-group", ("GATE-3", "GATE-5", "GATE-6"), biased(0, 1), n_group=1, topk_group=1)


def extremes() -> Iterator[Case]:
    """Logits where formulas that are equal on paper are not."""
    yield forward("logits-minus-12", ("ARR-1", "GATE-2", "GATE-7"), logits_around(-12.0))
    yield forward("logits-minus-25", ("ARR-1", "GATE-2", "GATE-7"), logits_around(-25.0), kind="spread", tokens=256)
    yield forward("logits-minus-50", ("ARR-1", "GATE-2", "GATE-7"), logits_around(-50.0))
    yield forward("logits-minus-200", ("ARR-1", "GATE-2", "GATE-7"), logits_around(-200.0), note="all scores are 0")
    yield forward("logits-plus-15", ("ARR-1", "GATE-2", "GATE-5"), logits_around(15.0))
    yield forward("logits-wide", ("ARR-1", "GATE-1", "GATE-2", "GATE-5"), scaled(16.0))
    yield forward("logits-saturated", ("ARR-1", "GATE-2", "GATE-5", "GATE-7"), scaled(128.0))
    yield forward("logits-all-equal", ("GATE-5", "GATE-7"), all_equal)
    yield forward("tied-groups", ("GATE-4", "GATE-5"), tied_groups)
    yield forward("twins", ("GATE-4", "GATE-5"), twins)
    yield forward("near-twins", ("GATE-1", "GATE-3", "GATE-5"), near_twins, tokens=256)
    yield forward("positive", ("GATE-1",), positive, kind="spread", tokens=256)
    yield forward("wide", ("GATE-1", *WEIGHTS), kind="spread", tokens=128, hidden_size=512)
    yield forward("bfloat16", arithmetic="bfloat16", tokens=128)
    yield forward("bfloat16-bias-minus-one", ("GATE-3", "GATE-4", "GATE-6"), biased(-1, 4), arithmetic="bfloat16")
    yield forward("bfloat16-bias-plus-seven", ("GATE-3", "GATE-5"), biased(7, 4), arithmetic="bfloat16", tokens=128)


def topologies() -> Iterator[Case]:
    """Numbers of experts, groups and slots that are not the usual ones."""
    many = {"n_routed_experts": 384, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 8}
    yield forward("experts-384", ("GATE-3", "GATE-5"), strong_high_ids, **many)
    yield forward(
        "deepseek-v3-topology", ALL, n_routed_experts=256, n_group=8, topk_group=4, num_experts_per_tok=8, tokens=128
    )
    odd = {"n_routed_experts": 24, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 5, "hidden_size": 40}
    yield forward("odd-topology", ("CFG-3", "CFG-4", *CHOICE), one_strong_expert_a_group, **odd)
    yield forward("one-kept-group", ("CFG-4", "CFG-5", "GATE-4"), topk_group=1, tokens=128)
    yield forward("all-groups-kept", ("CFG-4", "GATE-4"), topk_group=4, tokens=128)
    yield forward("two-experts-a-group", ("CFG-6", "GATE-4"), n_group=8, topk_group=4)
    yield forward("one-strong-expert-a-group", ("GATE-4",), one_strong_expert_a_group, tokens=128)
    yield forward(
        "six-of-three-groups", ("GATE-4",), n_routed_experts=32, n_group=8, topk_group=3, num_experts_per_tok=6
    )
    yield forward("ten-slots", ("CFG-2", "GATE-5"), n_group=1, topk_group=1, num_experts_per_tok=10)
    yield forward(
        "every-expert", ("CFG-2", "CFG-5", "GATE-5", "GATE-7"), n_group=1, topk_group=1, num_experts_per_tok=16
    )
    yield forward("one-expert", ("CFG-1", "GATE-7"), n_routed_experts=1, n_group=1, topk_group=1, num_experts_per_tok=1)
    yield forward("one-slot", ("GATE-7", "GATE-8"), num_experts_per_tok=1)
    yield forward("one-slot-not-normalised", ("GATE-6", "GATE-8"), num_experts_per_tok=1, norm_topk_prob=False)
    yield forward("not-normalised", ("CFG-8", "GATE-6", "GATE-8"), norm_topk_prob=False)
    yield forward("scale-one", ("CFG-7", "GATE-8"), routed_scaling_factor=1.0)
    yield forward("scale-odd", ("CFG-7", "GATE-8"), routed_scaling_factor=1.828125)
    yield forward("scale-odd-not-normalised", ("CFG-7", "GATE-8"), routed_scaling_factor=1.828125, norm_topk_prob=False)


def callers() -> Iterator[Case]:
    """Ways of being called; given ids."""
    yield forward("no-token", ("GATE-5", "MOE-6"), tokens=0)
    yield forward("one-token", ("GATE-5", "GATE-8"), tokens=1)
    yield forward("strided", ("MOE-8",), manner="strided")
    yield forward("again", ("MOE-8",), manner="again")
    yield replay("drifted", drifted, kind="spread")
    yield replay("holes", holes)
    yield replay("not-normalised", drifted, norm_topk_prob=False)
    yield replay("one-slot", lambda draw, _: draw.ids(64, 1, 16), num_experts_per_tok=1)
    yield replay("wider", lambda draw, _: draw.ids(64, 6, 16), profiles=("variable-routing",))
    yield replay("narrower", lambda draw, _: draw.ids(64, 3, 16), profiles=("variable-routing",))


def backwards() -> Iterator[Case]:
    """Gradients, at the gate's own ids and at given ones."""
    yield backward("ordinary", ("GATE-1", "GATE-2", *WEIGHTS), kind="spread")
    yield backward("wide", ("GATE-1", "GATE-2"), kind="spread", hidden_size=512)
    yield backward("bias-large", ("GATE-3",), biased(0, -1))
    yield backward("not-normalised", ("GATE-7",), norm_topk_prob=False)
    yield backward("one-slot", ("GATE-7",), num_experts_per_tok=1, note="the weight is constant, so the gradient is 0")
    yield backward("one-slot-not-normalised", ("GATE-7",), num_experts_per_tok=1, norm_topk_prob=False)
    yield backward("scale-odd", ("GATE-8",), routed_scaling_factor=1.828125)
    yield backward("logits-minus-12", ("GATE-2", "GATE-7"), logits_around(-12.0))
    yield backward("logits-minus-50", ("GATE-2", "GATE-7"), logits_around(-50.0))
    yield backward("logits-minus-200", ("GATE-2", "GATE-7"), logits_around(-200.0), note="all scores are 0")
    yield backward("logits-wide", ("GATE-2",), scaled(16.0))
    yield backward("positive", ("GATE-1",), positive, kind="spread", edit=drifted)
    yield backward("drifted", ("GATE-9",), edit=drifted)
    yield backward("holes", ("GATE-9", "ARR-6"), edit=holes)
    yield backward("ten-slots", ("GATE-9",), n_group=1, topk_group=1, num_experts_per_tok=10)
    yield backward("no-token", ("MOE-6",), tokens=0)
    yield backward("strided", ("MOE-8",), manner="strided")
    yield backward("again", ("MOE-8",), manner="again")
    yield backward("bfloat16", ("MOE-7",), arithmetic="bfloat16")
