"""The judge itself: what it must let pass, what it must not, and what it says."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from moespec.config import MoEConfig
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.judge import near, pattern, selection
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judging import verdict
from moespec_conformance.oracle import answer


def given(name: str, **changed: Any) -> Any:
    """The verdict on the reference's answer to a case, with changes."""
    case = all_cases()[name]
    right = {n: v if v.dtype.kind in "iu" else v.astype(np.float32) for n, v in answer(case).values.items()}
    return verdict(case, Reply("answered", {**right, **changed}))


def values(name: str, output: str) -> Any:
    """The right answer, in float32."""
    return answer(all_cases()[name]).values[output].astype(np.float32)


def test_the_right_answer_passes() -> None:
    """Rounded once to float32."""
    for name in ("gate-ordinary", "expert-ordinary", "moe-corridor", "dispatch-holes", "gate-backward-ordinary"):
        assert given(name).status == "pass"


@pytest.mark.parametrize("factor", [1.001, -1.0, 2.5])
def test_a_factor_is_found_and_named(factor: float) -> None:
    """A gain error of a tenth of a percent fails, and large ones are told in words."""
    result = given("moe-ordinary", y=values("moe-ordinary", "y") * np.float32(factor))
    assert (result.status, result.stage) == ("fail", "y")
    assert result.error_over_bound > 1
    if factor != 1.001:
        assert ("wrong sign" if factor < 0 else "times 2.5000") in result.message


def test_one_wrong_element_is_enough_and_is_named() -> None:
    """With its place, both values, and how many are wrong."""
    y = values("moe-ordinary", "y")
    y[17, 5] += np.float32(0.125)
    result = given("moe-ordinary", y=y)
    assert result.status == "fail"
    assert "y[17, 5]" in result.message
    assert "only tokens 17 (1 of 64)" in result.message


def test_the_first_wrong_stage_is_named() -> None:
    """A wrong weight explains a wrong y."""
    weight, y = values("moe-ordinary", "topk_weight"), values("moe-ordinary", "y")
    result = given("moe-ordinary", topk_weight=weight * np.float32(1.5), y=y * np.float32(1.5))
    assert result.stage == "topk_weight"


def test_slots_in_another_order_pass() -> None:
    """GATE-5: the order of slots is free, in the gate and in the layer's trace."""
    for name in ("gate-ordinary", "moe-ordinary"):
        ids, weight = values(name, "topk_idx").astype(np.int32)[:, ::-1], values(name, "topk_weight")[:, ::-1]
        assert given(name, topk_idx=ids, topk_weight=weight).status == "pass"


def test_an_illegal_expert_fails_as_a_selection() -> None:
    """The token and both sets are named."""
    ids = answer(all_cases()["gate-ordinary"]).values["topk_idx"].copy()
    ids[9, 3] = next(e for e in range(16) if e not in ids[9])
    result = given("gate-ordinary", topk_idx=ids)
    assert (result.status, result.kind, result.stage) == ("fail", "selection", "topk_idx")
    assert "token 9" in result.message


@pytest.mark.parametrize("change", ["twice", "beyond"])
def test_ids_that_are_no_choice_fail(change: str) -> None:
    """Ids out of range, or repeated."""
    ids = answer(all_cases()["gate-ordinary"]).values["topk_idx"].copy()
    ids[2, 1] = ids[2, 0] if change == "twice" else 16
    result = given("gate-ordinary", topk_idx=ids)
    assert result.status == "fail"
    assert "different" in result.message


@pytest.mark.spec("MOE-6")
@pytest.mark.parametrize(
    ("name", "output", "cut"),
    [
        ("gate-ordinary", "topk_idx", (slice(None), slice(3))),
        ("combine-ordinary", "y", (slice(-1),)),
        ("moe-ordinary", "y", (slice(-1),)),
    ],
    ids=["too-few-slots", "combine-too-few-tokens", "layer-too-few-tokens"],
)
def test_sizes_are_those_of_the_inputs(name: str, output: str, cut: tuple[slice, ...]) -> None:
    """Every letter that the config or an input fixes is fixed; nothing is broadcast."""
    whole = answer(all_cases()[name]).values[output]
    whole = whole if output == "topk_idx" else whole.astype(np.float32)
    with pytest.raises(Malformed, match=f"{output} has shape"):
        given(name, **{output: whole[cut]})


