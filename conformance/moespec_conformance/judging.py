"""One case: ask, and judge what comes back."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moespec_conformance.asking import Question, Reply
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judge.relation import relate
from moespec_conformance.judge.verdict import decided, examine
from moespec_conformance.protocol import Case, NotSupported, Result, Tensors
from moespec_conformance.runner import Runner
from moespec_conformance.tracing import steps, told


def judged(case: Case, runner: Runner, *, trace: bool = False) -> Result:
    """Ask one case and judge the answer, perhaps with every step on the way to it."""
    start = time.perf_counter()
    result = well_formed(case, lambda: ASKED.get(case.kind, followed if trace else answered)(case, runner))
    return replace(result, seconds=round(time.perf_counter() - start, 4))


def judgement(case: Case, reply: Reply) -> Result:
    """Judge an answer that was given to an ordinary case."""
    return well_formed(case, lambda: verdict(case, reply))


def well_formed(case: Case, judge: Callable[[], Result]) -> Result:
    """A verdict, or that the answer is none."""
    try:
        return judge()
    except Malformed as wrong:
        return made(case, "fail", wrong.kind, stage=wrong.stage, message=str(wrong))


def ask(case: Case, runner: Runner, inputs: Tensors) -> Reply:
    """Put the case's question."""
    manner = "plain" if case.kind == "relation" else case.manner
    return runner.ask(Question(case.op, dict(case.config), inputs, manner))


def made(case: Case, status: str, kind: str, **more: Any) -> Result:  # noqa: ANN401 - fields of Result
    """A result of this case."""
    return Result(case.id, case.op, case.clauses, status, kind, arithmetic=case.arithmetic, **more)


# what a reply means that is no answer; a refusal is an error unless the case asks for it
HAPPENED = {
    "not_supported": "not_supported",
    "mutated": "fail",
    "unreadable": "fail",
    "overwritten": "fail",
    "timeout": "timeout",
    "crashed": "error",
    "raised": "error",
    "refused": "error",
}
KINDS = {"unreadable": "shape", "refused": "raised"}


def answered(case: Case, runner: Runner) -> Result:
    """The usual way: one question, one answer."""
    return verdict(case, ask(case, runner, case.inputs))


def followed(case: Case, runner: Runner) -> Result:
    """The same, with every step that the answer names."""
    reply = ask(case, runner, case.inputs)
    if reply.happened in HAPPENED:
        return verdict(case, reply)
    walked = steps(case, reply.outputs)
    result = found_of(case, *decided(case, walked))
    return replace(result, trace=told(case, walked)) if result.status == "fail" else result


def rejection(case: Case, runner: Runner) -> Result:
    """A must-reject input: a ValueError is right, if the good input it was made of is answered."""
    reply = ask(case, runner, case.inputs)
    if reply.happened not in ("refused", "answered", "raised", "unreadable"):
        return verdict(case, reply)
    if reply.happened != "refused":
        instead = "it was computed" if reply.happened == "answered" else reply.brief
        return made(case, "fail", "reject", message=f"must raise ValueError, but {instead}")
    twin = ask(case.good, runner, case.good.inputs) if case.good else reply
    if twin.happened == "answered":
        return made(case, "rejected_ok", "reject", message=reply.message)
    says = f"refused, and so is good input ({twin.happened}: {twin.brief}): this proves nothing"
    return made(case, "not_supported" if twin.happened == "not_supported" else "error", "reject", message=says)


def verdict(case: Case, reply: Reply) -> Result:
    """What a reply means for a case."""
    happened, outputs, message = reply
    if happened in HAPPENED:
        kind = case.kind if happened in ("not_supported", "timeout") else KINDS.get(happened, happened)
        return made(case, HAPPENED[happened], kind, message=message)
    found, stage = examine(case, outputs_of(case, outputs))
    return found_of(case, found, stage)


def found_of(case: Case, found: Finding, stage: str | None) -> Result:
    """A finding as a result."""
    margin = found.ratio if found.margin is None else found.margin
    more = {"error_over_bound": found.ratio, "margin": margin if found.status == "fail" else None}
    return made(case, found.status, found.kind, **more, stage=stage, message=found.message)


def relation(case: Case, runner: Runner) -> Result:
    """A relation asks more than once."""
    stopped: list[Reply] = []

    def run(inputs: Tensors) -> object:
        reply = ask(case, runner, inputs)
        if reply.happened != "answered":
            stopped.append(reply)
            raise NotSupported(reply.message)
        return reply.outputs

    try:
        found, stage = relate(case, run)
    except NotSupported:
        return verdict(case, stopped[-1])
    return found_of(case, found, stage)


ASKED = {"relation": relation, "reject": rejection}
