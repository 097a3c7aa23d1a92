"""The mixture of 1991: a likelihood that leaves no expert out."""

import numpy as np

from moespec_conformance.properties.engine.comparing import NOISE, near, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import asked
from moespec_conformance.properties.engine.property import Ask, Property, Trial
from moespec_conformance.properties.engine.renaming import any_order


def responsibilities_share_one_whole(ask: Ask, trial: Trial) -> None:
    """ROU-10: sum(topk_weight * dtopk_weight) of a token is -dloss / T."""
    case, weight = trial.case, trial.case.inputs["topk_weight"].astype(np.float64)
    d, off = ask(case)["dtopk_weight"].astype(np.float64), tolerances(case)["dtopk_weight"]
    takes_part = weight.any(axis=-1)
    g = np.where(takes_part, case.inputs["dloss"].astype(np.float64) / max(len(weight), 1), 0)
    near("sum(weight * dweight)", (weight * d).sum(axis=-1), -g, (weight * off).sum(axis=-1) + NOISE * np.abs(g))


LOSS, BACK = asked("mixture_loss"), asked("mixture_loss_backward")

FOUND = (
    any_order("mixture_loss", "T", LOSS, ("ROU-9",)),
    any_order("mixture_loss", "E", LOSS, ("ROU-9",)),
    any_order("mixture_loss_backward", "T", BACK, ("ROU-10",)),
    any_order("mixture_loss_backward", "E", BACK, ("ROU-10",)),
    backward_is_linear("mixture_loss_backward", BACK, ("ROU-10",)),
    backward_is_adjoint("mixture_loss_backward", BACK, ("ROU-9", "ROU-10")),
    Property(
        "mixture-responsibilities-share-one-whole",
        ("ROU-10",),
        ("mixture_loss_backward",),
        BACK,
        responsibilities_share_one_whole,
    ),
)
