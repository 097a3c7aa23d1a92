"""The other members of the family: for each, what its config changes, forward and backward."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases import expert as experts
from moespec_conformance.cases import gate as gates
from moespec_conformance.cases import layer as layers
from moespec_conformance.cases.combine import combine, dispatch, random, some_empty
from moespec_conformance.cases.inputs import Draw, config
from moespec_conformance.cases.models import MODELS
from moespec_conformance.protocol import Case, Tensors

SCORES = ("GATE-1", "GATE-2", "CFG-11")
WEIGHTS = ("GATE-6", "GATE-7", "GATE-8")
# relatives whose layer is another's but for a number: fewer cases
CLOSE = ("deepseek-v4-pro", "kimi-k2", "glm-4.5", "glam")


def cases() -> Iterator[Case]:
    """Every case of every member but DeepSeek-V3, whose cases are the other files'."""
    for model in MODELS:
        if model == "deepseek-v3":
            continue
        yield from common(model)
        if model not in CLOSE:
            yield from thorough(model)
        if config(model)["selection_bias"]:
            yield from biased(model)
        if config(model)["hidden_act"] == "relu":
            yield experts.one(
                "expert_backward", "slope-at-zero", ("EXP-2", "EXP-7"), whole_numbers, kind="exact", model=model
            )
        if config(model)["hidden_act"] == "gelu_pytorch_tanh":
            for op in ("expert", "expert_backward"):
                yield experts.one(op, "gelu-below-zero", ("EXP-2",), activations_around(-2.25), model=model)
        if config(model)["swiglu_limit"]:
            yield from clamped(model)
            yield from hashed(model)
    yield from singular()


def common(model: str) -> Iterator[Case]:
    """What every member is asked."""
    cfg = config(model)
    k, e = cfg["num_experts_per_tok"], cfg["n_routed_experts"]
    yield gates.forward("ordinary", (*SCORES, *gates.ALL), kind="spread", tokens=128, model=model)
    yield gates.forward("logits-wide", (*SCORES, "ARR-7", "ARR-8", "GATE-5"), gates.scaled(16.0), model=model)
    yield gates.forward("logits-minus-25", (*SCORES, "ARR-7", "ARR-8"), gates.logits_around(-25.0), model=model)
    yield gates.replay("drifted", gates.drifted, kind="spread", model=model)
    yield gates.backward("ordinary", (*SCORES, *WEIGHTS), kind="spread", model=model)
    yield gates.backward("drifted", ("GATE-9",), edit=gates.drifted, model=model)
    for op in ("expert", "expert_backward"):
        yield experts.one(op, "ordinary", (*experts.CLAUSES, "CFG-13"), kind="spread", model=model)
        yield experts.one(op, "gates-times-8", ("EXP-2", "EXP-7"), times(8.0), model=model)
        yield experts.one(op, "no-row", ("EXP-4",), rows=0, model=model)
    yield dispatch("ordinary", random(64, k, e), model=model)
    yield combine("ordinary", random(40, k, e), kind="spread", model=model)
    for op, clauses in (("moe", layers.FORWARD), ("moe_backward", layers.BACKWARD)):
        yield layers.one(op, "ordinary", (*clauses, "EXP-6", "MOE-10"), kind="spread", model=model)
        kind = "spread" if op == "moe" else "bounded"  # rows of dgate_weight share their errors: no spread to speak of
        yield layers.one(op, "magnitudes", clauses, layers.magnitudes, kind=kind, model=model)
        yield layers.one(op, "steep", ("EXP-2", "EXP-5", *clauses), layers.steep, model=model)
        yield layers.one(op, "replay-empty", ("GATE-9", "ARR-6"), ids=some_empty(64, k, e), model=model)


