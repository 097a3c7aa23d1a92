"""Checking an implementation: choose the cases, judge each, report."""

import fnmatch
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from moespec.signatures import OPS
from moespec_conformance.address import Usage
from moespec_conformance.case_folder import case_from, folder_of
from moespec_conformance.cases import FLOOR, PROFILES, all_cases
from moespec_conformance.cases.inputs import in_bfloat16
from moespec_conformance.judging import ask, judged
from moespec_conformance.protocol import DEFAULT, Case, Result
from moespec_conformance.runner import InProcess, Runner

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
