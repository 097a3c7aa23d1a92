"""Capacity: who finds room on a full expert, and where the others go."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import near
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import picked, questions, shares
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import COUNT, Trials
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial, given, under
from moespec_conformance.properties.engine.renaming import any_order

POLICIES = ("position", "slot", "probs", "gshard", "reroute", "device_probs")
FACTORS = st.sampled_from((0.5, 1.0, 1.25, 3.0))
ONE_GROUP = {"n_group": 1, "topk_group": 1, "group_score": None}
EXTRA = {"gshard": "noise", "device_probs": "protected"}


@st.composite
def drops(draw: st.DrawFn, profiles: Profiles, op: str, policies: tuple[str, ...]) -> Trial:
    """A question about one policy."""
    policy = picked(draw, policies)
    config = configs(draw, profiles, hash_routing=False) | ONE_GROUP
    config |= {"drop_policy": policy, "capacity_factor": draw(FACTORS)}
    if policy == "device_probs":
        config["n_device"] = shares(draw, config)
    extra = (EXTRA[policy],) if policy in EXTRA and draw(st.booleans()) else ()
    case, how = questions(draw, op, config, {"T": draw(COUNT)}, extra)
    return Trial(given(case, topk_weight=unequal(case.inputs["topk_weight"])), how)


def unequal(weight: np.ndarray) -> np.ndarray:
    """The same weights, each token's a little larger than those of the token before: no two are equal."""
    return np.asarray(weight + np.arange(len(weight))[:, None] / 256, np.float32)


def of(op: str, policies: tuple[str, ...] = POLICIES) -> Trials:
    """An op's questions."""
    return lambda profiles: drops(profiles, op, policies)


def room_is_kept(ask: Ask, trial: Trial) -> None:
    """CAP-1, CAP-2, CAP-7: no bin holds more than its room, and what stays where it was weighs what it did."""
    case, cfg, out = trial.case, trial.case.cfg, ask(trial.case)
    old, new, weight = case.inputs["topk_idx"], out["topk_idx"].astype(np.int64), case.inputs["topk_weight"]
    bins = cfg.n_device if cfg.drop_policy == "device_probs" else cfg.n_routed_experts
    room = int(np.ceil(len(old) * cfg.num_experts_per_tok / bins * (cfg.capacity_factor or 1)))
    free = case.inputs.get("protected", np.zeros(len(old), np.bool))
    taken = np.bincount(new[new >= 0] // (cfg.n_routed_experts // bins), minlength=bins)
    guests = np.bincount(new[free][new[free] >= 0] // (cfg.n_routed_experts // bins), minlength=bins)
    if (taken > np.maximum(room, guests)).any():
        raise Broken(f"there is room for {room}, and {taken.tolist()} slots found some")
    if ((new != old) & (new >= 0)).any() and cfg.drop_policy != "reroute":
        raise Broken(f"{cfg.drop_policy} sends nobody elsewhere, but {old.tolist()} became {new.tolist()}")
    near(
        "topk_weight of slots that stay",
        out["topk_weight"][(new == old) & (new >= 0)],
        weight[(new == old) & (new >= 0)],
    )
    near("topk_weight of slots that go nowhere", out["topk_weight"][new < 0], 0)


def nobody_waits_for_room(ask: Ask, trial: Trial) -> None:
    """CAP-2: while there is room on an expert, or a device, no slot that goes out to it is dropped."""
    case, cfg = trial.case, trial.case.cfg
    ample = under(case, capacity_factor=float(cfg.n_routed_experts))
    old, out = case.inputs["topk_idx"], ask(ample)
    kept = old if "noise" not in case.inputs else np.where(old == out["topk_idx"], old, -1)
    near("topk_idx where there is room for all", out["topk_idx"], kept)


def once_is_enough(ask: Ask, trial: Trial) -> None:
    """CAP-2: those who found room find it again among themselves."""
    case, out = trial.case, ask(trial.case)
    again = given(case, topk_idx=out["topk_idx"].astype(np.int64), topk_weight=out["topk_weight"].astype(np.float32))
    for name, second in ask(again).items():
        near(f"{name} the second time", second, out[name].astype(np.float64))


DROP, BACK = of("capacity"), of("capacity_backward")
STAYING = tuple(policy for policy in POLICIES if policy != "reroute")

FOUND = (
    any_order("capacity", "E", of("capacity"), ("CAP-2",)),
    backward_is_linear("capacity_backward", BACK, ("CAP-11",)),
    backward_is_adjoint("capacity_backward", BACK, ("CAP-7", "CAP-10", "CAP-11")),
    Property("capacity-room-is-kept", ("CAP-1", "CAP-2", "CAP-7"), ("capacity",), DROP, room_is_kept),
    Property("capacity-nobody-waits-for-room", ("CAP-1", "CAP-2"), ("capacity",), DROP, nobody_waits_for_room),
    Property("capacity-once-is-enough", ("CAP-2",), ("capacity",), DROP, once_is_enough),
)