def thorough(model: str) -> Iterator[Case]:
    """What members with a gate or an expert of their own are asked besides."""
    cfg = config(model)
    k, e = cfg["num_experts_per_tok"], cfg["n_routed_experts"]
    yield from gates_of(model, k, e)
    for op in ("expert", "expert_backward"):
        yield experts.one(op, "magnitudes", experts.CLAUSES, experts.magnitudes, kind="spread", model=model)
        yield experts.one(op, "bfloat16", ("MOE-7",), arithmetic="bfloat16", model=model)
        yield experts.one(op, "odd-sizes", ("EXP-1",), hidden_size=40, moe_intermediate_size=20, rows=129, model=model)
        yield experts.one(op, "strided", ("MOE-8",), manner="strided", model=model)
    yield dispatch("empty", some_empty(64, k, e), model=model)
    yield combine("empty", some_empty(64, k, e), model=model)
    for op, clauses in (("moe", layers.FORWARD), ("moe_backward", layers.BACKWARD)):
        yield layers.one(op, "bfloat16", (*clauses, "MOE-7"), arithmetic="bfloat16", model=model)
        kind = "spread" if op == "moe" else "bounded"  # likewise
        yield layers.one(op, "positive", clauses, layers.positive, kind=kind, model=model)
        yield layers.one(op, "no-token", ("MOE-4", "MOE-6"), tokens=0, model=model)
        yield layers.one(op, "one-token", clauses, tokens=1, model=model)
        yield layers.one(op, "again", ("MOE-8",), manner="again", model=model)
        yield layers.one(op, "scale-odd", ("GATE-8",), routed_scaling_factor=1.828125, model=model)
        yield layers.one(op, "replay-drifted", ("GATE-9", *clauses), ids=random(64, k, e), kind="spread", model=model)
        if k > 1:
            yield layers.one(op, "crowd", (*clauses, "EXP-4"), ids=crowd_of(129, k, e), tokens=129, model=model)


def gates_of(model: str, k: int, e: int) -> Iterator[Case]:
    """Logits where formulas part, other numbers of slots, gradients of both signs."""
    for offset in (-80.0, -12.0, 15.0, 90.0):
        word = f"logits-{'minus' if offset < 0 else 'plus'}-{abs(offset):.0f}"
        yield gates.forward(word, (*SCORES, "ARR-7", "ARR-8", "GATE-7"), gates.logits_around(offset), model=model)
        yield gates.backward(word, (*SCORES, "GATE-7"), gates.logits_around(offset), model=model)
    yield gates.forward("logits-saturated", (*SCORES, "ARR-8", "GATE-5"), gates.scaled(128.0), model=model)
    yield gates.forward("logits-all-equal", ("GATE-5", "GATE-7"), no_difference, model=model)
    yield gates.forward("positive", ("GATE-1",), gates.positive, kind="spread", tokens=256, model=model)
    yield gates.forward("scale-odd", ("GATE-8",), routed_scaling_factor=1.828125, model=model)
    yield gates.forward("other-norm", ("GATE-7",), norm_topk_prob=not config(model)["norm_topk_prob"], model=model)
    yield gates.forward("bfloat16", arithmetic="bfloat16", tokens=128, model=model)
    yield gates.backward("one-expert-far-below", (*SCORES, "MOE-6"), far_below, model=model)
    yield gates.forward("mask", ("GATE-13", *WEIGHTS), every_third_hidden, model=model, profiles=("mask",))
    yield gates.forward("no-token", ("GATE-5", "MOE-6"), tokens=0, model=model)
    yield gates.replay("empty", empty_of(k, e), model=model)
    yield gates.backward("empty", ("GATE-9",), edit=empty_of(k, e), model=model)
    yield gates.backward("logits-wide", SCORES, gates.scaled(8.0), model=model)
    yield gates.backward("other-norm", ("GATE-7",), norm_topk_prob=not config(model)["norm_topk_prob"], model=model)
    yield gates.backward("no-token", ("MOE-6",), tokens=0, model=model)
    yield gates.backward("bfloat16", ("MOE-7",), arithmetic="bfloat16", model=model)


def biased(model: str) -> Iterator[Case]:
    """A bias that leaks into weights, or is lost."""
    yield gates.forward("bias-large", ("GATE-3", "GATE-5", *WEIGHTS), gates.biased(0, -1), model=model)
    yield gates.forward("bias-minus-two", ("GATE-3", "GATE-5", "GATE-6"), gates.biased(-2, 4), tokens=128, model=model)
    yield gates.forward("bias-plus-seven", ("GATE-3", "GATE-5", "GATE-6"), gates.biased(7, 4), tokens=128, model=model)
    yield gates.backward("bias-large", ("GATE-3",), gates.biased(0, -1), model=model)
    for op in ("moe", "moe_backward"):
        yield layers.one(op, "bias-large", ("GATE-3", "GATE-6"), layers.bias_around(0, -1), model=model)


