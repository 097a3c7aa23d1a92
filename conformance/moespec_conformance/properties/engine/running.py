"""Trying a property on drawn inputs until it breaks; and then on ever smaller ones that break it, too."""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from hypothesis import Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from moespec_conformance.asking import Question, Reply
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judging import HAPPENED
from moespec_conformance.properties.engine.drawing import lowered
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial
from moespec_conformance.protocol import ARITHMETIC, Case, Result, Tensors
from moespec_conformance.runner import Runner

SLOW = ("timeout", "crashed")  # not shrunk: every attempt would take as long


class Unanswered(Exception):  # noqa: N818 - what came instead of an answer
    """The implementation gave no outputs."""

    def __init__(self, reply: Reply) -> None:
        """Keep what happened instead."""
        super().__init__(reply.message)
        self.reply = reply


@dataclass
class Seen:
    """What became of one trial, and of those before it."""

    trial: Trial | None = None
    status: str = "pass"
    message: str = ""
    answered: int = 0
    refused: list[str] = field(default_factory=list[str])  # why it was not supported


def asker(runner: Runner) -> Ask:
    """How a property asks."""

    def ask(case: Case) -> Tensors:
        reply = runner.ask(Question(case.op, dict(case.config), case.inputs, "plain"))
        if reply.happened != "answered":
            raise Unanswered(reply)
        return outputs_of(case, reply.outputs)

    return ask


def attempt(found: Property, runner: Runner, trial: Trial, seen: Seen) -> bool:
    """Whether a trial shows that the property does not hold; `seen` says what happened."""
    if seen.status in SLOW:
        return False
    try:
        found.holds(asker(runner), trial)
    except (Broken, Malformed) as broken:
        status, message = "fail", str(broken)
    except Unanswered as other:
        status, message = HAPPENED[other.reply.happened], other.reply.message
    else:
        seen.answered += 1
        return False
    if status == "not_supported":
        seen.refused.append(message)
        return False
    seen.trial, seen.status, seen.message = trial, status, message
    return status not in SLOW


def arithmetic_of(runner: Runner) -> str | None:
    """What the properties ask in: float32 if the implementation computes in it."""
    return next((name for name in ARITHMETIC if name in runner.arithmetic), None)


def search(found: Property, runner: Runner, examples: int, seed: int, *, shrink: bool = True) -> Seen:
    """Draw trials until one breaks the property, and shrink it; the same ones for the same seed."""
    arithmetic, seen = arithmetic_of(runner), Seen()
    if arithmetic is None:
        return Seen(refused=[f"{runner.name} computes in {', '.join(runner.arithmetic)}"])
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    how = settings(max_examples=examples, deadline=None, database=None, phases=phases)
    trials = found.trials(runner.profiles).map(partial(lowered, arithmetic=arithmetic))
    if trials.is_empty:
        return Seen(refused=["no model among its profiles has such rules"])
    try:
        find(trials, lambda trial: attempt(found, runner, trial, seen), settings=how, random=Random(seed))  # noqa: S311
    except NoSuchExample:
        pass
    except Flaky:
        seen.message += " (and not always: the same question was answered otherwise later)"
    return seen


def searched(found: Property, runner: Runner, examples: int, seed: int) -> tuple[Result, Trial | None]:
    """The result of a search, and the smallest trial that breaks the property, if one does."""
    start = time.perf_counter()
    seen = search(found, runner, examples, seed)
    seconds = round(time.perf_counter() - start, 4)
    return result_of(found, seen, arithmetic_of(runner) or "float32", seconds), seen.trial


def tried(found: Property, runner: Runner, trial: Trial) -> Result:
    """The result of one trial."""
    start, seen = time.perf_counter(), Seen()
    attempt(found, runner, trial, seen)
    return result_of(found, seen, trial.case.arithmetic, round(time.perf_counter() - start, 4))


def result_of(found: Property, seen: Seen, arithmetic: str, seconds: float) -> Result:
    """What was seen, as a result."""
    status, message = seen.status, seen.message
    if status == "pass" and not seen.answered:
        status, message = "not_supported", seen.refused[0] if seen.refused else "nothing could be drawn"
    elif status == "pass" and seen.refused:
        asked = seen.answered + len(seen.refused)
        message = f"{len(seen.refused)} of {asked} inputs not supported: {seen.refused[0]}"
    named = Result(f"property-{found.name}", found.ops[0], found.clauses, status, "property")
    return replace(named, message=message, arithmetic=arithmetic, seconds=seconds)
