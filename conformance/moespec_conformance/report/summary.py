"""summary.md, for a CI job's page; and badge.json, for a README."""

import html
import re
from typing import Any

from moespec_conformance.checking import JUDGED
from moespec_conformance.protocol import BAD, Result
from moespec_conformance.report.jsonl import Log
from moespec_conformance.report.tally import MOST, STATUSES, by_op
from moespec_conformance.report.words import again, clean, ratio, reason

LONGEST = 200  # failures listed; CI systems cut long pages
MARKS = re.compile(r"([\\`*_\[\]|~#])")
COLOURS = {0: "green", 1: "red", 3: "orange"}


def summary(log: Log) -> str:
    """The verdict, a table by op, a line for each failure."""
    failures = [result for result in log.results if result.status in BAD]
    lines = [f"**{plain(log.footer['verdict'])}** {plain(log.footer['sentence'])}", "", *table(log)]
    if failures:
        lines += ["", f"### {len(failures)} not as they should be", ""]
        lines += [line(log, result) for result in failures[:LONGEST]]
    if len(failures) > LONGEST:
        lines += ["", f"… and {len(failures) - LONGEST} more in results.jsonl"]
    if stale := log.footer["stale"]:
        lines += ["", "### Known failures that excuse nothing", "", *[f"- {plain(place)}" for place in stale]]
    return "\n".join(lines) + "\n"


def table(log: Log) -> list[str]:
    """Statuses by op."""
    statuses = [status for status in STATUSES if log.counts[status]]
    head = ["op", "cases", *(plain(status) for status in statuses), "worst error/bound"]
    rows = [
        [code(op), str(counts.total()), *(str(counts[s] or "·") for s in statuses), ratio(worst)]
        for op, counts, worst in by_op(log.results)
    ]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *rows)]


def line(log: Log, result: Result) -> str:
    """One failure: what, where, and which bug it looks like."""
    where = f" at {code(result.stage)}" if result.stage else ""
    alike = ", ".join(f"{code(found['mutant'])} ({plain(found['match'])})" for found in result.suspects[:MOST])
    like = f"; looks like {alike}" if alike else ""
    what = f"{code(result.case)} {plain(result.status)}{where}"
    return f"- {what}: {plain(reason(result))}{like}. Again: {code(again(log, result))}"


def plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKS.sub(r"\\\1", html.escape(clean(" ".join(str(text).split())), quote=False))


def code(text: str) -> str:
    """The same, as code."""
    return f"<code>{plain(text)}</code>"


def badge(log: Log) -> dict[str, Any]:
    """What shields.io draws from its endpoint: the profiles, and how many of their cases were judged right."""
    profiles, whole = log.header["profiles"], log.footer["whole"]
    right = sum(log.counts[status] for status in JUDGED)
    name = ", ".join(profiles) if len(profiles) <= MOST else f"{len(profiles)} profiles"
    message = f"{'' if whole else 'part of '}{name} {right}/{len(log.results)}"
    claimed = whole and right == len(log.results) and log.footer["exit_code"] == 0
    colour = "brightgreen" if claimed else COLOURS.get(log.footer["exit_code"], "lightgrey")
    return {"schemaVersion": 1, "label": "moespec", "message": message, "color": colour}
