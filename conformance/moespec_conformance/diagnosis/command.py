"""`moespec diagnose`: check an implementation, and name the bug."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from moespec_conformance.checking import Report, run, selected, smoke
from moespec_conformance.diagnosis.diagnosis import ENOUGH, Diagnosis, Suspect, diagnose
from moespec_conformance.diagnosis.words import in_common
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.program import started
from moespec_conformance.protocol import BAD, Case, Result
from moespec_conformance.report.words import command
from moespec_conformance.runner import Runner
from moespec_conformance.spec import clauses

out, err = Console(highlight=False, soft_wrap=False), Console(stderr=True, highlight=False, soft_wrap=True)
LEAVES = {"exact": "bit for bit", "bounded": "within its bounds"}
SHOWN = 3  # suspects, and failures, described at length
ALIKE = 6  # mutants named of those that cannot be told apart


def diagnose_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    impl: Annotated[str, typer.Argument(help="As for `moespec check`.")],
    profile: Annotated[list[str] | None, typer.Option(help="Profile to check; by default, the adapter's.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    case: Annotated[str, typer.Option(help="Only cases whose id matches this glob.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,  # noqa: FBT002
    timeout: Annotated[float, typer.Option(help="Seconds for one case.")] = 60.0,
) -> None:
    """Check an implementation and name its bug. Exit 0: it has none; 1: it has; 3: it could not be judged."""
    runner = started(impl, timeout)
    try:
        if broken := smoke(runner):
            err.print(f"{impl}: no simple case can be asked, so nothing was judged.\n{broken}", markup=False)
            raise typer.Exit(3)
        report, found = looked_into(runner, profile or list(runner.profiles), op, case)
    finally:
        runner.close()
    if as_json:
        out.print_json(json.dumps(told(report, found)))
    else:
        show(report, found, impl)
    raise typer.Exit(report.exit_code)


def looked_into(runner: Runner, profiles: list[str], ops: list[str] | None, pattern: str) -> tuple[Report, Diagnosis]:
    """Check, then diagnose, with progress on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        total = len(selected(profiles, runner.arithmetic, ops, pattern, quick=False))
        asked = progress.add_task(f"{runner.name} {runner.version}", total=total)

        def on_result(_case: Case, _result: Result) -> None:
            progress.advance(asked)

        report = run(runner, profiles, ops, pattern, on_result=on_result)
        failed = min(ENOUGH, sum(result.status in ("fail", "error") for result in report.results))
        looking = progress.add_task("diagnosis, by failures", total=failed)
        return report, diagnose(runner, report.results, lambda: progress.advance(looking))


def told(report: Report, found: Diagnosis) -> dict[str, Any]:
    """The diagnosis, for --json."""
    suspects = [
        {
            "mutants": suspect.mutant.split("+"),
            "match": suspect.match,
            "alike": list(suspect.alike),
            "explains": list(suspect.explains),
            "clauses": [MUTANTS[slug].clause for slug in suspect.mutant.split("+")],
            "cites": [MUTANTS[slug].cite for slug in suspect.mutant.split("+")],
        }
        for suspect in found.suspects
    ]
    near = {name: made and {"mutant": made.mutant, "left": made.left} for name, made in found.unexplained.items()}
    about = {"adapter": report.name, "version": report.version, "counts": dict(report.counts)}
    patterns = in_common(report.results)
    return {**about, "looked_into": list(found.cases), "suspects": suspects, "unexplained": near, "patterns": patterns}


def show(report: Report, found: Diagnosis, impl: str) -> None:
    """The diagnosis in words."""
    failures = [result for result in report.results if result.status in BAD]
    if not failures:
        out.print(f"{report.name}: no failure in {len(report.results)} cases, so nothing to diagnose")
        return
    looked = f"{len(failures)} of {len(report.results)} cases failed; {len(found.cases)} of these were looked into"
    out.print(Text(f"{report.name} {report.version}: {looked}\n"))
    for suspect in found.suspects[:SHOWN]:
        out.print(described(suspect, len(found.cases)))
    if found.unexplained:
        out.print(outside(found))
    for pattern in in_common(report.results):
        out.print(Text(f"pattern     {pattern}"))
    smallest = [result for name in found.cases[:1] for result in failures if result.case == name]
    for result in smallest:
        out.print(first(result, impl))


def brief(found: Diagnosis) -> Text:
    """The first suspect of a check, or that there is none."""
    text = Text("\n")
    if found.suspects:
        text.append_text(described(found.suspects[0], len(found.cases)))
    else:
        text.append_text(outside(found))
    return text.append("`moespec diagnose` looks further", style="not bold")


def described(suspect: Suspect, of: int) -> Text:
    """One suspect: what it is, who had it, and how sure this is."""
    text = Text()
    for slug in suspect.mutant.split("+"):
        mutant = MUTANTS[slug]
        text.append(f"looks like  {slug}\n", style="bold")
        text.append(f"            {mutant.symptom}\n            breaks {mutant.clause}; seen in {mutant.cite}\n")
    together = "both together explain" if "+" in suspect.mutant else "explains"
    text.append(f"            {together} {len(suspect.explains)} of {of} failures, {LEAVES[suspect.match]}\n")
    if suspect.alike:
        more = f" and {len(suspect.alike) - ALIKE} more" if len(suspect.alike) > ALIKE else ""
        text.append(f"            these cases do not tell it from {', '.join(suspect.alike[:ALIKE])}{more}\n")
    return text


def outside(found: Diagnosis) -> Text:
    """What nobody in the catalogue explains, said as it is."""
    names = list(found.unexplained)
    text = Text(f"not in the catalogue: {len(names)} of {len(found.cases)} failures match no bug in it", style="bold")
    listed = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    text.append(f"\n            {listed}\n", style="not bold")
    near = [made for made in found.unexplained.values() if made]
    if near:
        best = min(near, key=lambda made: made.left)
        text.append(
            f"            nearest is {best.mutant}, which leaves {best.left:.0%} of the error\n", style="not bold"
        )
    return text


def first(result: Result, impl: str) -> Text:
    """The failure with the smallest inputs, and how to see it again."""
    clause = clauses()[result.clauses[0]]
    head = f"smallest    {result.case}: {result.stage or result.kind}, clauses {', '.join(result.clauses)}\n"
    says = f"            {result.message.strip().splitlines()[0] if result.message else ''}\n"
    again = command(impl, result.case)
    again = f"            {again}; {again.replace('check', 'minimize', 1)}\n"
    return Text(f"{head}{says}{again}            {clause.id}: {clause.text.partition('. ')[0]}.")
