"""The report on a terminal: progress, every failure with what one needs to act on it, and a table."""

from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import Literal

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moespec_conformance.checking import Report
from moespec_conformance.protocol import BAD, Result
from moespec_conformance.report.steps import divergence
from moespec_conformance.report.tally import STATUSES, sentence, suspected, verdict
from moespec_conformance.report.tally import by_op as rows_by_op
from moespec_conformance.report.words import command, ratio
from moespec_conformance.spec import clauses

COLOURS = {"fail": "red", "error": "magenta", "timeout": "magenta", "xpass": "yellow", "quality_warning": "yellow"}
WIDTH = 200  # characters of a clause's text
SENTENCE = 50
DOUBTS = 6  # clauses named at the end


def failure(result: Result, address: str, folder: Path | None = None) -> Panel:
    """Everything about one case that is not as it should be."""
    body = Text()
    for name in suspected(result):
        text = clauses()[name].text
        body.append(f"{name}  ", style="bold")
        body.append((text[:WIDTH] + " …" if len(text) > WIDTH else text) + "\n")
    if result.stage:
        body.append("first wrong stage  ", style="bold")
        body.append(f"{result.stage} ({result.kind})\n")
    body.append(result.message.strip() + "\n")
    if result.trace:
        body.append_text(divergence(result))
    body.append(command(address, str(folder or result.case)), style="cyan")
    title = f"[bold]{result.status.upper()}[/bold] {result.case}"
    return Panel(body, title=title, title_align="left", border_style=COLOURS.get(result.status, "white"))


def by_op(report: Report) -> Table:
    """Statuses by op."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    statuses = [s for s in STATUSES if report.counts[s]]
    for column in ("op", "cases", *statuses, "worst error/bound"):
        made.add_column(column, justify="left" if column == "op" else "right", no_wrap=True)
    for op, counts, worst in rows_by_op(report.results):
        made.add_row(op, str(counts.total()), *[str(counts[s] or "·") for s in statuses], ratio(worst))
    return made


def by_clause(report: Report) -> Table:
    """The clauses most in doubt: many of their cases went wrong, and few did not."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("clause in doubt", "wrong", "of", ""):
        side: Literal["left", "right"] = "right" if column in ("wrong", "of") else "left"
        made.add_column(column, justify=side, no_wrap=True, overflow="ellipsis", min_width=len(column))
    asked = [result for result in report.results if result.status != "not_supported"]
    wrong = Counter(clause for result in asked if result.status in BAD for clause in suspected(result))
    cases = Counter(clause for result in asked for clause in result.clauses)
    doubt = {clause: wrong[clause] ** 2 / cases[clause] for clause in wrong}
    for name in sorted(doubt, key=lambda clause: -doubt[clause])[:DOUBTS]:
        sentence = clauses()[name].text.partition(". ")[0]
        made.add_row(name, str(wrong[name]), str(cases[name]), shorten(sentence, SENTENCE, placeholder=" …"))
    return made


def summary(report: Report) -> Text:
    """One line that says it all, with its denominator."""
    colour = "green" if report.ok else "red"
    return Text(f"{verdict(report)}  ", style=f"bold {colour}") + Text(sentence(report), style="not bold")


def show(console: Console, report: Report) -> None:
    """Tables and summary."""
    console.print(by_op(report))
    if any(result.status in BAD for result in report.results):
        console.print()
        console.print(by_clause(report))
    console.print()
    console.print(summary(report))
