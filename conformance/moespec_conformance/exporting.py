"""`moespec export` writes questions without answers; `moespec judge` judges what implementers wrote beside them."""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from moespec_conformance import golden, tensors
from moespec_conformance.address import Usage
from moespec_conformance.answering import question_bytes
from moespec_conformance.answers import Answers
from moespec_conformance.asking import Question
from moespec_conformance.cases import PROFILES, all_cases
from moespec_conformance.checking import Damaged, Report, selected
from moespec_conformance.expectations import read
from moespec_conformance.foreign import LONGEST, object_in
from moespec_conformance.judging import judged
from moespec_conformance.members import VERSION
from moespec_conformance.protocol import DEFAULT, Case
from moespec_conformance.report.terminal import failure
from moespec_conformance.report.writing import FEW, Reports
from moespec_conformance.showing import bar, finish, out, watch

LIST = "MANIFEST.json"


def export(
    folder: Annotated[Path, typer.Argument(help="An empty folder, or one that is yet to be made.")],
    profile: Annotated[list[str] | None, typer.Option(help="Profile to export; may be repeated.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    case: Annotated[str, typer.Option(help="Only cases whose id matches this glob.")] = "*",
    arithmetic: Annotated[
        list[str] | None, typer.Option(help="float32 (the default) or bfloat16; both if both.")
    ] = None,
) -> None:
    """Write the questions of a profile as files, without answers. Exit 5: there are none."""
    profiles, coarse = tuple(profile or [DEFAULT]), tuple(arithmetic or ["float32"])
    cases = [one for one in selected(profiles, coarse, op, case, quick=False) if in_files(one)]
    if not cases:
        raise typer.Exit(5)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Usage(f"{folder} is not empty: nothing was written")
    with bar("export", len(cases)) as progress:
        for one in cases:
            for place, question in questions(one):
                target = folder / place
                target.mkdir(parents=True)
                for name, content in question_bytes(one.id, *question[:3]).items():
                    (target / name).write_bytes(content)
            progress.advance(progress.task_ids[0])
    told = {"profiles": list(profiles), "arithmetic": list(coarse), "cases": [one.id for one in cases]}
    golden.write_json(folder / LIST, {"format": golden.FORMAT, "version": VERSION, **told})
    out.print(f"{len(cases)} questions in {folder}: answer each by out.safetensors or reply.json in its folder")


def in_files(case: Case) -> bool:
    """Whether files can ask it: they hold one call, and say nothing about how it is made."""
    return case.manner == "plain" and case.kind != "relation"


def questions(case: Case) -> Iterator[tuple[Path, Question]]:
    """The questions of a case and their folders: its own, and of a reject case the good one that it spoils."""
    place = Path(case.op) / case.id
    yield place, Question(case.op, dict(case.config), case.inputs, "plain")
    if case.good:
        yield place / "good", Question(case.op, dict(case.good.config), case.good.inputs, "plain")


def judge(
    folder: Annotated[Path, typer.Argument(help="What `moespec export` wrote, with answers in it.")],
    name: Annotated[str, typer.Option(help="What the reports call the implementation.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write all reports into this folder.")] = None,
    expected_failures: Annotated[Path | None, typer.Option(help="Text file of known failures.")] = None,
    strict: Annotated[bool, typer.Option(help="Known failures that are gone, or match nothing, count.")] = False,  # noqa: FBT002
) -> None:
    """Judge answers in files. Exit 0: nothing failed; 1: something did; 3: unanswered; 4: questions were changed."""
    told = manifest_of(folder)
    known, reports = read(expected_failures) if expected_failures else [], Reports(report)
    answers = Answers(name or folder.resolve().name, tuple(told["arithmetic"]), tuple(told["profiles"]))
    cases = [all_cases()[one] for one in told["cases"]]
    done = Report(answers.name, answers.version, answers.profiles, answers.arithmetic, quick=False, whole=False)
    reports.begin(str(folder), answers, profiles=list(answers.profiles), ops=None, cases="*", quick=False)
    with bar(answers.name, len(cases)) as progress:
        on_result = watch(progress, known, reports, partial(failure, address=str(folder)))
        for case in cases:
            unchanged(folder, case, answers)
            done.results.append(judged(case, answers))
            on_result(case, done.results[-1])
    with bar("comparing failures with known bugs", FEW) as progress:
        wrong = [result for result in done.results if result.status == "fail"]
        found = reports.look(wrong, known, answers, lambda: progress.advance(progress.task_ids[0]))
    finish(done, known, reports, found, strict=strict)


def manifest_of(folder: Path) -> dict[str, Any]:
    """What was exported: our own cases, none of them twice, and profiles and arithmetics that there are."""
    path = folder / LIST
    if not folder.is_dir():
        raise Usage(f"no folder {folder}")
    if not path.is_file():
        raise Damaged(f"{folder} has no {LIST}: not exported, or not to its end")
    try:
        told = object_in(tensors.bytes_of(path, LONGEST))
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error}") from error
    if told.get("format") != golden.FORMAT:
        raise Damaged(f"{path} is not of format {golden.FORMAT}")
    known: dict[str, Collection[str]] = {
        "cases": all_cases(),
        "profiles": PROFILES,
        "arithmetic": ("float32", "bfloat16"),
    }
    for key, there in known.items():
        names = cast("list[object]", told.get(key))
        if type(names) is not list or not names or any(type(n) is not str or n not in there for n in names):
            raise Damaged(f"{path}: {key} must name some of this version's")
    if len(set(told["cases"])) < len(told["cases"]):
        raise Damaged(f"{path}: a case is named twice")
    return told


def unchanged(folder: Path, case: Case, answers: Answers) -> None:
    """The question lies there as it was asked."""
    for place, question in questions(case):
        for name, content in question_bytes(case.id, *question[:3]).items():
            if not golden.same(content, folder / place / name):
                raise Damaged(f"{folder / place / name} is not what was exported")
        answers.add(question, folder / place)
