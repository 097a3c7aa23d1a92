"""Properties: two implementations have them all, each catches a bug, and what breaks one is small, printed and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from caught import bug_of
from meddling import MEDDLERS, Meddled
from planted import variants
from planted.honest import Honest

from moespec.signatures import OPS
from moespec_conformance.adapters.plain import Adapter as Plain
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.adapters.reference import compute
from moespec_conformance.address import Usage
from moespec_conformance.asking import Question, Reply
from moespec_conformance.cases.inputs import config
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.adapter import Adapter as Mutant
from moespec_conformance.properties import PROPERTIES, replay, run_properties
from moespec_conformance.properties.engine.keeping import kept_trial
from moespec_conformance.properties.engine.literals import literal, snippet
from moespec_conformance.properties.engine.running import search
from moespec_conformance.protocol import NotSupported
from moespec_conformance.runner import InProcess
from moespec_conformance.spec import clauses

SMALL = 4  # of any side of a counterexample
# shrunk with care, one of each kind: a mutant, and a property that it breaks
SHRUNK = {
    "gate-bias-in-weights": "gate-bias-moves-the-choice-only",
    "layer-dx-without-router": "moe-backward-is-adjoint",
    "dispatch-latest-first": "dispatch-rows-are-copies",
    "fp8-cast-truncates": "quantize-within-half-a-step",
}


def runner_of(bug: str) -> InProcess:
    """An implementation with a bug."""
    return InProcess(Meddled(MEDDLERS[bug]) if bug in MEDDLERS else Mutant(bug))


@pytest.mark.parametrize("adapter", [Reference, Plain], ids=["reference", "plain"])
@pytest.mark.parametrize("name", PROPERTIES)
def test_right_implementations_have_it(name: str, adapter: type[Any]) -> None:
    """Two implementations that share no code."""
    seen = search(PROPERTIES[name], InProcess(adapter), 3, 0)
    assert (seen.status, seen.message) == ("pass", "")
    assert seen.answered


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_catches_a_bug(name: str) -> None:
    """A property that nothing breaks is none.

    It ends with the first example that shows the bug. How many that takes depends on what else is loaded: hypothesis
    draws constants of the modules that it finds, too.
    """
    with np.errstate(all="ignore"):
        seen = search(PROPERTIES[name], runner_of(bug_of(name)), 500, 0, shrink=False)
    assert seen.status == "fail", bug_of(name)


@pytest.mark.parametrize("adapter", [Honest, variants.Float64, variants.Split, variants.SlotsById])
def test_honest_variants_have_it(adapter: type[Honest]) -> None:
    """Other orders of sums and slots, and more digits, break nothing."""
    for name in ("gate-any-order-of-tokens", "moe-in-parts-by-tokens", "moe-is-its-parts", "moe-backward-is-linear"):
        assert search(PROPERTIES[name], InProcess(adapter), 3, 1).status == "pass"


def test_bfloat16_is_asked_in_bfloat16() -> None:
    """An implementation that computes in bfloat16 gets such numbers, and its own bounds."""
    for name in ("expert-in-parts-by-rows", "moe-any-order-of-neurons", "expert-backward-is-adjoint"):
        (result,) = run_properties(InProcess(variants.BFloat16), [name], examples=8)
        assert (result.status, result.arithmetic) == ("pass", "bfloat16"), result.message


def test_every_property_is_about_clauses_and_ops() -> None:
    """What it names exists."""
    for found in PROPERTIES.values():
        assert set(found.clauses) <= set(clauses())
        assert set(found.ops) <= set(OPS)
        assert found.clauses
        assert found.ops
    assert {bug_of(name) for name in PROPERTIES} <= {*MUTANTS, *MEDDLERS}


@pytest.mark.parametrize("bug", SHRUNK)
def test_what_breaks_it_is_small_printed_and_kept(
    bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder fails again, and so does the script, with the same words; a right implementation passes both."""
    name, runner = SHRUNK[bug], runner_of(bug)
    (result,) = run_properties(runner, [name], examples=60, save=tmp_path)
    (folder,) = tmp_path.iterdir()
    _, trial = kept_trial(folder)
    assert result.status == "fail"
    assert max(size for tensor in trial.case.inputs.values() for size in (*tensor.shape, 0)) <= SMALL
    says = result.message.splitlines()[0]
    assert replay(folder, runner).message.startswith(says)
    assert replay(folder, InProcess(Reference)).status == "pass"

    def load(address: str) -> object:
        return Mutant(bug) if address == "the-bug" else Reference()

    monkeypatch.setattr("moespec_conformance.address.load", load)
    for address, words in (("the-bug", says), ("reference", "holds")):
        exec(snippet(name, trial, address), {})  # noqa: S102 - our own script
        assert capsys.readouterr().out.startswith(words)


