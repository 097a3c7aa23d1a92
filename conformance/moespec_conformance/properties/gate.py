"""Gate: where tokens go, and with what weight."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.properties.engine.comparing import NOISE, alike, near, right, shown, sure, tolerances
from moespec_conformance.properties.engine.gradients import backward_is_adjoint, backward_is_linear
from moespec_conformance.properties.engine.layers import also, asked
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial, given, under
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts
from moespec_conformance.protocol import Array, Case

FACTORS, OFFSETS = st.sampled_from((2.0, 0.5, 8.0)), st.sampled_from((1.0, -4.0, 0.5, -0.5))


def weights_share_the_scale(ask: Ask, trial: Trial) -> None:
    """GATE-7, GATE-8: where they are normalised, a token's weights add up to the scale."""
    case, out = trial.case, ask(trial.case)
    weight, ids = out["topk_weight"].astype(np.float64), case.inputs.get("topk_idx", out["topk_idx"])
    near("topk_weight of an empty slot", weight[ids < 0], 0)
    want, certain = right(case), sure(case)
    score = np.take_along_axis(want.values["scores"], ids.astype(np.int64), axis=-1)
    total = np.where(ids < 0, 0, score).sum(axis=-1)
    whole = case.cfg.routed_scaling_factor * total / (total + 1e-20)  # an expert wanted by nobody has weight 0
    bound = want.bounds["topk_weight"].sum(axis=-1) + NOISE
    if case.cfg.normalises:
        near("the sum of a token's weights", weight.sum(axis=-1)[certain], whole[certain], bound[certain])


