"""Cross entropy."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint
from moespec_conformance.properties.engine.layers import also, asked
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given
from moespec_conformance.properties.engine.renaming import any_order


def shift_is_nothing(ask: Ask, trial: Trial) -> None:
    """LOS-1: a number added to all logits of a token changes nothing."""
    case = trial.case
    moved = given(case, logits=np.asarray(case.inputs["logits"] + trial.how["shift"], np.float32))
    for name, first in ask(case).items():
        second = ask(moved)[name]
        near(name, second, first.astype(np.float64), tolerances(case)[name] + tolerances(moved)[name])


def gradients_cancel(ask: Ask, trial: Trial) -> None:
    """LOS-4: p adds up to 1, so a token's dlogits add up to 0."""
    dlogits, off = ask(trial.case)["dlogits"].astype(np.float64), tolerances(trial.case)["dlogits"]
    near("the sum of a token's dlogits", dlogits.sum(axis=-1), 0, off.sum(axis=-1))


LOSS, BACK = asked("cross_entropy"), asked("cross_entropy_backward")
SHIFTS = st.sampled_from((1.0, -8.0, 64.0))

FOUND = (
    any_order("cross_entropy", "T", LOSS, ("LOS-3",)),
    any_order("cross_entropy", "V", LOSS, ("LOS-1", "LOS-2")),
    any_order("cross_entropy_backward", "T", BACK, ("LOS-4",)),
    any_order("cross_entropy_backward", "V", BACK, ("LOS-4",)),
    backward_is_adjoint("cross_entropy_backward", BACK, ("LOS-1", "LOS-2", "LOS-3", "LOS-4")),
    Property(
        "cross-entropy-shift-is-nothing", ("LOS-1",), ("cross_entropy",), also(LOSS, "shift", SHIFTS), shift_is_nothing
    ),
    Property("cross-entropy-gradients-cancel", ("LOS-4",), ("cross_entropy_backward",), BACK, gradients_cancel),
)
