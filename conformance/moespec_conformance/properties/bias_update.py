"""The bias that balances without a loss."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import HANDS, questions
from moespec_conformance.properties.engine.layers import COUNT, also
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, of_op, question
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Array, Case, Tensors

RULES = st.sampled_from(("sign", "sign_centred"))
PASSES, OFFSETS = st.integers(1, 5), st.sampled_from((1.0, -4.0))
PER_PASS = ("topk_idx", "mask", "pass_kind", "pass_step", "pass_rank")


@st.composite
def updates(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """One step."""
    config = configs(draw, profiles, bias_update=draw(RULES), bias_update_rate=0.125)
    return questions(draw, "bias_update", config, {})


@st.composite
def steps(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Several passes of a router, of any kind, of one or more steps."""
    config = configs(draw, profiles, bias_update=draw(RULES), bias_update_rate=0.125)
    passes, tokens, hand = draw(PASSES), draw(COUNT), draw(HANDS)
    config |= {"n_group": 1, "topk_group": 1, "group_score": None}
    ids = hand.ids(passes * tokens, config["num_experts_per_tok"], config["n_routed_experts"])
    held = {
        "topk_idx": ids.reshape(passes, tokens, ids.shape[1]),
        "pass_kind": hand.below("pass_kind", 3, passes),
        "pass_step": np.sort(hand.below("pass_step", min(passes, 3), passes)),
        "pass_rank": hand.below("pass_rank", 3, passes),
        "bias": hand.numbers("bias", config["n_routed_experts"], shift=2),
    }
    return Trial(question("bias_steps", config, held), {})


def even_load_moves_nothing(ask: Ask, trial: Trial) -> None:
    """BAL-13: on the mean a bias stays as it is."""
    case = given(trial.case, expert_count=np.full_like(trial.case.inputs["expert_count"], trial.how["load"]))
    near("bias under an even load", ask(case)["bias"], case.inputs["bias"])


def only_the_balance_counts(ask: Ask, trial: Trial) -> None:
    """BAL-13: what moves the bias is above or below the mean: not how far, nor of how many tokens."""
    case = trial.case
    more = given(case, expert_count=3 * case.inputs["expert_count"] + 2)
    near(
        "bias under another load", ask(more)["bias"], ask(case)["bias"].astype(np.float64), 2 * tolerances(case)["bias"]
    )


def offset_stays(ask: Ask, trial: Trial) -> None:
    """BAL-13: a step does not depend on the bias."""
    case, offset = trial.case, trial.how["offset"]
    moved = given(case, bias=np.asarray(case.inputs["bias"] + offset, np.float32))
    first, second = ask(case)["bias"].astype(np.float64), ask(moved)["bias"]
    near("bias from elsewhere", second, first + offset, tolerances(case)["bias"] + tolerances(moved)["bias"])


def one_by_one(ask: Ask, trial: Trial) -> None:
    """BAL-13, BAL-15: each step is one update by the load of its training passes, all ranks and micro-batches added."""
    case, t = trial.case, trial.case.inputs
    bias, experts = t["bias"], case.cfg.n_routed_experts
    for step, after in enumerate(ask(case)["bias"]):
        counted = (t["pass_step"] == step) & (t["pass_kind"] == 0)
        ids = t["topk_idx"][counted]
        load = np.bincount(ids[ids >= 0], minlength=experts)
        update = of_op(case, "bias_update", {"bias": bias, "expert_count": load})
        near(f"bias after step {step}", after, ask(update)["bias"].astype(np.float64), 2 * tolerances(update)["bias"])
        bias = after.astype(np.float32)


def cut_in_two(case: Case) -> Case:
    """The same tokens in twice as many passes of half the size, on ranks of another number."""
    t, (passes, tokens, slots) = case.inputs, case.inputs["topk_idx"].shape
    halves = t["topk_idx"].reshape(2 * passes, tokens // 2, slots)
    held: Tensors = {name: np.repeat(t[name], 2) for name in PER_PASS if name.startswith("pass")}
    return given(case, topk_idx=halves, **{**held, "pass_rank": 5 - held["pass_rank"]})


def micro_batches_are_one(ask: Ask, trial: Trial) -> None:
    """BAL-15: how a step is cut into passes, and on which ranks they run, changes nothing."""
    whole = given(trial.case, topk_idx=even(trial.case.inputs["topk_idx"]))
    first, second = ask(whole)["bias"], ask(cut_in_two(whole))["bias"]
    near("bias after passes cut in two", second, first.astype(np.float64), 2 * tolerances(whole)["bias"])


def even(ids: Array) -> Array:
    """An even number of tokens."""
    return ids[:, : ids.shape[1] // 2 * 2]


LOADS = st.integers(0, 3)

FOUND = (
    any_order("bias_update", "E", updates, ("BAL-13", "BAL-14")),
    any_order("bias_steps", "E", steps, ("BAL-13", "BAL-15")),
    Property(
        "bias-even-load-moves-nothing",
        ("BAL-13",),
        ("bias_update",),
        also(updates, "load", LOADS),
        even_load_moves_nothing,
    ),
    Property("bias-only-the-balance-counts", ("BAL-13",), ("bias_update",), updates, only_the_balance_counts),
    Property("bias-offset-stays", ("BAL-13",), ("bias_update",), also(updates, "offset", OFFSETS), offset_stays),
    Property("bias-steps-one-by-one", ("BAL-13", "BAL-15"), ("bias_steps", "bias_update"), steps, one_by_one),
    Property("bias-micro-batches-are-one", ("BAL-15",), ("bias_steps",), steps, micro_batches_are_one),
)
