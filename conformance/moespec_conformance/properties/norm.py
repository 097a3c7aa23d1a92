"""RMSNorm."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import NOISE, near, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import also, asked
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts


def mean_square(ask: Ask, trial: Trial) -> None:
    """NRM-1: under a weight of 1 the mean square of a token is what eps leaves of 1: m / (m + eps)."""
    case = given(trial.case, weight=np.ones_like(trial.case.inputs["weight"]))
    y, off = ask(case)["y"].astype(np.float64), tolerances(case)["y"]
    m = np.square(case.inputs["x"].astype(np.float64)).mean(axis=-1)
    allowed = ((2 * np.abs(y) + off) * off).mean(axis=-1) + NOISE
    near("the mean square of y", np.square(y).mean(axis=-1), m / (m + case.cfg.rms_norm_eps), allowed)


def factor_passes(ask: Ask, trial: Trial) -> None:
    """NRM-2: y is proportional to the weight, and changes its sign with x."""
    case, (name, factor) = trial.case, trial.how["factor"]
    scaled = given(case, **{name: (case.inputs[name] * factor).astype(case.inputs[name].dtype)})
    first, second = ask(case)["y"].astype(np.float64), ask(scaled)["y"]
    if not np.array_equal(second, factor * first):
        near(f"y under {name} times {factor:g}", second, factor * first, 2 * abs(factor) * tolerances(case)["y"])


NORM, BACK = asked("rms_norm"), asked("rms_norm_backward")
PLACES = st.sampled_from((("weight", 4.0), ("weight", -1.0), ("x", -1.0)))

FOUND = (
    any_order("rms_norm", "T", NORM),
    any_order("rms_norm", "H", NORM, ("NRM-1", "NRM-2")),
    in_parts("rms_norm", NORM),
    any_order("rms_norm_backward", "H", BACK, ("NRM-3",)),
    in_parts("rms_norm_backward", BACK, clauses=("NRM-3",)),
    backward_is_linear("rms_norm_backward", BACK, ("NRM-3",)),
    backward_is_adjoint("rms_norm_backward", BACK, ("NRM-1", "NRM-2", "NRM-3")),
    Property("rms-norm-mean-square", ("NRM-1",), ("rms_norm",), NORM, mean_square),
    Property("rms-norm-factor-passes", ("NRM-1", "NRM-2"), ("rms_norm",), also(NORM, "factor", PLACES), factor_passes),
)
