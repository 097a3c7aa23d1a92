"""Layouts: the same rows with empty places between them."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import HANDS, questions
from moespec_conformance.properties.engine.layers import COUNT
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, of_op, under
from moespec_conformance.properties.engine.renaming import any_order

LAYOUTS = st.sampled_from(("contiguous", "psum", "masked", "k_grouped"))
ALIGNMENTS = st.sampled_from((1, 2, 3))


@st.composite
def layouts(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Rows in any layout."""
    how = {"layout": draw(LAYOUTS), "alignment": draw(ALIGNMENTS)}
    return questions(draw, "layout", configs(draw, profiles, **how), {"T": draw(COUNT)})


@st.composite
def products(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Rows of experts one after another, as what a product adds over."""
    config, hand = configs(draw, profiles), draw(HANDS)
    size = hand.below("expert_size", 3, config["n_routed_experts"])
    case, how = questions(draw, "k_grouped_matmul", config, {"N": int(size.sum())})
    return Trial(given(case, expert_size=size), how)


def holds_dispatch(ask: Ask, trial: Trial) -> None:
    """DSP-4: without its empty places, a layout is what dispatch gives; empty places are nobody's, and zeros."""
    case, out = trial.case, ask(trial.case)
    plain = ask(under(of_op(case, "dispatch", case.inputs), layout="contiguous", alignment=1))
    taken = out["row_token"] >= 0
    for name in ("row_token", "row_slot", "rows"):
        near(f"{name} without empty places", out[name][taken], plain[name])
    near("row_slot of empty places", out["row_slot"][~taken], -1)
    near("rows at empty places", out["rows"][~taken], 0)


def groups_add_up(ask: Ask, trial: Trial) -> None:
    """DSP-8: what the experts' products add up to is the product of all rows, as of one expert."""
    case = trial.case
    parts = given(case, c=np.zeros_like(case.inputs["c"]))
    size = np.array([case.inputs["expert_size"].sum()])
    one = under(given(parts, expert_size=size, c=parts.inputs["c"][:1]), **ONE)
    got, whole = ask(parts)["d"].astype(np.float64).sum(axis=0), ask(one)["d"][0]
    near("sum of d", got, whole, tolerances(one)["d"][0] + tolerances(parts)["d"].sum(axis=0))


def only_added(ask: Ask, trial: Trial) -> None:
    """DSP-8: c is added, no more: an expert without rows has d = c."""
    case = trial.case
    empty, d = case.inputs["expert_size"] == 0, ask(case)["d"]
    near("d of experts without rows", d[empty], case.inputs["c"][empty])


ONE = {"n_routed_experts": 1, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "group_score": None}

FOUND = (
    Property("layout-holds-dispatch", ("DSP-4", "DSP-5", "DSP-7"), ("layout", "dispatch"), layouts, holds_dispatch),
    Property("k-grouped-adds-up", ("DSP-8",), ("k_grouped_matmul",), products, groups_add_up),
    Property("k-grouped-without-rows-is-c", ("DSP-8",), ("k_grouped_matmul",), products, only_added),
    any_order("k_grouped_matmul", "F", products, ("DSP-8",)),
)
