"""Layer: router, experts and the shared one together."""

import numpy as np

from moespec_conformance.properties.engine.comparing import Shown, alike, near, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import asked
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, of_op, under, without
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts
from moespec_conformance.protocol import Array, Case, Tensors

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
ROUTING = ("x", "bias", "token_ids", "tid2eid", "topk_idx", "mask")


def gate_of(case: Case) -> Case:
    """The gate of a layer's question."""
    held = {name: case.inputs[name] for name in ROUTING if name in case.inputs}
    return of_op(case, "gate", {**held, "weight": case.inputs["gate_weight"]})


def routed_expert(case: Case, which: int, x: Array, weight: Array) -> Case:
    """One of a layer's experts, on rows of these weights."""
    held: Tensors = {name: case.inputs[name][which] for name in PROJECTIONS if name in case.inputs}
    before = {"row_weight": weight} if case.cfg.weight_position == "before_down" else {}
    return of_op(case, "expert", {"x": x, **held, **before})


def shared_expert(case: Case) -> Case:
    """A layer's shared experts, as the one that they are (MOE-3)."""
    named = {name: case.inputs.get(f"shared_{name}") for name in PROJECTIONS}
    held = {name: tensor for name, tensor in named.items() if tensor is not None}
    one = {"moe_intermediate_size": case.cfg.shared_width, "weight_position": "after_down"}
    return of_op(case, "expert", {"x": case.inputs["x"], **held}, **one)


def layer_is_its_parts(ask: Ask, trial: Trial) -> None:
    """MOE-1, MOE-2: the layer is what its own gate, its experts and the shared one give, added up."""
    case, x = trial.case, trial.case.inputs["x"]
    whole, routing = ask(case)["y"], ask(gate_of(case))
    ids, weight = {**case.inputs, **routing}["topk_idx"], routing["topk_weight"].astype(np.float32)
    parts = np.zeros(x.shape)
    for which in range(case.cfg.n_routed_experts):
        token, slot = np.nonzero(ids == which)
        mine = weight[token, slot]
        if len(token):
            y = ask(routed_expert(case, which, x[token], mine))["y"].astype(np.float64)
            parts[token] += y if case.cfg.weight_position == "before_down" else mine[:, None] * y
    if case.cfg.n_shared_experts:
        parts += ask(shared_expert(case))["y"]
    near("y", whole, parts, 2 * tolerances(case)["y"])


def own_choice_replayed(ask: Ask, trial: Trial) -> None:
    """GATE-9, MOE-9: given the ids that its own gate chooses, the layer is the same."""
    case = trial.case
    ids = ask(gate_of(case))["topk_idx"].astype(np.int64)
    replayed = given(case, topk_idx=ids)
    first, second = (Shown(ask(asked)["y"], ("T", "H")) for asked in (case, replayed))
    alike({"y": second}, {"y": first}, lambda: tolerances(case))


def padding_has_the_shared_expert(ask: Ask, trial: Trial) -> None:
    """GATE-13: a masked token meets the shared expert alone, and the others do not notice."""
    case, mask = trial.case, trial.case.inputs["mask"]
    free = given(case, mask=np.ones_like(mask))
    ids = np.full((len(mask), case.cfg.num_experts_per_tok), -1)
    nowhere = given(without(case, "mask"), topk_idx=ids)
    got, other, alone = (ask(asked)["y"] for asked in (case, free, nowhere))
    want = np.where(mask[:, None], other, alone)
    if not np.array_equal(got, want):
        near("y", got, want, 2 * tolerances(free)["y"] + 2 * tolerances(nowhere)["y"])


def shared_is_not_scaled(ask: Ask, trial: Trial) -> None:
    """GATE-8, MOE-1: twice the scale adds the routed part once more; four times, three times more."""
    case = trial.case
    scaled = [under(case, routed_scaling_factor=case.cfg.routed_scaling_factor * by) for by in (1, 2, 4)]
    once, twice, four_times = (ask(asked)["y"].astype(np.float64) for asked in scaled)
    e1, e2, e4 = (tolerances(asked)["y"] for asked in scaled)
    near("y under four times the scale", four_times, 3 * twice - 2 * once, e4 + 3 * e2 + 2 * e1)


def without_scale_shared_is_left(ask: Ask, trial: Trial) -> None:
    """MOE-1: where no token names an expert, the layer is its shared expert."""
    ids = np.full_like(trial.case.inputs["topk_idx"], -1)
    case = given(trial.case, topk_idx=ids)
    y = ask(case)["y"]
    if not case.cfg.n_shared_experts:
        near("y of tokens that name no expert", y, 0)
    else:
        near("y of tokens that name no expert", y, ask(shared_expert(case))["y"], 2 * tolerances(case)["y"])


def unused_learn_nothing(ask: Ask, trial: Trial) -> None:
    """MOE-4: the gradients of an expert without a token are zeros."""
    case = trial.case
    unused = ~np.isin(np.arange(case.cfg.n_routed_experts), case.inputs["topk_idx"])
    out = ask(case)
    for name in (f"d{name}" for name in PROJECTIONS if f"d{name}" in out):
        near(f"{name} of experts without a token", out[name][unused], 0)


MOE, REPLAY, BACK = asked("moe"), asked("moe", "topk_idx"), asked("moe_backward")

FOUND = (
    any_order("moe", "T", MOE),
    any_order("moe", "E", MOE),
    any_order("moe", "F", MOE, ("EXP-2", "MOE-2")),
    any_order("moe", "H", REPLAY, ("GATE-1", "EXP-1", "EXP-3")),
    any_order("moe", "W", REPLAY, ("GATE-5", "MOE-2")),
    in_parts("moe", MOE),
    any_order("moe_backward", "T", BACK),
    any_order("moe_backward", "E", BACK),
    any_order("moe_backward", "F", BACK, ("EXP-2", "MOE-2")),
    any_order("moe_backward", "W", BACK, ("GATE-5", "MOE-2")),
    in_parts("moe_backward", BACK),
    backward_is_linear("moe_backward", BACK, ("MOE-2", "MOE-5", "GATE-10")),
    backward_is_adjoint("moe_backward", BACK, ("MOE-1", "MOE-2", "MOE-5", "GATE-10", "EXP-2")),
    Property("moe-is-its-parts", ("MOE-1", "MOE-2", "MOE-3"), ("moe", "gate", "expert"), MOE, layer_is_its_parts),
    Property("moe-own-choice-replayed", ("GATE-9",), ("moe", "gate"), MOE, own_choice_replayed),
    Property(
        "moe-padding-has-the-shared-expert", ("GATE-13",), ("moe",), asked("moe", "mask"), padding_has_the_shared_expert
    ),
    Property("moe-shared-is-not-scaled", ("GATE-8", "MOE-1"), ("moe",), REPLAY, shared_is_not_scaled),
    Property(
        "moe-nowhere-is-the-shared-expert", ("MOE-1", "MOE-3"), ("moe", "expert"), REPLAY, without_scale_shared_is_left
    ),
    Property("moe-unused-learn-nothing", ("MOE-4",), ("moe_backward",), BACK, unused_learn_nothing),
)
