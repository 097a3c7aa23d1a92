"""Checking an implementation: choose the cases, ask, judge, report."""

import fnmatch
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from moespec.signatures import OPS
from moespec_conformance.address import Usage
from moespec_conformance.asking import Question, Reply
from moespec_conformance.case_folder import case_from, folder_of
from moespec_conformance.cases import FLOOR, PROFILES, all_cases
from moespec_conformance.cases.inputs import in_bfloat16
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judge.relation import relate
from moespec_conformance.judge.verdict import decided, examine
from moespec_conformance.protocol import DEFAULT, Case, NotSupported, Result, Tensors
from moespec_conformance.runner import InProcess, Runner
from moespec_conformance.tracing import steps, told

JUDGED = ("pass", "quality_warning", "rejected_ok", "xpass")  # judged, and right
SMOKE = ("expert-one-row", "gate-one-token", "moe-one-token")


class Damaged(Exception):  # noqa: N818 - of the suite, exit code 4
    """The suite itself is not whole."""


@dataclass(frozen=True)
class Report:
    """Every result of one run. `ok`: nothing failed, and something passed."""

    name: str
    version: str
    profiles: tuple[str, ...]
    arithmetic: tuple[str, ...]
    quick: bool
    whole: bool
    results: list[Result] = field(default_factory=list[Result])

    @property
    def counts(self) -> Counter[str]:
        """How many results have each status."""
        return Counter(result.status for result in self.results)

    @property
    def ok(self) -> bool:
        """No fail, error or timeout, and at least one pass."""
        bad = self.counts["fail"] + self.counts["error"] + self.counts["timeout"]
        return bad == 0 and sum(self.counts[status] for status in JUDGED) > 0

    @property
    def claimed(self) -> bool:
        """The profiles' whole set was run, and all of it passed: nothing left out as not supported."""
        return self.ok and self.whole and not any(self.counts[s] for s in ("not_supported", "xfail", "waived"))

    @property
    def exit_code(self) -> int:
        """1 if anything failed, else 3 if anything could not be judged, else 5 if nothing was, else 0."""
        if self.counts["fail"]:
            return 1
        if self.counts["error"] + self.counts["timeout"]:
            return 3
        return 0 if self.ok else 5


def selected(
    profiles: Sequence[str], arithmetic: Sequence[str], ops: Iterable[str] | None, pattern: str = "*", *, quick: bool
) -> list[Case]:
    """The cases to run: of these profiles, arithmetics and ops; pattern is a glob on the case's id, or a folder."""
    for profile in profiles:
        if profile not in PROFILES:
            raise Usage(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
        held = sum(profile in case.profiles for case in all_cases().values())
        if held < FLOOR[profile]:
            raise Damaged(f"profile {profile} holds {held} cases, fewer than the {FLOOR[profile]} it must")
    wanted = None if ops is None else set(ops)
    if wanted is not None and wanted - set(OPS):
        raise Usage(f"no op {', '.join(sorted(wanted - set(OPS)))}; there are {', '.join(OPS)}")
    if folder := folder_of(pattern):
        one = case_from(folder)
        return [one] if one.arithmetic in arithmetic and (wanted is None or one.op in wanted) else []
    return [
        case
        for case in all_cases().values()
        if set(case.profiles) & set(profiles)
        and case.arithmetic in arithmetic
        and (wanted is None or case.op in wanted)
        and (case.quick or not quick)
        and fnmatch.fnmatch(case.id, pattern)
    ]


def judged(case: Case, runner: Runner, *, trace: bool = False) -> Result:
    """Ask one case and judge the answer, perhaps with every step on the way to it."""
    start = time.perf_counter()
    try:
        result = ASKED.get(case.kind, followed if trace else answered)(case, runner)
    except Malformed as wrong:
        result = made(case, "fail", wrong.kind, stage=wrong.stage, message=str(wrong))
    return replace(result, seconds=round(time.perf_counter() - start, 4))


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
        instead = "it was computed" if reply.happened == "answered" else reply.message.splitlines()[0]
        return made(case, "fail", "reject", message=f"must raise ValueError, but {instead}")
    twin = ask(case.good, runner, case.good.inputs) if case.good else reply
    if twin.happened == "answered":
        return made(case, "rejected_ok", "reject", message=reply.message)
    says = f"refused, and so is good input ({twin.happened}: {twin.message.splitlines()[0]}): this proves nothing"
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


def smoke(runner: Runner) -> str | None:
    """Is the harness right at all? The reason why not, if no simple case can be asked."""
    coarse = "float32" not in runner.arithmetic
    cases = [all_cases()[name] for name in SMOKE]
    replies = [ask(case, runner, in_bfloat16(case.inputs) if coarse else case.inputs) for case in cases]
    if any(reply.happened == "answered" for reply in replies):
        return None
    if all(reply.happened == "not_supported" for reply in replies):
        return None
    return next(reply.message for reply in replies if reply.happened != "not_supported")


def one_by_one(cases: Sequence[Case], runner: Runner, *, trace: bool = False) -> Generator[Result]:
    """Judge case after case."""
    for case in cases:
        yield judged(case, runner, trace=trace)


def run(  # noqa: PLR0913 - the options of a run
    runner: Runner,
    profiles: Sequence[str] = (DEFAULT,),
    ops: Iterable[str] | None = None,
    pattern: str = "*",
    *,
    quick: bool = False,
    on_result: Callable[[Case, Result], None] | None = None,
    judge: Callable[[Sequence[Case]], Generator[Result]] | None = None,
) -> Report:
    """Run the selected cases against a runner; `judge` gives their results in another way than one by one."""
    cases = selected(profiles, runner.arithmetic, ops, pattern, quick=quick)
    report = Report(
        *(runner.name, runner.version, tuple(profiles), runner.arithmetic, quick),
        whole=ops is None and pattern == "*" and not quick,
    )
    with closing(judge(cases) if judge else one_by_one(cases, runner)) as results:
        for case, result in zip(cases, results, strict=True):
            report.results.append(result)
            if on_result:
                on_result(case, result)
    return report


def check(
    adapter: Any,  # noqa: ANN401 - any object is an adapter
    profile: str | Sequence[str] | None = None,
    ops: Iterable[str] | None = None,
    quick: bool = False,  # noqa: FBT001, FBT002 - the published signature
    *,
    trace: bool = False,
) -> Report:
    """Check an adapter object in this process (no time limit; a crash is ours): a Report with .ok and .results.

    profile: one name or several; None means the profiles the adapter declares, else deepseek-v3.
    ops: only these ops. quick: leave out the few slow cases. trace: compare every step that the adapter names.
    """
    runner = InProcess(adapter)
    asked = runner.profiles if profile is None else profile
    profiles = (asked,) if isinstance(asked, str) else tuple(asked)
    return run(runner, profiles, ops, quick=quick, judge=partial(one_by_one, runner=runner, trace=trace))
