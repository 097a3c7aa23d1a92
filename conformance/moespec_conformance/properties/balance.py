"""Losses of load balance."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import Config, picked, questions, shares
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import COUNT, Trials, also
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, under, without
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Case

KINDS = ("expert", "sequence", "device", "communication", "z", "importance")
COUNTING = KINDS[:4]
OPTIONS = st.sampled_from(((), ("seq_ids",), ("mask",), ("seq_ids", "mask")))
FACTORS = st.sampled_from((2.0, 0.5, 0.0))
TOKEN = ("scores", "logits", "topk_idx", "seq_ids", "mask")


@st.composite
def losses(
    draw: st.DrawFn, profiles: Profiles, op: str, kinds: tuple[str, ...], extra: tuple[str, ...] | None
) -> Trial:
    """A question about one of these losses, perhaps of several sequences, perhaps with padding."""
    config = configs(draw, profiles) | {"balance_kind": picked(draw, kinds), "alpha": 0.5}
    config |= devices(draw, config) if config["balance_kind"] in ("device", "communication") else {}
    if config["balance_kind"] in COUNTING and draw(st.booleans()):
        config["balance_topk"] = "unbiased"
    options = draw(OPTIONS) if extra is None else extra
    known = options if config["balance_kind"] in COUNTING else tuple(o for o in options if o != "seq_ids")
    return questions(draw, op, config, {"T": draw(COUNT)}, known)


def devices(draw: st.DrawFn, config: Config) -> Config:
    """Devices that share the experts evenly, and how many of them a token may reach."""
    n = shares(draw, config)
    return {
        "n_device": n,
        "device_limit": picked(draw, range(1, n + 1)),
        "n_group": 1,
        "topk_group": 1,
        "group_score": None,
    }


def of(op: str, kinds: tuple[str, ...] = KINDS, extra: tuple[str, ...] | None = None) -> Trials:
    """An op's questions."""
    return lambda profiles: losses(profiles, op, kinds, extra)


def some(case: Case, kept: np.ndarray, *left_out: str) -> Case:
    """The same question about some of the tokens."""
    rows = {name: t[kept] for name, t in case.inputs.items() if name in TOKEN and name not in left_out}
    return given(without(case, *left_out), **rows)


def sequences_stand_apart(ask: Ask, trial: Trial) -> None:
    """BAL-2: the loss is the mean of its sequences' losses, long and short ones alike."""
    case, ids = trial.case, trial.case.inputs["seq_ids"]
    whole = ask(case)["loss"]
    alone = [some(case, ids == s, "seq_ids") for s in np.unique(ids)]
    each = [(float(ask(one)["loss"]), float(tolerances(one)["loss"])) for one in alone]
    mean, off = np.mean(each, axis=0) if each else (0.0, 0.0)
    near("loss", whole, np.asarray(mean), tolerances(case)["loss"] + off)


def padding_counts_nothing(ask: Ask, trial: Trial) -> None:
    """BAL-2, BAL-9: padding is as if it were not there, and has no gradient."""
    case, mask = trial.case, trial.case.inputs["mask"]
    rest = some(case, mask, "mask")
    got, want, off, more = ask(case), ask(rest), tolerances(case), tolerances(rest)
    for name in (n for n in ("loss", "dscores", "dlogits") if n in got):
        if name == "loss":
            near("loss", got[name], want[name].astype(np.float64), off[name] + more[name])
        else:
            near(f"{name} of padding", got[name][~mask], 0)
            near(name, got[name][mask], want[name].astype(np.float64), off[name][mask] + more[name])


def alpha_is_a_factor(ask: Ask, trial: Trial) -> None:
    """BAL-1: the loss is proportional to alpha."""
    case, factor = trial.case, trial.how["factor"]
    other = under(case, alpha=case.cfg.alpha * factor)
    want = factor * ask(case)["loss"].astype(np.float64)
    near("loss", ask(other)["loss"], np.asarray(want), tolerances(other)["loss"] + factor * tolerances(case)["loss"])


def even_use_costs_alpha(ask: Ask, trial: Trial) -> None:
    """BAL-1: where every expert is used alike and every score is 1 / E, the loss is alpha, whatever E and K are."""
    case, (e, k) = trial.case, (trial.case.cfg.n_routed_experts, trial.case.cfg.num_experts_per_tok)
    ids = (np.arange(e)[:, None] + np.arange(k)) % e
    even = given(without(case, "seq_ids", "mask"), scores=np.full((e, e), 1 / e, np.float32), topk_idx=ids)
    even = under(even, balance_topk="given")
    alpha = case.cfg.alpha * float(np.float32(1 / e)) * e
    if case.cfg.balance_kind == "sequence":  # scores share one whole, rounded as they are
        alpha = case.cfg.alpha
    near("loss", ask(even)["loss"], alpha, tolerances(even)["loss"] + 2.0**-40)


LOSS, BACK = of("balance_loss"), of("balance_loss_backward")
PADDED = of("balance_loss", KINDS, ("mask",))

FOUND = (
    any_order("balance_loss", "T", of("balance_loss", KINDS, ("mask",)), ("BAL-2",)),
    any_order("balance_loss", "E", LOSS, ("BAL-4", "BAL-5", "BAL-6", "BAL-8", "BAL-11", "BAL-12")),
    any_order("balance_loss_backward", "T", BACK, ("BAL-2", "BAL-9")),
    any_order("balance_loss_backward", "E", BACK, ("BAL-9", "BAL-11", "BAL-12")),
    backward_is_linear("balance_loss_backward", BACK, ("BAL-10",)),
    backward_is_adjoint("balance_loss_backward", BACK, ("BAL-4", "BAL-8", "BAL-9", "BAL-10", "BAL-11", "BAL-12")),
    Property(
        "balance-sequences-stand-apart",
        ("BAL-2",),
        ("balance_loss",),
        of("balance_loss", COUNTING, ("seq_ids",)),
        sequences_stand_apart,
    ),
    Property("balance-padding-counts-nothing", ("BAL-2",), ("balance_loss",), PADDED, padding_counts_nothing),
    Property(
        "balance-padding-learns-nothing",
        ("BAL-2", "BAL-9"),
        ("balance_loss_backward",),
        of("balance_loss_backward", KINDS, ("mask",)),
        padding_counts_nothing,
    ),
    Property(
        "balance-alpha-is-a-factor", ("BAL-1",), ("balance_loss",), also(LOSS, "factor", FACTORS), alpha_is_a_factor
    ),
    Property(
        "balance-even-use-costs-alpha",
        ("BAL-1", "BAL-3"),
        ("balance_loss",),
        of("balance_loss", ("expert", "sequence", "device"), ()),
        even_use_costs_alpha,
    ),
)