def test_weights_without_ids_and_groups_without_groups_are_passed_over() -> None:
    """A layer's trace of weights says nothing without its ids; a trace of groups means nothing if there is one."""
    case = all_cases()["moe-ordinary"]
    y, weight = values("moe-ordinary", "y"), values("moe-ordinary", "topk_weight")[:, ::-1]
    assert verdict(case, Reply("answered", {"y": y, "topk_weight": weight})).status == "pass"
    assert given("gate-ten-slots", group_scores=np.zeros((64, 1), np.float32)).status == "pass"


def test_ties_may_fall_either_way_but_not_in_their_profile() -> None:
    """Twins: either expert of an equal pair is legal; the profile `ties` wants the lower index."""
    case = all_cases()["gate-twins"]
    from moespec_conformance.judge.verdict import legal  # noqa: PLC0415

    ids = answer(case).values["topk_idx"]
    swapped = np.where(np.isin(ids ^ 1, ids), ids, ids ^ 1)
    for token in range(len(ids)):
        swapped[token] = [e ^ 1 if (e ^ 1) not in ids[token] else e for e in ids[token]]
    assert legal(case, swapped).all()
    tied = all_cases()["ties-all-equal"]
    assert given("ties-all-equal", topk_idx=answer(tied).values["topk_idx"] + 1).status == "fail"


def brute_force(choice: Any, bound: Any, cfg: MoEConfig, rng: Any) -> set[tuple[int, ...]]:
    """Sets that some scores within the bounds make the top K, found by trying many."""
    found = set()
    for _ in range(4000):
        c = choice + bound * rng.choice([-1, 1, rng.uniform(-1, 1)], choice.shape)
        sums = np.sort(c.reshape(cfg.n_group, -1))[:, -2:].sum(axis=1)
        kept = np.argsort(-sums)[: cfg.topk_group]
        mask = np.full(cfg.n_group, -np.inf)
        mask[kept] = 0
        found.add(
            tuple(sorted(np.argsort(-(c + mask.repeat(cfg.experts_per_group)))[: cfg.num_experts_per_tok].tolist()))
        )
    return found


def test_legal_sets_are_those_that_some_scores_make_so() -> None:
    """Every set that occurs within the bounds is legal; sets far from that are not."""
    cfg = MoEConfig.from_dict(config(n_routed_experts=8, num_experts_per_tok=2, n_group=4, topk_group=2))
    rng = np.random.default_rng(0)
    for _ in range(10):
        choice, bound = rng.random(8).round(1), np.full(8, 0.06)
        grouped = np.sort(choice.reshape(4, 2))
        groups = (grouped[None].sum(axis=-1), np.full((1, 4), 0.12))
        legal = {
            pair
            for pair in combinations(range(8), 2)
            if selection.legal(np.array([pair]), (choice[None], bound[None]), groups, cfg)[0]
        }
        assert brute_force(choice, bound, cfg, rng) <= legal
        best = int(np.argmin(choice))
        assert not any(best in pair for pair in legal) or choice[best] + 0.13 > np.sort(choice)[-5]


def test_spread_catches_what_bounds_let_through() -> None:
    """Noise ten times float32's lies within the bound, and fails as a spread."""
    right = answer(all_cases()["moe-ordinary"])
    noise = np.random.default_rng(0).standard_normal(right.values["y"].shape) * np.sqrt(right.variances["y"]) * 10
    result = given("moe-ordinary", y=right.values["y"] + noise)
    assert (result.status, result.kind) == ("fail", "spread")
    assert result.error_over_bound < 1