def test_what_is_kept_is_tried_first(tmp_path: Path) -> None:
    """The next run needs to draw nothing; another property is not concerned."""
    name = SHRUNK["gate-bias-in-weights"]
    run_properties(runner_of("gate-bias-in-weights"), [name], examples=60, save=tmp_path)
    (folder,) = tmp_path.iterdir()
    again, other = run_properties(
        runner_of("gate-bias-in-weights"), [name, "dispatch-rows-are-copies"], examples=1, save=tmp_path
    )
    assert (again.status, other.status) == ("fail", "pass")
    assert again.message.endswith(f"kept in {folder}")
    (gone,) = run_properties(InProcess(Reference), [name], examples=2, save=tmp_path)
    assert gone.status == "pass"


def test_a_folder_of_no_property_is_refused(tmp_path: Path) -> None:
    """A case of the corpus, say."""
    run_properties(runner_of("dispatch-latest-first"), ["dispatch-rows-are-copies"], save=tmp_path)
    (folder,) = tmp_path.iterdir()
    prompt = folder / "prompt.json"
    prompt.write_text(prompt.read_text().replace("dispatch-rows-are-copies", "none"))
    with pytest.raises(Usage, match="no property"):
        replay(folder, InProcess(Reference))


def test_the_same_seed_draws_the_same() -> None:
    """So a failure is the same one tomorrow."""
    bug, name = "dispatch-latest-first", "dispatch-rows-are-copies"
    first, second = (run_properties(runner_of(bug), [name], seed=3)[0] for _ in range(2))
    assert first.status == "fail"
    assert first.message == second.message


class Refusing:
    """Only DeepSeek-V3's rules, only some shapes; says what it was asked."""

    name, version = "refusing", "1"
    profiles = ("deepseek-v3",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self.asked: list[dict[str, Any]] = []

    def gate(self, config: dict[str, Any], **tensors: Any) -> dict[str, Any]:
        """Route, if the width is even."""
        self.asked.append(config)
        if config["hidden_size"] % 2:
            raise NotSupported("an odd width")
        return compute("gate", config, **tensors)


def test_only_what_its_profiles_promise_is_asked() -> None:
    """DeepSeek-V3's rules at any size; what is not supported is counted, and never a pass."""
    adapter = Refusing()
    names = ["gate-any-order-of-experts", "moe-in-parts-by-tokens", "router-shares-are-the-scale"]
    asked, no_method, no_router = run_properties(InProcess(adapter), names, examples=20)
    assert asked.status == "pass"
    assert "inputs not supported: an odd width" in asked.message
    assert [r.status for r in (no_method, no_router)] == ["not_supported"] * 2
    rules = config()
    for field in ("scoring_func", "norm_topk_prob", "selection_bias", "routed_scaling_factor", "hash_routing"):
        assert {said[field] for said in adapter.asked} == {rules[field]}


def forgetful() -> Callable[..., Any]:
    """Wrong once, and right ever after."""
    calls: list[int] = []

    def answer(op: str, cfg: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        out = compute(op, cfg, **tensors)
        return {**out, "topk_weight": out["topk_weight"] + 1} if len(calls) == 11 else out

    return answer


def test_an_answer_that_changes_is_a_failure() -> None:
    """Though it cannot be shown again."""
    (result,) = run_properties(InProcess(Meddled(forgetful())), ["gate-scale-is-a-factor"], examples=30)
    assert result.status == "fail"
    assert "not always" in result.message


class Hanging(InProcess):
    """Never answers."""

    asked = 0

    def ask(self, question: Question) -> Reply:
        """Count the question."""
        del question
        self.asked += 1
        return Reply("timeout", message="no answer within 60 s")


def test_a_hang_is_not_shrunk() -> None:
    """Each attempt would take as long again."""
    runner = Hanging(Reference)
    (result,) = run_properties(runner, ["gate-scale-is-a-factor"], examples=30)
    assert (result.status, runner.asked) == ("timeout", 1)


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32),
        np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4028235e38], np.float32),
        np.array(0.1, np.float32),
        np.zeros((0, 3), np.float32),
        np.arange(1200).reshape(2, 600),
        np.array([True, False]),
        np.array([0.1, 3], ml_dtypes.bfloat16),
        np.array([[0.1, 448]], ml_dtypes.float8_e4m3fn),
        np.array([0.5, 4], ml_dtypes.float8_e8m0fnu),
    ],
    ids=str,
)
def test_literals_are_the_same_bits(array: Any) -> None:
    """What is printed and pasted is what was there."""
    again = eval(literal(array), {"np": np, "ml_dtypes": ml_dtypes})  # noqa: S307 - our own words
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()
