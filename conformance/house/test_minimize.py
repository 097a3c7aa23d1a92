"""Smaller cases: they fail as the first did, the reference passes them, and nothing in them is a matter of rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_check import EXAMPLES, moespec

from moespec.config import MoEConfig
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.adapters.reference import compute
from moespec_conformance.address import Usage, load
from moespec_conformance.case_folder import case_from
from moespec_conformance.cases import all_cases
from moespec_conformance.judge.doubt import sure
from moespec_conformance.judging import judged
from moespec_conformance.minimize import minimized
from moespec_conformance.minimize.cutting import renumbered, slices, without
from moespec_conformance.minimize.search import Search, halve, thin, varied
from moespec_conformance.minimize.simpler import short
from moespec_conformance.mutants.adapter import Adapter as Mutant
from moespec_conformance.protocol import Case, Tensors
from moespec_conformance.runner import InProcess


class BlackBox:
    """A layer that shows its sum alone, with a bug."""

    name, version = "black box", "1"

    def __init__(self, slug: str) -> None:
        """Take a mutant's name."""
        self.mutant = Mutant(slug)

    def moe(self, config: dict[str, Any], **tensors: Any) -> Tensors:
        """Answer y, and nothing else."""
        return {"y": self.mutant.moe(config, **tensors)["y"]}


def small(adapter: Any, name: str) -> Case:
    """The smallest case found, which must fail at the same stage and be passed by the reference."""
    runner, start = InProcess(adapter), all_cases()[name]
    with np.errstate(all="ignore"):
        first, case = judged(start, runner), minimized(start, runner).case
        again = judged(case, runner)
        assert judged(case, InProcess(Reference())).status == "pass"
    assert (again.status, again.stage) == (first.status, first.stage)
    return case


def numbers(case: Case) -> int:
    """How many numbers its tensors hold."""
    return sum(tensor.size for tensor in case.inputs.values())


@pytest.mark.parametrize(
    ("slug", "name", "most"),
    [
        ("gate-group-max", "gate-ordinary", 9),
        ("gate-no-renorm", "gate-ordinary", 6),
        ("gate-mask-zero", "gate-bias-minus-one", 12),
        ("hash-chooses-by-scores", "gate-deepseek-v4-flash-hash", 6),
        ("expert-choice-normalised", "gate-expert-choice-logits-plus-90", 6),
        ("expert-gate-up-swapped", "expert-ordinary", 6),
        ("combine-unweighted", "combine-ordinary", 6),
        ("layout-padding-as-own-expert", "layout-contiguous-ordinary", 4),
        ("fp8-outer-sum-bfloat16", "matmul-fp8-ordinary", 8),
        ("fp8-scale-nearest", "quantize-ue8m0-ordinary", 2),
        ("moments-truncated", "adamw-bfloat16-ordinary", 6),
    ],
)
def test_bugs_need_few_numbers(slug: str, name: str, most: int) -> None:
    """One token, one column, and no more experts than the bug takes."""
    assert numbers(small(Mutant(slug), name)) <= most


def test_a_layer_shrinks_to_one_token_and_four_experts() -> None:
    """Two groups of two: the fewest in which the best one and the best two disagree."""
    case = small(Mutant("gate-group-max"), "moe-ordinary")
    assert case.inputs["x"].shape == (1, 1)
    wanted = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "n_shared_experts": 0, "moe_intermediate_size": 1}
    assert wanted.items() <= case.config.items()
    assert case.cfg == MoEConfig.from_dict(case.config)


def test_a_black_box_keeps_a_routing_without_doubt() -> None:
    """Judged by y alone, which is only right if no rounding may change the choice."""
    case = small(BlackBox("gate-group-max"), "moe-ordinary")
    assert numbers(case) <= 30
    assert sure(case)
    inputs = {**case.inputs, **{n: np.zeros_like(case.inputs[n]) for n in ("gate_weight", "bias")}}
    assert not sure(varied(case, {**case.config}, inputs))  # all are equal


def test_the_example_shrinks_to_its_bug(tmp_path: Path) -> None:
    """The folder that is written is a case: it fails there, and the reference passes it."""
    example, folder = str(EXAMPLES / "buggy_gate.py"), str(tmp_path / "small")
    done = moespec("minimize", example, "--case", "gate-bias-minus-one", "--out", folder)
    assert done.returncode == 0
    assert "bias (2,) float32 = [" in done.stdout
    assert "T 128 → 1" in done.stdout
    assert "first wrong stage  topk_weight" in done.stdout
    case = case_from(Path(folder))
    assert (case.id, numbers(case)) == ("gate-bias-minus-one-minimal", 5)
    assert judged(case, InProcess(load(example))).stage == "topk_weight"
    assert moespec("check", "--case", folder).returncode == 0
    assert moespec("check", example, "--case", folder).returncode == 1