def test_unusual_noise_is_a_warning() -> None:
    """Legal, and said."""
    right = answer(all_cases()["moe-ordinary"])
    noise = np.random.default_rng(0).standard_normal(right.values["y"].shape) * np.sqrt(right.variances["y"]) * 1.5
    result = given("moe-ordinary", y=right.values["y"] + noise)
    assert (result.status, result.stage) == ("quality_warning", "y")


def test_exact_means_every_bit_but_the_sign_of_zero() -> None:
    """One unit in the last place fails; -0 for 0 does not."""
    y = values("moe-corridor", "y")
    assert given("moe-corridor", y=np.where(y == 0, -y, y)).status == "pass"
    y[3, 3] = np.nextafter(y[3, 3], np.float32(9))
    assert given("moe-corridor", y=y).kind == "exact"


@pytest.mark.spec("MOE-6")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"y": np.zeros((64, 63), np.float32)}, "shape"),
        ({"y": np.zeros(64, np.float32)}, "shape"),
        ({"y": np.zeros((64, 64), np.float16)}, "dtype"),
        ({"y": np.zeros((64, 64), np.int64)}, "dtype"),
        ({"y": np.full((64, 64), np.nan, np.float32)}, "nan"),
        ({"y": np.full((64, 64), np.inf, np.float32)}, "nan"),
        ({"topk_idx": np.zeros((64, 4), np.float32)}, "dtype"),
    ],
)
def test_what_is_no_answer_says_why(change: dict[str, Any], kind: str) -> None:
    """Shape, dtype, NaN: each by its name and output."""
    with pytest.raises(Malformed) as wrong:
        given("moe-ordinary", **change)
    assert wrong.value.kind == kind
    assert wrong.value.stage == next(iter(change))


def test_a_missing_output_or_no_dict_is_no_answer() -> None:
    """Optional traces may be missing, outputs may not."""
    case = all_cases()["moe-ordinary"]
    assert list(outputs_of(case, {"y": values("moe-ordinary", "y")})) == ["y"]
    for wrong in ({"z": 1}, None, 3, [values("moe-ordinary", "y")]):
        with pytest.raises(Malformed):
            outputs_of(case, wrong)


@pytest.mark.spec("DSP-2")
def test_padding_rows_of_a_dispatch_are_free_if_they_are_nobodys() -> None:
    """Zeros with token and slot -1 are removed; a padding row with content is wrong."""
    right = answer(all_cases()["dispatch-holes"]).values
    padded = {n: np.insert(right[n], 5, -1 if n != "rows" else 0, axis=0) for n in ("row_token", "row_slot", "rows")}
    padded["rows"] = padded["rows"].astype(np.float32)
    assert given("dispatch-holes", **padded).status == "pass"
    padded["rows"][5, 0] = 1
    with pytest.raises(Malformed, match="must have slot -1 and hold zeros"):
        given("dispatch-holes", **padded)


def test_near_of_nothing_and_of_zero_bounds() -> None:
    """An empty tensor is right; 0 / 0 is no error, anything over a bound of 0 is infinitely far."""
    assert near.worst(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))).ratio == 0
    assert near.worst(np.zeros(2), np.zeros(2), np.zeros(2)).ratio == 0
    assert near.worst(np.ones(2), np.zeros(2), np.zeros(2)).ratio == np.inf


def test_patterns_in_words() -> None:
    """Whole rows, moved rows, columns, zeros."""
    want = np.random.default_rng(0).standard_normal((8, 16))
    tiny = np.full(want.shape, 1e-6)
    assert "rows moved by +1" in pattern.describe("tokens", np.roll(want, 1, axis=0), want, tiny)
    assert "all zeros" in pattern.describe("tokens", np.zeros_like(want), want, tiny)
    column = want.copy()
    column[:, 3] = 0
    assert "only columns 3" in pattern.describe("tokens", column, want, tiny)
