"""Small pieces of text that every report says in the same way."""

import re
import shlex

from moespec_conformance.cases import all_cases
from moespec_conformance.protocol import Result
from moespec_conformance.report.jsonl import Log

ENDLESS = 1e300  # what stands for infinity in results.jsonl is beyond it
THREAD = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")  # owner/name#number
UNFIT = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def ratio(value: float | None) -> str:
    """An error/bound: a dash where there is none."""
    if value is None:
        return "-"
    return "∞" if value > ENDLESS else f"{value:.2g}"


def reason(result: Result) -> str:
    """A message's first line."""
    return (result.message.strip().splitlines() or [""])[0]


def command(address: str, case: str) -> str:
    """What to type to ask one case again."""
    return f"moespec check {shlex.quote(address)} --case {shlex.quote(case)}"


def again(log: Log, result: Result) -> str:
    """The same, for a case of a run: by its id, or by the folder that it was read from."""
    return command(str(log.header["address"]), result.case if result.case in all_cases() else str(log.header["cases"]))


def clean(text: str) -> str:
    """Text without what no file of text may hold: control characters, and halves of pairs."""
    return UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def linked(cite: str) -> list[tuple[str, str]]:
    """A citation in pieces, each with the address it stands for, or none."""
    pieces: list[tuple[str, str]] = []
    end = 0
    for found in THREAD.finditer(cite):
        pieces += [(cite[end : found.start()], ""), (found[0], f"https://github.com/{found[1]}/issues/{found[2]}")]
        end = found.end()
    return [*pieces, (cite[end:], "")]