def test_only_a_failure_can_be_made_smaller() -> None:
    """And only of a case that has one answer."""
    assert moespec("minimize", "reference", "--case", "gate-one-token").returncode == 2
    assert moespec("minimize", "reference", "--case", "gate-one-tokens").returncode == 2
    relation = next(case for case in all_cases().values() if case.kind == "relation")
    with pytest.raises(Usage, match="relation"):
        minimized(relation, InProcess(Reference()))


def test_what_is_exact_by_promise_loses_tokens_alone() -> None:
    """Ties are ties of these numbers."""
    start, case = all_cases()["ties-all-equal"], small(Mutant("gate-tie-higher"), "ties-all-equal")
    assert case.kind == "selection"
    assert len(case.inputs["x"]) == 1
    np.testing.assert_array_equal(case.inputs["weight"], start.inputs["weight"])


def test_experts_that_are_named_stay() -> None:
    """Others get new numbers."""
    np.testing.assert_array_equal(renumbered(np.array([[4, -1], [7, 4]]), [2, 4, 7]), [[1, -1], [2, 1]])
    with pytest.raises(ValueError, match="named"):
        renumbered(np.array([[4, 3]]), [2, 4, 7])
    case = all_cases()["dispatch-ordinary"]
    assert without(case, "E", [0, 1]) is None


def test_rows_go_with_their_tokens() -> None:
    """A combine without the other tokens is still the reference's."""
    case = without(all_cases()["combine-ordinary"], "T", [3, 5])
    assert case
    assert set(np.unique(case.inputs["row_token"])) <= {-1, 0, 1}
    assert judged(case, InProcess(Reference())).status == "pass"


def test_blocks_and_bytes_stay_whole() -> None:
    """What shares a scale goes together with it, unless all that is left shares one; a byte of E2M1 goes as a pair."""
    cfg = MoEConfig.from_dict({**all_cases()["moe-fp8-ordinary"].config, "b_block": [2, 4], "b_format": "e2m1"})
    assert slices(cfg, "H/b1", "H", [0, 1, 2, 3, 8, 9]) == [0, 2]
    assert slices(cfg, "H/b1", "H", [5]) == [1]
    assert slices(cfg, "H:b", "H", [0, 1, 4, 5]) == [0, 2]
    assert slices(cfg, "H:b", "F", [0]) is None
    for token, kept in (("H/b1", [0, 1, 2, 4]), ("H:b", [0, 1, 2]), ("H:b", [1, 2])):
        with pytest.raises(ValueError, match="blocks"):
            slices(cfg, token, "H", kept)


def searched(needed: set[int], count: int) -> tuple[Search, list[int]]:
    """A search in which a case fails as long as it holds what is needed."""
    case = varied(all_cases()["gate-one-token"], {}, {"kept": np.arange(count)})
    search = Search(case, lambda _: True, lambda c: needed <= set(c.inputs["kept"].tolist()), lambda _: None)
    thin(search, [(i,) for i in range(count)], lambda kept: [None, varied(case, {}, {"kept": np.array(kept)})])
    return search, search.case.inputs["kept"].tolist()


@pytest.mark.parametrize("needed", [{0}, {63}, {5, 40}, {0, 31, 32, 63}], ids=str)
def test_thinning_finds_what_is_needed(needed: set[int]) -> None:
    """By halves: far fewer questions than there are units."""
    search, kept = searched(needed, 64)
    assert set(kept) == needed
    assert search.tried <= 16 * len(needed)


def test_halving_changes_all_that_may_be_changed() -> None:
    """Of eight numbers the fifth must stay."""
    start = np.arange(1.0, 9.0)
    case = varied(all_cases()["gate-one-token"], {}, {"x": start})
    search = Search(case, lambda _: True, lambda c: c.inputs["x"][4] == start[4], lambda _: None)

    def changing(chunk: Any) -> Case:
        held = search.case.inputs["x"].copy()
        held[chunk] = 0
        return varied(case, {}, {"x": held})

    halve(search, np.arange(8), changing)
    np.testing.assert_array_equal(search.case.inputs["x"], [0, 0, 0, 0, 5, 0, 0, 0])


def test_short_numbers() -> None:
    """A power of two, or few digits; zero stays."""
    np.testing.assert_array_equal(short(np.array([0, 0.7, -3.1, 5.0]), 1), [0, 0.5, -4, 4])
    np.testing.assert_array_equal(short(np.array([0.7, -3.1, 5.0]), 3), [0.75, -3, 5])


def test_a_refusal_of_legal_input_can_be_made_smaller() -> None:
    """A status of its own: an error, not a wrong number."""

    class Refuses(Reference):
        def gate(self, config: dict[str, Any], **tensors: Any) -> Tensors:
            if len(tensors["x"]) > 2:
                raise ValueError("too many tokens")
            return compute("gate", config, **tensors)

    runner = InProcess(Refuses())
    case = minimized(all_cases()["gate-ordinary"], runner).case
    assert (case.inputs["x"].shape, judged(case, runner).status) == ((3, 1), "error")
