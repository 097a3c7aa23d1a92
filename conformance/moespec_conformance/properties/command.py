"""`moespec properties`: what must be true of any implementation's own answers, on inputs that are drawn."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moespec_conformance.address import Usage
from moespec_conformance.program import started
from moespec_conformance.properties import PROPERTIES, run_properties
from moespec_conformance.protocol import BAD, Result

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
KEPT = Path(".moespec") / "counterexamples"


def properties(  # noqa: PLR0913, PLR0917 - one parameter an option
    impl: Annotated[str, typer.Argument(help="As for `moespec check`.")] = "reference",
    only: Annotated[str, typer.Option(help="Only properties whose name matches this glob.")] = "*",
    examples: Annotated[int, typer.Option(min=1, help="Inputs drawn for each property.")] = 50,
    seed: Annotated[int, typer.Option(help="The same inputs for the same seed.")] = 0,
    save: Annotated[Path, typer.Option(help="Keep counterexamples here; what is kept is tried first.")] = KEPT,
    timeout: Annotated[float, typer.Option(help="Seconds for one question.")] = 60.0,
) -> None:
    """Try properties of an implementation. Exit 0: all hold; 1: one does not; 3: one could not be judged."""
    names = [name for name in PROPERTIES if fnmatch(name, only)]
    if not names:
        raise Usage(f"no property matches {only!r}; there are {', '.join(PROPERTIES)}")
    runner = started(impl, timeout)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task(f"{runner.name} {runner.version}, properties", total=len(names))

            def on_result(result: Result) -> None:
                progress.advance(task)
                if result.status in BAD:
                    out.print(f"[bold]{result.status.upper()} {escape(result.case)}[/bold]\n{escape(result.message)}\n")

            results = run_properties(runner, names, examples=examples, seed=seed, save=save, on_result=on_result)
    finally:
        runner.close()
    raise typer.Exit(summed(results))


def summed(results: list[Result]) -> int:
    """Say how many hold; the exit code."""
    held, wrong = (sum(r.status == status for r in results) for status in ("pass", "fail"))
    unasked = sum(r.status == "not_supported" for r in results)
    out.print(f"{held} of {len(results)} properties hold, {wrong} do not, {unasked} not supported")
    if wrong:
        return 1
    return 3 if any(result.status in BAD for result in results) else 0 if held else 5
