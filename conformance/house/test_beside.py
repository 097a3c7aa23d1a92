"""Beside others: who is absent is named, who computes another layer is refused, and what a row says."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from moespec_conformance.bench import beside
from moespec_conformance.bench.layers import Shape

TINY = Shape(T=6, H=8, F=4, E=4, K=2)
ROWS = {"case", "seconds", "ratios", "goals", "absent", "load"}


def tiny(**contenders: Callable[[beside.Task], beside.Calls]) -> list[dict[str, Any]]:
    """Both rows of a tiny layer beside these."""
    return list(beside.rows([TINY], 1, contenders))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No four seconds of CPU a row."""
    monkeypatch.setattr(beside, "compare", partial(beside.compare, seconds=0))


def test_a_row_has_a_ratio_for_each_round() -> None:
    """`plain` runs in both directions, ours with new gradients in one."""
    forward, both = tiny(plain=beside.plain, allocating=beside.ours_allocating)
    assert [row["case"] for row in (forward, both)] == [f"{TINY} forward", f"{TINY} forward and backward"]
    assert set(forward) == set(both) == ROWS
    assert {name: len(found["rounds"]) for name, found in both["ratios"].items()} == {"plain": 1, "allocating": 1}
    assert forward["ratios"].keys() == {"plain"}
    assert forward["absent"] == {"allocating": "forward there are no gradients"}
    assert both["absent"] == {}
    assert both["seconds"] > 0
    assert all(found["ratio"] > 0 for row in (forward, both) for found in row["ratios"].values())


def uninstalled(_: beside.Task) -> beside.Calls:
    """What is not there."""
    raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


def broken(_: beside.Task) -> beside.Calls:
    """What is there, and fails when it is set up."""
    raise RuntimeError("no such device\nand more of it")


def failing(_: beside.Task) -> beside.Calls:
    """What fails when it is called."""

    def call() -> object:
        raise AssertionError("group should not be None")

    return {"forward": call, "forward and backward": "no backward"}


def test_who_is_absent_is_named_with_the_reason() -> None:
    """In one line each, in the direction that is missing."""
    forward, both = tiny(uninstalled=uninstalled, broken=broken, failing=failing)
    same = {
        "uninstalled": "not installed (no module nowhere)",
        "broken": "cannot run here: RuntimeError: no such device",
    }
    assert forward["absent"] == {**same, "failing": "cannot run here: AssertionError: group should not be None"}
    assert both["absent"] == {**same, "failing": "no backward"}
    assert forward["ratios"] == both["ratios"] == {}


def test_plain_is_left_out_where_it_takes_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size of the layer, with its reason."""
    monkeypatch.setattr(beside, "PLAIN_PRODUCTS", 1)
    assert [set(row["absent"]) for row in tiny(plain=beside.plain)] == [{"plain"}, {"plain"}]


def said(change: Callable[[dict[str, Any]], object]) -> Callable[[beside.Task], beside.Calls]:
    """Ours, but for a change in what it says."""

    def contender(given: beside.Task) -> beside.Calls:
        ours = beside.ours(given.layer)

        def both() -> object:
            answer: Any = ours["forward and backward"]()
            answer = {name: a.copy() for name, a in answer.items()}
            change(answer)
            return answer

        return {"forward": ours["forward"], "forward and backward": both}

    return contender


def join(answer: dict[str, Any]) -> None:
    """The gradients of gate_proj and up_proj in one, an expert after another; others in lists."""
    gate_up = np.concatenate([answer.pop("dgate_proj"), answer.pop("dup_proj")], axis=1)
    answer.update(dgate_up_proj=list(gate_up), dgate_weight=[answer["dgate_weight"]])


def test_gradients_may_be_joined_and_in_lists() -> None:
    """As others hold their parameters."""
    assert [row["ratios"].keys() for row in tiny(joined=said(join))] == [{"joined"}, {"joined"}]


@pytest.mark.parametrize("name", ["y", "dx", "dgate_weight", "dgate_proj", "dup_proj", "ddown_proj"])
@pytest.mark.parametrize("number", [1e3, np.nan])
def test_another_layer_is_refused(name: str, number: float) -> None:
    """One wrong number anywhere; one that is none too."""
    with pytest.raises(ValueError, match=f"wrong computes another layer: {name} is off"):
        tiny(wrong=said(lambda answer: np.put(answer[name], -1, number)))


def test_what_cannot_be_compared_is_refused() -> None:
    """A gradient that is not said, and one that lacks an expert."""
    with pytest.raises(ValueError, match="short: ddown_proj cannot be compared"):
        tiny(short=said(lambda answer: answer.pop("ddown_proj")))
    with pytest.raises(ValueError, match="short: ddown_proj has 3 parts, not 4"):
        tiny(short=said(lambda answer: answer.update(ddown_proj=answer["ddown_proj"][1:])))


def test_goals_are_of_torch_s_own() -> None:
    """More room where single tokens are decoded; autograd only where there are many."""
    few, many = TINY, TINY._replace(T=64)
    assert beside.goals(many, "forward") == {"transformers": 1.25}
    assert beside.goals(few, "forward") == {"transformers": 1.7}
    assert beside.goals(many, "forward and backward") == {"torch loop": 1.15, "torch grouped": 1.15}
    assert beside.goals(few, "forward and backward") == {}


def test_versions_are_of_what_is_installed() -> None:
    """The reference's own among them."""
    assert {"moespec", "numpy"} <= beside.versions().keys() <= set(beside.PACKAGES)
