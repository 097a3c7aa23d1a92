"""The folder of a run's reports: results.jsonl grows case by case, the others are made of it at the end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moespec_conformance.address import Usage
from moespec_conformance.cases import all_cases
from moespec_conformance.checking import Report
from moespec_conformance.diagnosis.diagnosis import ENOUGH, Diagnosis, Suspect, diagnose
from moespec_conformance.expectations import Expectation, apply
from moespec_conformance.protocol import BAD, Result
from moespec_conformance.report.heat import Heat, hottest
from moespec_conformance.report.jsonl import NAME, PART, Log, Writer
from moespec_conformance.report.junit import junit
from moespec_conformance.report.page import page
from moespec_conformance.report.pins import about, pins
from moespec_conformance.report.summary import badge, summary
from moespec_conformance.report.tally import sentence, verdict
from moespec_conformance.runner import Runner

FEW = 6  # failures looked into, where no report asks for more
FILES = (NAME, "junit.xml", "report.html", "summary.md", "badge.json")


class Reports:
    """The reports of one run as it goes; without a folder, nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        """Clear the folder, before anything can go wrong."""
        self.folder = folder
        self.writer: Writer | None = None
        self.heat: Heat | None = None
        self.looked: dict[str, list[str]] = {"looked_into": [], "unexplained": []}
        if folder:
            prepare(folder)

    def begin(self, address: str, runner: Runner, **asked: Any) -> None:  # noqa: ANN401 - what was asked for
        """Write the header."""
        if self.folder:
            self.writer = Writer(self.folder, address=address, **about(runner), **asked, **pins())

    def result(self, result: Result) -> None:
        """Write one case."""
        if self.writer:
            self.writer.result(result)

    def look(
        self,
        results: Sequence[Result],
        known: Sequence[Expectation],
        runner: Runner,
        on_case: Callable[[], None] | None = None,
    ) -> Diagnosis | None:
        """Look into what failed: which bugs it resembles, and for the reports, where the worst case is wrong."""
        counted = [apply(result, known) for result in results if result.case in all_cases()]  # none of a folder
        if not any(result.status in BAD for result in counted):
            return None
        found = diagnose(runner, counted, on_case, most=ENOUGH if self.writer else FEW, pairs=False)
        if self.writer:
            self.looked = {"looked_into": list(found.cases), "unexplained": list(found.unexplained)}
            self.writer.revise(named(counted, found))
            self.heat = hottest(counted, runner)
        return found

    def end(self, done: Report, code: int, **more: Any) -> None:  # noqa: ANN401 - what else came out
        """Write the footer, and all that is made of the whole."""
        if self.writer and self.folder:
            said = {"verdict": verdict(done), "sentence": sentence(done), "whole": done.whole}
            publish(self.folder, self.writer.close(code, **said, **self.looked, **more), self.heat)


def prepare(folder: Path) -> None:
    """Make the folder, without an older run's reports: a run that dies must leave none that look like its own."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, PART):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise Usage(f"{folder}: no reports can be written there: {error}") from error


def named(results: Sequence[Result], found: Diagnosis) -> list[Result]:
    """The results with their suspects: a failure that a bug explains names it, and those that answer as it does."""
    suspects = {case: suspect for suspect in found.suspects for case in suspect.explains}
    return [replace(r, suspects=told(suspects[r.case])) if r.case in suspects else r for r in results]


def told(suspect: Suspect) -> tuple[dict[str, str], ...]:
    """A suspect, and who cannot be told from it."""
    return tuple({"mutant": slug, "match": suspect.match} for slug in (suspect.mutant, *suspect.alike))


def publish(folder: Path, log: Log, heat: Heat | None = None) -> None:
    """Write every report but results.jsonl, which is already there."""
    made = {
        "junit.xml": junit(log),
        "report.html": page(log, heat),
        "summary.md": summary(log),
        "badge.json": json.dumps(badge(log)) + "\n",
    }
    for name, content in made.items():
        (folder / name).write_text(content, encoding="utf-8")
