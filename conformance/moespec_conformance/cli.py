"""The command `moespec`."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from moespec_conformance import golden as corpus
from moespec_conformance.address import Usage
from moespec_conformance.bench.command import bench
from moespec_conformance.bench.full_size import layer
from moespec_conformance.case_folder import folder_of
from moespec_conformance.cases import all_cases
from moespec_conformance.checking import Damaged, run, selected, smoke
from moespec_conformance.corpora import corpus_in, said
from moespec_conformance.counting import count
from moespec_conformance.diagnosis.command import diagnose_command
from moespec_conformance.diagnosis.diagnosis import ENOUGH
from moespec_conformance.differing import diff
from moespec_conformance.expectations import read
from moespec_conformance.explain import explained, listed
from moespec_conformance.exporting import export, judge
from moespec_conformance.fingerprint import fingerprint
from moespec_conformance.jobs import USUAL, side_by_side
from moespec_conformance.minimize.command import minimize
from moespec_conformance.mutants.command import mutants
from moespec_conformance.program import started
from moespec_conformance.properties.command import properties
from moespec_conformance.protocol import Case
from moespec_conformance.report.terminal import failure
from moespec_conformance.report.writing import FEW, Reports
from moespec_conformance.runner import Runner
from moespec_conformance.showing import bar, err, finish, out, watch
from moespec_conformance.spec import home

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Folder = Annotated[Path | None, typer.Option(help="Write all reports into this folder.")]


@app.command()
def check(  # noqa: PLR0913, PLR0917 - one parameter an option
    impl: Annotated[
        str, typer.Argument(help="path.py[:Name], an entry point NAME[:ARG], module:Name, or cmd:PROGRAM.")
    ] = "reference",
    profile: Annotated[
        list[str] | None, typer.Option(help="Profile to check; may be repeated. By default, those the adapter names.")
    ] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    case: Annotated[str, typer.Option(help="Only cases whose id matches this glob; or one in a folder.")] = "*",
    quick: Annotated[bool, typer.Option("--quick/--full", help="Leave out the few slow cases.")] = False,  # noqa: FBT002
    report: Folder = None,
    expected_failures: Annotated[Path | None, typer.Option(help="Text file of known failures.")] = None,
    strict: Annotated[bool, typer.Option(help="Known failures that are gone, or match nothing, count.")] = False,  # noqa: FBT002
    timeout: Annotated[float, typer.Option(help="Seconds for one case.")] = 60.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that judge at once.")] = USUAL,
    trace: Annotated[bool, typer.Option(help="Compare every step that the implementation names.")] = False,  # noqa: FBT002
) -> None:
    """Check an implementation. Exit 0: conformant; 1: not; 3: it could not be judged; 5: nothing selected."""
    known = read(expected_failures) if expected_failures else []
    reports = Reports(report)
    runner = started(impl, timeout)
    try:
        broken = smoke(runner)
        if broken:
            err.print(f"{impl}: no simple case can be asked, so nothing was judged.\n{broken}", markup=False)
            raise typer.Exit(3)
        profiles = profile or profiles_of(case, runner)
        total = len(selected(profiles, runner.arithmetic, op, case, quick=quick))
        reports.begin(impl, runner, profiles=profiles, ops=op, cases=case, quick=quick)
        with bar(f"{runner.name} {runner.version}", total) as progress:
            on_result = watch(progress, known, reports, partial(failure, address=impl, folder=folder_of(case)))
            judge = partial(side_by_side, child=runner, jobs=jobs, trace=trace)
            done = run(runner, profiles, op, case, quick=quick, on_result=on_result, judge=judge)
        with bar("comparing failures with known bugs", ENOUGH if report else FEW) as progress:
            found = reports.look(done.results, known, runner, lambda: progress.advance(progress.task_ids[0]))
    finally:
        runner.close()
    finish(done, known, reports, found, strict=strict)


def profiles_of(pattern: str, runner: Runner) -> list[str]:
    """The profiles the adapter is made for; for an exact case id, the case's own."""
    return list(all_cases()[pattern].profiles if pattern in all_cases() else runner.profiles)


@app.command()
def explain(name: Annotated[str, typer.Argument(help="A case's or a clause's id, or a mutant's name.")]) -> None:
    """Say what a clause demands, what a case asks, or what a mutant does wrong."""
    out.print(explained(name))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="cases, clauses, mutants, profiles or adapters.")] = "cases",
) -> None:
    """List cases, clauses, mutants, profiles or adapters."""
    out.print(listed(what))


@app.command()
def golden(
    check: Annotated[bool, typer.Option("--check", help="Rebuild, and compare every byte.")] = False,  # noqa: FBT002
    folder: Annotated[
        Path | None, typer.Option("--dir", help="The corpus; by default the one that is installed.")
    ] = None,
    older: Annotated[
        Path | None, typer.Option("--diff", metavar="OLD", help="Say what changed since another corpus.")
    ] = None,
) -> None:
    """Rebuild the golden corpus; or with --check compare it with a fresh build, or with --diff with an older one.

    Exit 4: it is not whole. Exit 1, with --diff: its version does not say what changed.
    """
    root = folder or home("golden")
    if not root.is_dir():
        raise Usage(f"no folder {root}")
    if older:
        lines, enough = said(corpus_in(older), corpus_in(root))
        out.print("\n".join(lines), markup=False)
        raise typer.Exit(0 if enough else 1)
    with bar("golden", len(corpus.members())) as progress:

        def advance(_: Case) -> None:
            progress.advance(progress.task_ids[0])

        found = corpus.differences(root, advance) if check else []
        built = len(corpus.members()) if check else corpus.rebuild(root, advance)
    if found:
        raise Damaged("\n".join([f"{root} is not what this version builds:", *found]))
    out.print(
        f"{built} cases, root {json.loads((root / 'MANIFEST.json').read_text())['root'][:16]}: "
        + ("the same bytes" if check else "written")
    )


app.command()(bench)
app.command()(count)
app.command()(diff)
app.command()(export)
app.command()(fingerprint)
app.command()(judge)
app.command()(layer)
app.command()(mutants)
app.command()(properties)
app.command()(minimize)
app.command("diagnose")(diagnose_command)


def main(argv: list[str] | None = None) -> Any:  # noqa: ANN401 - typer's
    """Run the command; our own errors become exit codes."""
    try:
        return app(argv)
    except Usage as error:
        err.print(f"moespec: {error}", markup=False)
        sys.exit(2)
    except Damaged as error:
        err.print(f"moespec: {error}", markup=False)
        sys.exit(4)
    except RuntimeError as error:
        err.print(f"moespec: {error}", markup=False)
        sys.exit(3)
