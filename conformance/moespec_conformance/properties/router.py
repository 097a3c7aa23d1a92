"""Other routers: the same symmetries, for given ids."""

from typing import Any

from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import NOISE, near, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import picked, questions
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import COUNT, Trials
from moespec_conformance.properties.engine.property import Ask, Property, Trial
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts

CHOSEN = {"softmax_over": "chosen"}
# by profile, and so by name: what the config says of them
ROUTERS: dict[str, dict[str, Any]] = {
    "noisy-topk": {"router": "noisy_topk", **CHOSEN},
    "softmax-over-chosen": CHOSEN,
    "expert-choice": {"router": "expert_choice", "capacity_factor": 1.0},
    "hierarchical": {"router": "hierarchical"},
}
SOFTMAX = {"scoring_func": "softmax", "norm_topk_prob": False, "selection_bias": False, "hash_routing": False}
ONE_GROUP = {"n_group": 1, "topk_group": 1, "group_score": None}


@st.composite
def routed(draw: st.DrawFn, names: tuple[str, ...], op: str) -> Trial:
    """A question to one of these routers."""
    name = picked(draw, names)
    config = configs(draw, ("variants",)) | SOFTMAX | ONE_GROUP | ROUTERS[name]
    if name == "hierarchical":
        config |= {"n_routed_experts": 4, "n_group": 2, "topk_group": 2, "num_experts_per_tok": 2}
    extra = ("noise",) if name == "noisy-topk" and draw(st.booleans()) else ()
    ids = () if op.endswith("backward") else ("topk_idx",)
    return questions(draw, op, config, {"T": draw(COUNT)}, (*ids, *extra))


def of(op: str, *names: str) -> Trials:
    """An op's questions, to those of these routers that an implementation's profiles name."""

    def drawn(profiles: Profiles) -> st.SearchStrategy[Trial]:
        known = tuple(name for name in names or ROUTERS if name in profiles)
        return routed(known, op) if known else st.nothing()

    return drawn


def shares_are_the_scale(ask: Ask, trial: Trial) -> None:
    """ROU-1, ROU-2: over the chosen alone, a token's weights add up to the scale."""
    case, weight = trial.case, ask(trial.case)["topk_weight"].astype("float64")
    named = (case.inputs["topk_idx"] >= 0).any(axis=-1)
    want = named * case.cfg.routed_scaling_factor
    near(
        "the sum of a token's weights", weight.sum(axis=-1), want, tolerances(case)["topk_weight"].sum(axis=-1) + NOISE
    )


GATE, BACK = of("gate"), of("gate_backward")

FOUND = (
    any_order(
        "gate", "E", of("gate", "noisy-topk", "softmax-over-chosen", "hierarchical"), ("ROU-1", "ROU-8")
    )._replace(name="router-any-order-of-experts"),
    in_parts("gate", GATE, clauses=("ROU-1",))._replace(name="router-in-parts-by-tokens"),
    backward_is_linear("gate_backward", BACK, ("ROU-1", "ROU-2", "ROU-3"))._replace(name="router-backward-is-linear"),
    backward_is_adjoint("gate_backward", BACK, ("ROU-1", "ROU-2", "ROU-3", "ROU-6", "ROU-8"))._replace(
        name="router-backward-is-adjoint"
    ),
    Property(
        "router-shares-are-the-scale",
        ("ROU-1", "ROU-2", "ROU-4", "ROU-8"),
        ("gate",),
        of("gate", "noisy-topk", "softmax-over-chosen", "hierarchical"),
        shares_are_the_scale,
    ),
)