def groups_contain_the_choice(ask: Ask, trial: Trial) -> None:
    """GATE-4, GATE-5: K different experts, out of no more than topk_group groups."""
    cfg, ids = trial.case.cfg, np.sort(ask(trial.case)["topk_idx"], axis=-1)
    if ids.size and (ids.min() < 0 or ids.max() >= cfg.n_routed_experts or (np.diff(ids, axis=-1) == 0).any()):
        raise Broken(f"topk_idx does not name {ids.shape[1]} different experts for each token: {ids.tolist()}")
    for token, named in enumerate(ids // cfg.experts_per_group):
        groups = sorted(set(named.tolist()))
        if len(groups) > cfg.topk_group and not cfg.hash_routing:
            raise Broken(f"token {token} went to groups {groups}, more than {cfg.topk_group}")


def bias_moves_the_choice_only(ask: Ask, trial: Trial) -> None:
    """GATE-3: a number added to every bias changes nothing."""
    case = trial.case
    moved = given(case, bias=np.asarray(case.inputs["bias"] + trial.how["offset"], np.float32))
    first, second = shown(case, ask(case)), shown(moved, ask(moved))
    for answered in (first, second):
        answered.pop("group_scores", None)  # the bias is in them
    alike(second, first, lambda: in_doubt(tolerances(case), sure(moved)))


def in_doubt(bounds: dict[str, Array], certain: Array) -> dict[str, Array]:
    """Bounds without limit for tokens whose choice rounding may turn."""
    return {name: np.where(certain[:, None], e, np.inf) for name, e in bounds.items()}


def bias_is_nothing_to_given_ids(ask: Ask, trial: Trial) -> None:
    """GATE-6, GATE-10: where ids are given, weights and gradients are the same under any bias."""
    case = trial.case
    other = given(case, bias=np.asarray(trial.how["offset"] - 2 * case.inputs["bias"], np.float32))
    first, second = shown(case, ask(case)), shown(other, ask(other))
    for answered in (first, second):
        answered.pop("group_scores", None)
    alike(second, first, lambda: tolerances(case))


def all_groups_are_none(ask: Ask, trial: Trial) -> None:
    """GATE-4: if all groups stand, there might as well be none."""
    case = under(trial.case, topk_group=trial.case.cfg.n_group)
    whole = under(case, n_group=1, topk_group=1, group_score=None)
    first, second = shown(case, ask(case)), shown(whole, ask(whole))
    first.pop("group_scores", None)
    alike(second, first, lambda: tolerances(case))


def scale_is_a_factor(ask: Ask, trial: Trial) -> None:
    """GATE-8: weights are proportional to the scale."""
    case, factor = trial.case, trial.how["factor"]
    scaled = under(case, routed_scaling_factor=case.cfg.routed_scaling_factor * factor)
    first, second = shown(case, ask(case)), shown(scaled, ask(scaled))
    first["topk_weight"] = first["topk_weight"]._replace(value=first["topk_weight"].value * factor)
    alike(second, first, lambda: tolerances(case) | {"topk_weight": factor * tolerances(case)["topk_weight"]})


def padding_goes_nowhere(ask: Ask, trial: Trial) -> None:
    """GATE-13: a masked token has no expert and no weight, and the others do not notice."""
    case, mask = trial.case, trial.case.inputs["mask"]
    other = given(case, mask=np.ones_like(mask))
    masked, free = shown(case, ask(case)), shown(other, ask(other))
    for name in ("topk_idx", "topk_weight"):
        near(f"{name} of padding", masked[name].value[~mask], 0)
        free[name] = free[name]._replace(value=np.where(mask[:, None], free[name].value, 0))
    alike(masked, free, lambda: tolerances(other))


def no_factor_is_learned(ask: Ask, trial: Trial) -> None:
    """GATE-10: normalised weights do not know of a factor of all scores: sum(score * dscore) is 0.

    One token of one channel that is 1, so that dweight is the gradient of its logits.
    """
    token = {name: t[:1] for name, t in trial.case.inputs.items() if name in ("topk_idx", "dtopk_weight", "token_ids")}
    case = given(trial.case, **token, x=np.ones((len(token["topk_idx"]), 1), np.float32))
    if not case.cfg.normalises:
        return
    dlogits, bound = ask(case)["dweight"].astype(np.float64), right(case).bounds["dweight"]
    per_logit = by_score(case, case.inputs["weight"].astype(np.float64))
    near("sum of score * dscore", np.sum(dlogits * per_logit), 0, np.sum(bound * per_logit) + NOISE)


def by_score(case: Case, z: Array) -> Array:
    """score / slope, which makes score * dscore of a gradient of logits z; of softmax, logits themselves say it."""
    if case.cfg.scoring_func == "softmax":
        return np.ones_like(z)
    sigmoid = 1 / (1 + np.exp(-z))
    return 1 / (1 - sigmoid) if case.cfg.scoring_func == "sigmoid" else 2 * np.log1p(np.exp(z)) / sigmoid


def unchosen_learn_nothing(ask: Ask, trial: Trial) -> None:
    """GATE-10: an expert that no token names has no gradient through the gate, if its score stands by itself."""
    case = trial.case
    named = np.isin(np.arange(case.cfg.n_routed_experts), case.inputs["topk_idx"])
    if case.cfg.scoring_func != "softmax":
        near("dweight of experts nobody chose", ask(case)["dweight"][~named], 0)


GROUPED = asked("gate", n_group=3)
GATE, REPLAY, BACK = asked("gate"), asked("gate", "topk_idx"), asked("gate_backward")
LOSSES = asked("gate_backward", "dscores", "dlogits")
NORMALISED = {"norm_topk_prob": True}
BIASED = {"selection_bias": True}
ALONE = asked("gate_backward", hidden_size=1, **NORMALISED)

FOUND = (
    any_order("gate", "T", GATE),
    any_order("gate", "E", GATE),
    any_order("gate", "H", REPLAY, ("GATE-1",)),
    any_order("gate", "W", REPLAY, ("GATE-5", "GATE-9")),
    in_parts("gate", GATE),
    any_order("gate_backward", "T", BACK),
    any_order("gate_backward", "E", BACK),
    any_order("gate_backward", "W", BACK, ("GATE-5", "GATE-10")),
    in_parts("gate_backward", BACK),
    backward_is_linear("gate_backward", LOSSES, ("GATE-10", "GATE-14")),
    backward_is_adjoint("gate_backward", LOSSES, ("GATE-1", "GATE-2", "GATE-10", "GATE-14")),
    Property(
        "gate-weights-share-the-scale",
        ("GATE-7", "GATE-8"),
        ("gate",),
        asked("gate", **NORMALISED),
        weights_share_the_scale,
    ),
    Property(
        "gate-given-weights-share-the-scale",
        ("GATE-6", "GATE-7", "GATE-8"),
        ("gate",),
        asked("gate", "topk_idx", **NORMALISED),
        weights_share_the_scale,
    ),
    Property("gate-groups-contain-the-choice", ("GATE-4", "GATE-5"), ("gate",), GROUPED, groups_contain_the_choice),
    Property(
        "gate-bias-moves-the-choice-only",
        ("GATE-3", "GATE-6"),
        ("gate",),
        also(asked("gate", **BIASED), "offset", OFFSETS),
        bias_moves_the_choice_only,
    ),
    Property(
        "gate-bias-is-nothing-to-given-ids",
        ("GATE-6", "GATE-9"),
        ("gate",),
        also(asked("gate", "topk_idx", **BIASED), "offset", OFFSETS),
        bias_is_nothing_to_given_ids,
    ),
    Property(
        "gate-backward-bias-is-nothing",
        ("GATE-10",),
        ("gate_backward",),
        also(asked("gate_backward", **BIASED), "offset", OFFSETS),
        bias_is_nothing_to_given_ids,
    ),
    Property("gate-all-groups-are-none", ("GATE-4",), ("gate",), GROUPED, all_groups_are_none),
    Property("gate-scale-is-a-factor", ("GATE-8",), ("gate",), also(GATE, "factor", FACTORS), scale_is_a_factor),
    Property("gate-padding-goes-nowhere", ("GATE-13",), ("gate",), asked("gate", "mask"), padding_goes_nowhere),
    Property("gate-no-factor-is-learned", ("GATE-7", "GATE-10"), ("gate_backward",), ALONE, no_factor_is_learned),
    Property("gate-unchosen-learn-nothing", ("GATE-10",), ("gate_backward",), BACK, unchosen_learn_nothing),
)
