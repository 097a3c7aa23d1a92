"""How others compare, and what that notices: each way accepts and refuses what its authors' code does."""

import numpy as np
import pytest

from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.checking import ask
from moespec_conformance.mutants.oracles import Noticed, asked, implemented, markdown, noticed, one, rates, twin
from moespec_conformance.mutants.others import ORACLES, Pair

FLASHINFER, FP8, MATCH_95, MATCH_99, BF16, ALLCLOSE, TORCH = ORACLES
RIGHT = np.random.default_rng(3).standard_normal((50, 20))


def refusing(got: np.ndarray, *, coarse: bool = False) -> set[str]:
    """Who does not take this for RIGHT."""
    return {name for name, accepts in ORACLES.items() if not accepts(Pair(got, RIGHT, coarse))}


def with_rows(count: int, value: float) -> np.ndarray:
    """RIGHT, some of whose 50 rows hold another number throughout."""
    made = RIGHT.copy()
    made[:count] = value
    return made


@pytest.mark.parametrize(
    ("got", "refused"),
    [
        (RIGHT, set[str]()),
        (RIGHT * (1 + 1e-6), set[str]()),
        (RIGHT * (1 + 1e-4), {TORCH}),
        (RIGHT * 1.005, {TORCH, BF16}),  # a gain of 0.45 % is 1e-5
        (RIGHT * 1.04, set(ORACLES) - {FLASHINFER, FP8}),  # and one of 4.5 % is 1e-3
        (RIGHT * 1.05, set(ORACLES) - {FLASHINFER}),
        (with_rows(2, 7.0), set(ORACLES) - {FLASHINFER, MATCH_95}),
        (with_rows(9, 7.0), set(ORACLES) - {FLASHINFER}),
        (with_rows(11, 7.0), set(ORACLES)),
        (with_rows(1, np.nan), set(ORACLES)),
        (with_rows(1, np.inf), set(ORACLES)),
    ],
)
def test_what_each_refuses(got: np.ndarray, refused: set[str]) -> None:
    """By the thresholds that their authors chose."""
    assert refusing(got) == refused


def test_torch_goes_by_dtype() -> None:
    """1 % is much in float32 and little in bfloat16."""
    assert TORCH in refusing(RIGHT * 1.01)
    assert TORCH not in refusing(RIGHT * 1.01, coarse=True)


def test_zeros_are_zeros() -> None:
    """Where a measure would divide 0 by 0."""
    assert all(accepts(Pair(np.zeros(3), np.zeros(3), coarse=False)) for accepts in ORACLES.values())


def test_ids_are_sets_and_weights_follow_their_experts() -> None:
    """Slots in another order are the same answer; another expert is not."""
    case = all_cases()["gate-ordinary"]
    want = ask(case, implemented("", "float32"), case.inputs).outputs
    turned = {name: a[:, ::-1] if name in ("topk_idx", "topk_weight") else a for name, a in want.items()}
    assert noticed(case, Reply("answered", turned), want) == frozenset()
    turned["topk_weight"] = want["topk_weight"]
    assert noticed(case, Reply("answered", turned), want) > {ALLCLOSE}
    other = {**want, "topk_idx": (want["topk_idx"] + 1) % 16}
    assert noticed(case, Reply("answered", other), want) == frozenset(ORACLES)
    assert noticed(case, Reply("raised"), want) == frozenset(ORACLES)


def test_a_mutant_is_noticed_where_it_shows_and_by_whom() -> None:
    """A bias in the weights is seen by many, TF32 by almost nobody, and neither where the gate is not run."""
    slugs = ("gate-tf32-inputs", "gate-bias-in-weights")
    found = {n.name: n.oracles for n in one(all_cases()["gate-ordinary"], slugs, stored=False)}
    assert found["gate-bias-in-weights"] >= {ALLCLOSE, TORCH, BF16}
    assert found["gate-tf32-inputs"] == {TORCH}
    assert all(n.name not in slugs for n in one(all_cases()["expert-ordinary"], slugs, stored=False))


def test_usual_inputs_are_those_of_every_op() -> None:
    """And their twins hold bfloat16 numbers."""
    usual, others = asked()
    assert {all_cases()[name].op for name, _ in usual} == {all_cases()[name].op for name, _ in usual + others}
    assert twin(all_cases()["gate-ordinary"]).inputs["x"].dtype.name == "bfloat16"


def test_rates_are_counted_apart() -> None:
    """Mutants and honest variants, usual inputs and all."""
    seen = [
        Noticed("a", usual=True, oracles=frozenset([TORCH])),
        Noticed("b", usual=False, oracles=frozenset([TORCH, FP8])),
        Noticed("split-k", usual=True, oracles=frozenset([TORCH])),
    ]
    made = {rate.oracle: rate for rate in rates(seen)}
    assert (made[TORCH].usual, made[TORCH].whole) == ({"a"}, {"a", "b"})
    assert (made[FP8].usual, made[FP8].whole, made[FP8].alarms) == (frozenset(), {"b"}, frozenset())
    assert made[TORCH].alarms == made[TORCH].alarms_on_all == {"split-k"}
    assert f"| {TORCH} | 1 (25%) | 1 of 13 | 2 (50%) | 1 of 13 |" in markdown(list(made.values()), 4)