def clamped(model: str) -> Iterator[Case]:
    """V4's clamp: beyond it, exactly on it, on each side; the weight where it enters."""
    for op in ("expert", "expert_backward"):
        yield experts.one(op, "beyond-the-limit", ("EXP-5", "EXP-6"), times(24.0), model=model)
        yield experts.one(op, "at-the-limit", ("EXP-5",), at_the_limit, model=model, hidden_size=8)
        yield experts.one(op, "weights-signed", ("EXP-6",), signed_weights, model=model)
        yield experts.one(op, "no-limit", ("EXP-5", "CFG-13"), times(24.0), model=model, swiglu_limit=None)
        yield experts.one(op, "low-limit", ("EXP-5", "CFG-13"), model=model, swiglu_limit=0.3125)
    for op in ("moe", "moe_backward"):
        yield layers.one(op, "steeper", ("EXP-5", "MOE-1"), steeper, model=model)


def hashed(model: str) -> Iterator[Case]:
    """V4's first layers: experts by token id, weights by the gate."""
    table: dict[str, Any] = {"hash_routing": True, "selection_bias": False, "model": model}
    yield gates.forward("hash", ("GATE-12", "CFG-12", *WEIGHTS), kind="spread", **table)
    yield gates.forward("hash-logits-minus-12", ("GATE-12", "GATE-7"), gates.logits_around(-12.0), **table)
    yield gates.forward("hash-one-token", ("GATE-12",), tokens=1, **table)
    yield gates.forward("hash-mask", ("GATE-12", "GATE-13"), every_third_hidden, **table, profiles=("mask",))
    yield gates.backward("hash", ("GATE-12",), **table)
    for op in ("moe", "moe_backward"):
        yield layers.one(op, "hash", ("GATE-12", "MOE-2"), kind="spread", **table)


def singular() -> Iterator[Case]:
    """Single fields, apart from any model."""
    late: dict[str, Any] = {"profiles": ("variants",)}
    yield gates.forward(
        "by-logits", ("GATE-3", "CFG-9", "CFG-11"), model="deepseek-v2", choose_by="logits", selection_bias=True, **late
    )
    yield gates.forward(
        "one-slot-kept", ("GATE-7", "CFG-8", "CFG-9"), num_experts_per_tok=1, norm_when_k1=False, **late
    )
    odd: dict[str, Any] = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 5, "hidden_size": 8}
    yield gates.forward("close-twins", ("GATE-3", "GATE-5"), gates.close_twins, tokens=128, **odd, **late)
    cancelled: dict[str, Any] = {"kind": "exact", "arithmetic": "bfloat16", "routed_scaling_factor": 2.0}
    yield layers.one("moe", "cancelling-bfloat16", ("EXP-3", "MOE-7"), layers.cancelling, **cancelled, **late)
    many: dict[str, Any] = {"n_routed_experts": 64, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8}
    about = ("GATE-1", "GATE-3", "GATE-5", "GATE-7")
    yield gates.forward("many-tokens", about, kind="spread", tokens=4096, hidden_size=512, quick=False, **many, **late)
    yield gates.backward("one-slot-kept", ("GATE-7", "CFG-8"), num_experts_per_tok=1, norm_when_k1=False, **late)
    yield gates.forward("mask-replay", ("GATE-9", "GATE-13"), hidden_and_given, profiles=("mask",))
    for name in ("dscores", "dlogits"):
        yield gates.backward(f"with-{name}", ("GATE-14",), also=(name,), profiles=("balance",))
    yield gates.backward(
        "with-both", ("GATE-14",), also=("dscores", "dlogits"), model="deepseek-v2", profiles=("balance",)
    )
    for op in ("moe", "moe_backward"):
        yield layers.one(op, "gelu", ("EXP-2", "CFG-13"), hidden_act="gelu_pytorch_tanh", **late)
        yield layers.one(
            op, "ungated-shared", ("EXP-7", "MOE-3"), gated=False, hidden_act="relu", n_shared_experts=2, **late
        )
        yield layers.one(op, "capacity-roomy", ("MOE-10",), model="switch", capacity_factor=16.0, profiles=("switch",))
        yield layers.one(op, "second-choice-by-chance", ("MOE-10",), chances, model="glam", profiles=("glam", "gshard"))
        dropped: dict[str, Any] = {"capacity_factor": 0.75, "profiles": ("capacity",)}
        for policy in ("position", "slot", "probs", "reroute"):
            yield layers.one(op, f"capacity-{policy}", ("MOE-10", "GATE-7"), drop_policy=policy, **dropped)
        before: dict[str, Any] = {"weight_position": "before_down", "hidden_act": "gelu_pytorch_tanh"}
        yield layers.one(op, "gelu-before-down", ("EXP-2", "EXP-6"), **before, **late)
    yield layers.one("moe", "mask", ("GATE-13", "MOE-1"), every_third_hidden, profiles=("mask",))


