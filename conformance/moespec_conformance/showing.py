"""A check as it goes, on the terminal: a bar, the first failures at length, and at the end what came out."""

from collections.abc import Callable

import typer
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moespec_conformance.checking import Report
from moespec_conformance.diagnosis.command import brief
from moespec_conformance.diagnosis.diagnosis import Diagnosis
from moespec_conformance.expectations import Expectation, apply, stale
from moespec_conformance.protocol import BAD, Case, Result
from moespec_conformance.report.terminal import show
from moespec_conformance.report.writing import Reports

out, err = Console(highlight=False, soft_wrap=False), Console(stderr=True, highlight=False, soft_wrap=True)
MOST = 5  # failures shown at length


def bar(description: str, total: int) -> Progress:
    """A progress bar on stderr, with its one task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    made = Progress(*columns, console=err, transient=True)
    made.add_task(description, total=total)
    return made


def watch(
    progress: Progress, known: list[Expectation], reports: Reports, panel: Callable[[Result], Panel]
) -> Callable[[Case, Result], None]:
    """What to do with each result as it comes."""
    shown: list[str] = []

    def on_result(_: Case, result: Result) -> None:
        result = apply(result, known)
        progress.advance(progress.task_ids[0])
        reports.result(result)
        if result.status in (*BAD, "xpass"):
            shown.append(result.case)
            if len(shown) <= MOST:
                out.print(panel(result))

    return on_result


def finish(done: Report, known: list[Expectation], reports: Reports, found: Diagnosis | None, *, strict: bool) -> None:
    """Say what came out, and exit by it."""
    gone = stale(known, done.results)
    done.results[:] = [apply(result, known) for result in done.results]
    bad = sum(done.counts[status] for status in BAD)
    if bad > MOST:
        out.print(f"… and {bad - MOST} more: --report DIR keeps them all.")
    show(out, done)
    if found:
        out.print(brief(found))
    for line in gone:
        err.print(f"expected failure that excuses nothing: {line}", markup=False)
    code = done.exit_code
    code = 1 if strict and code == 0 and (gone or done.counts["xpass"]) else code
    reports.end(done, code, stale=gone, strict=strict)
    raise typer.Exit(code)
