"""Expert: one gated network, on the rows that came to it."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import alike, near, shown, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import also, asked
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, under, without
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts

FACTORS = st.sampled_from((-2.0, 0.25, 4.0))


def factor_passes(ask: Ask, trial: Trial) -> None:
    """EXP-2, EXP-3, EXP-6: y is proportional to down_proj, to a row's weight, and, under a gate, to up_proj."""
    case, (name, factor) = trial.case, trial.how["factor"]
    if name not in case.inputs or (name == "up_proj" and (not case.cfg.gated or case.cfg.swiglu_limit)):
        return
    scaled = given(case, **{name: (case.inputs[name] * factor).astype(case.inputs[name].dtype)})
    first, second = ask(case)["y"].astype(np.float64), ask(scaled)["y"]
    if not np.array_equal(second, factor * first):
        near(f"y under {name} times {factor:g}", second, factor * first, 2 * abs(factor) * tolerances(case)["y"])


def no_row_no_gradient(ask: Ask, trial: Trial) -> None:
    """EXP-4: without rows the gradients of the weights are zeros."""
    rows = ("x", "dy", "row_weight")
    case = given(trial.case, **{name: t[:0] for name, t in trial.case.inputs.items() if name in rows})
    for name, gradient in ask(case).items():
        near(f"{name} without rows", gradient, 0)


def zeros_give_zeros(ask: Ask, trial: Trial) -> None:
    """EXP-1: there are no constants in an expert: rows of zeros give rows of zeros."""
    for name, out in ask(given(trial.case, x=np.zeros_like(trial.case.inputs["x"]))).items():
        near(f"{name} of rows of zeros", out, 0)


def weight_of_one(ask: Ask, trial: Trial) -> None:
    """EXP-6: with weights of 1, rows are what they are without weights."""
    ones = given(trial.case, row_weight=np.ones_like(trial.case.inputs["row_weight"]))
    plain = under(without(ones, "row_weight"), weight_position="after_down")
    alike(shown(ones, ask(ones)), shown(plain, ask(plain)), lambda: tolerances(ones))


EXPERT, BACK = asked("expert"), asked("expert_backward")
PLACES = st.tuples(st.sampled_from(("up_proj", "down_proj", "row_weight")), FACTORS)

FOUND = (
    any_order("expert", "N", EXPERT, ("MOE-9",)),
    any_order("expert", "F", EXPERT, ("EXP-2",)),
    any_order("expert", "H", EXPERT, ("EXP-1", "EXP-3")),
    in_parts("expert", EXPERT, "N"),
    any_order("expert_backward", "N", BACK),
    any_order("expert_backward", "F", BACK, ("EXP-2",)),
    in_parts("expert_backward", BACK, "N"),
    backward_is_linear("expert_backward", BACK, ("EXP-2", "EXP-5", "EXP-6")),
    backward_is_adjoint("expert_backward", BACK, ("EXP-1", "EXP-2", "EXP-3", "EXP-5", "EXP-6", "EXP-7")),
    Property(
        "expert-factor-passes", ("EXP-2", "EXP-3", "EXP-6"), ("expert",), also(EXPERT, "factor", PLACES), factor_passes
    ),
    Property("expert-zeros-give-zeros", ("EXP-1", "EXP-2"), ("expert",), EXPERT, zeros_give_zeros),
    Property("expert-no-row-no-gradient", ("EXP-4",), ("expert_backward",), BACK, no_row_no_gradient),
    Property(
        "expert-weight-of-one",
        ("EXP-6",),
        ("expert",),
        asked("expert", weight_position="before_down"),
        weight_of_one,
    ),
)