def chances(draw: Draw, t: Tensors) -> None:
    """Uniform numbers, by which second choices are sent or not."""
    t["noise"] = np.asarray(draw.integers(len(t["x"]), len(t["gate_weight"])) / 2.0**16, np.float32)


def times(factor: float) -> experts.Change:
    """Gates and ups times a factor."""

    def change(_: Draw, t: Tensors) -> None:
        for name in {"gate_proj", "up_proj"} & set(t):
            t[name] *= np.float32(factor)

    return change


def activations_around(offset: float) -> experts.Change:
    """What the activation gets lies near an offset: by a column of ones in x, and small numbers beside it."""

    def change(_: Draw, t: Tensors) -> None:
        name = "gate_proj" if "gate_proj" in t else "up_proj"
        t[name] *= np.float32(0.25)
        t["x"][:, 0], t[name][:, 0] = 1, offset

    return change


def whole_numbers(draw: Draw, t: Tensors) -> None:
    """Small whole numbers, exact in any order; every second row is zeros, where a slope shows in dx."""
    for name in t:
        t[name] = draw.dyadic(*t[name].shape, bits=2)
    t["x"][::2] = 0


def steeper(_: Draw, t: Tensors) -> None:
    """Gates and ups of up to about 100, routed and shared."""
    for name in t:
        if name.endswith(("gate_proj", "up_proj")):
            t[name] *= np.float32(48)


def at_the_limit(draw: Draw, t: Tensors) -> None:
    """Rows of one 1 each; gates and ups of exactly 10, -10, and one step beyond either."""
    rows, hidden = t["x"].shape
    t["x"] = np.eye(hidden, dtype=np.float32)[draw.integers(rows, bits=20) % hidden]
    steps = np.array(
        [10, np.nextafter(10, 11, dtype=np.float32), -10, np.nextafter(-10, -11, dtype=np.float32), 3, -40]
    )
    for name in ("gate_proj", "up_proj"):
        t[name] = steps[draw.integers(*t[name].shape) % len(steps)].astype(np.float32)


def signed_weights(draw: Draw, t: Tensors) -> None:
    """Weights of both signs, some 0, some tiny."""
    t["row_weight"] = draw.normal(len(t["x"]))
    t["row_weight"][::3] *= np.float32(2.0**-14)
    t["row_weight"][::5] = 0


def far_below(_: Draw, t: Tensors) -> None:
    """One expert's logit is -110, where float32 has no score left: nobody chooses it, and it spoils nothing."""
    t["x"][:, 0], t["weight"][:, 0] = 1, 0
    t["weight"][1, 0] = -110


def no_difference(_: Draw, t: Tensors) -> None:
    """Nothing to choose by."""
    t["x"][:] = 0
    if "bias" in t:
        t["bias"][:] = 0


def every_third_hidden(_: Draw, t: Tensors) -> None:
    """Every third token is padding."""
    t["mask"] = np.arange(len(t["x"])) % 3 != 0


def hidden_and_given(draw: Draw, t: Tensors) -> None:
    """Every third token is padding, though a routing is given for all."""
    every_third_hidden(draw, t)
    t["topk_idx"] = draw.ids(len(t["x"]), 4, len(t["weight"]))


def empty_of(k: int, e: int) -> Callable[[Draw, Any], Any]:
    """Ids of which some are empty, whatever the random ones were."""
    ids = some_empty(64, k, e)

    def edit(draw: Draw, _: Any) -> Any:  # noqa: ANN401 - ids
        return ids(draw)

    return edit


def crowd_of(tokens: int, k: int, e: int) -> Any:  # noqa: ANN401 - ids of a draw
    """Every token on the last expert, the other slots anywhere else."""

    def made(draw: Draw) -> Any:  # noqa: ANN401 - ids
        return np.concatenate([np.full((tokens, 1), e - 1), draw.ids(tokens, k - 1, e - 1)], axis=-1)

    return made
