"""AdamW: every number by itself."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles
from moespec_conformance.properties.engine.drawing import HANDS
from moespec_conformance.properties.engine.fp8 import SIDE
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, question
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Array

FORMATS, STEPS = st.sampled_from(("float32", "bfloat16")), st.integers(1, 40)
MOMENTS = ("param", "exp_avg", "grad")


@st.composite
def trained(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Parameters at some step, moments as they are stored."""
    del profiles
    config, hand, shape = fp8_config(moment_format=draw(FORMATS)), draw(HANDS), (draw(SIDE), draw(SIDE))
    held = {name: stored(hand.numbers(name, *shape)) for name in MOMENTS}
    held["exp_avg_sq"] = np.square(stored(hand.numbers("exp_avg_sq", *shape, shift=2)))
    if config["moment_format"] == "bfloat16":
        held["exp_avg_sq"] = stored(held["exp_avg_sq"])
    return Trial(question("adamw", config, {**held, "step": np.array(draw(STEPS))}), {})


def stored(x: Array) -> Array:
    """Float32 of a bfloat16's digits."""
    return (np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def mirrored(ask: Ask, trial: Trial) -> None:
    """OPT-1: of everything negative, the step is the other way, and the second moment the same."""
    case = trial.case
    turned = given(case, **{name: -case.inputs[name] for name in MOMENTS})
    first, second = ask(case), ask(turned)
    for name, out in second.items():
        sign = 1 if name == "exp_avg_sq" else -1
        want = sign * first[name].astype(np.float64)
        if not np.array_equal(out, want):
            near(f"{name} of everything negative", out, want, 2 * tolerances(case)[name])


FOUND = (
    any_order("adamw", "M", trained, ("OPT-1",)),
    any_order("adamw", "C", trained, ("OPT-1",)),
    Property("adamw-is-mirrored", ("OPT-1", "OPT-2"), ("adamw",), trained, mirrored),
)
