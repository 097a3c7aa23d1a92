"""Ranks: tokens that travel to where their experts are, and a layer that does not notice."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import NOISE, alike, near, shown, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import questions, shares
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear, drawn
from moespec_conformance.properties.engine.layers import COUNT, Trials, seeded
from moespec_conformance.properties.engine.property import Ask, Property, Trial, of_op, without
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Case, Tensors


@st.composite
def over_ranks(draw: st.DrawFn, profiles: Profiles, op: str) -> Trial:
    """A question about some ranks, which share the experts evenly."""
    config = configs(draw, profiles, hash_routing=False)
    config["n_device"] = shares(draw, config)
    return questions(draw, op, config, {"T": draw(COUNT)})


def ranked(op: str) -> Trials:
    """An op's questions."""
    return lambda profiles: over_ranks(profiles, op)


def home(case: Case, out: Tensors, **sent: np.ndarray) -> Case:
    """What ranks received, or made of it, on its way home."""
    index = {name: out[name].astype(np.int64) for name in ("recv_token", "recv_count")}
    held = {"rows": out["rows"], "recv_topk_weight": out["recv_topk_weight"], **sent}
    return of_op(case, "combine_ranks", {**held, **index, "token_rank": case.inputs["token_rank"]})


def combine_undoes_dispatch(ask: Ask, trial: Trial) -> None:
    """RNK-2, RNK-3: a token comes back from each rank that owns one of its experts, and its weights once."""
    case, (x, ids) = trial.case, (trial.case.inputs["x"], trial.case.inputs["topk_idx"])
    back = home(case, ask(case))
    got, off = ask(back), tolerances(back)
    each = case.cfg.n_routed_experts // case.cfg.n_device
    ranks = np.array([len({int(e) // each for e in row if e >= 0}) for row in ids]).reshape(-1, 1)
    near("y", got["y"], ranks * x.astype(np.float64), off["y"])
    weight = np.where(ids >= 0, case.inputs["topk_weight"], 0)
    near("combined_topk_weight", got["combined_topk_weight"], weight, off["combined_topk_weight"])


def combine_is_adjoint(ask: Ask, trial: Trial) -> None:
    """RNK-3: each is the backward of the other: <dispatch(x), r> = <x, combine(r)>."""
    case, x = trial.case, trial.case.inputs["x"].astype(np.float64)
    out = ask(case)
    r = drawn(trial, "rows", out["rows"].shape).astype(case.inputs["x"].dtype)
    back = home(case, out, rows=r)
    ahead, terms = out["rows"].astype(np.float64) * r, x * ask(back)["y"]
    allowed = (np.abs(x) * tolerances(back)["y"]).sum() + NOISE * np.abs(ahead).sum()
    near("<x, combine(r)>", terms.sum(), ahead.sum(), allowed)


def ranks_are_one(ask: Ask, trial: Trial) -> None:
    """RNK-4, RNK-5, RNK-6: the layer over any number of ranks, forward and backward, is the layer of one."""
    case = trial.case
    unused = {"bias": np.zeros(case.cfg.n_routed_experts, np.float32)} if case.cfg.selection_bias else {}
    one = of_op(case, case.op.replace("_ranks", ""), {**without(case, "token_rank").inputs, **unused}, n_device=1)
    first, second = shown(case, ask(case)), shown(one, ask(one))
    alike(first, {name: second[name] for name in first}, lambda: tolerances(case))


PASSED, LAYER, BACK = ranked("dispatch_ranks"), ranked("moe_ranks"), ranked("moe_ranks_backward")
BOTH = ("dispatch_ranks", "combine_ranks")

FOUND = (
    Property("ranks-combine-undoes-dispatch", ("RNK-2", "RNK-3"), BOTH, PASSED, combine_undoes_dispatch),
    Property("ranks-combine-is-adjoint-to-dispatch", ("RNK-3",), BOTH, seeded(PASSED), combine_is_adjoint),
    Property("ranks-are-one", ("RNK-4",), ("moe_ranks", "moe"), LAYER, ranks_are_one),
    Property("ranks-are-one-backward", ("RNK-5", "RNK-6"), ("moe_ranks_backward", "moe_backward"), BACK, ranks_are_one),
    any_order("moe_ranks", "T", LAYER, ("RNK-4", "MOE-9")),
    any_order("moe_ranks_backward", "T", BACK, ("RNK-5", "RNK-6")),
    backward_is_linear("moe_ranks_backward", BACK, ("RNK-5", "RNK-6")),
    backward_is_adjoint("moe_ranks_backward", BACK, ("RNK-4", "RNK-5", "RNK-6")),
)
