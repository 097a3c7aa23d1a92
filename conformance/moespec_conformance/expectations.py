"""Known failures, in plain text that lives with the implementation.

One a line: `xfail GLOB reason …` for what is known to fail, `waive GLOB URL reason …` for what its authors have
agreed to leave. The first line that matches a case is the case's. A line that excuses nothing, and a case that no
longer fails, are said; with --strict they count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from moespec_conformance.address import Usage
from moespec_conformance.protocol import BAD, Result

STATUS = {"xfail": "xfail", "waive": "waived"}


@dataclass(frozen=True)
class Expectation:
    """One line of a file: `place` is the file's name and the line's number."""

    status: str
    pattern: str
    reason: str
    place: str


def read(path: Path) -> list[Expectation]:
    """Every line of a file; blank lines and those beginning with # are free."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"{path}: cannot be read: {error}") from error
    numbered = [(line.strip(), f"{path}:{number}") for number, line in enumerate(lines, 1)]
    return [_line(line, place) for line, place in numbered if line and not line.startswith("#")]


def _line(line: str, place: str) -> Expectation:
    word, pattern, reason = (*line.split(maxsplit=2), "", "")[:3]
    if word not in STATUS or not reason:
        raise Usage(f"{place}: not `xfail GLOB reason` or `waive GLOB URL reason`: {line}")
    url, *why = reason.split(maxsplit=1)
    if word == "waive" and ("://" not in url or not why):
        raise Usage(f"{place}: a waiver needs a URL, and after it its reason: {line}")
    return Expectation(STATUS[word], pattern, reason, place)


def about(result: Result, expectations: Iterable[Expectation]) -> Expectation | None:
    """The line that speaks of a case: the first that matches."""
    return next((e for e in expectations if fnmatch(result.case, e.pattern)), None)


def apply(result: Result, expectations: Iterable[Expectation]) -> Result:
    """The result as it counts: a failure that is known, or a known failure that has gone."""
    found = about(result, expectations)
    if found is None:
        return result
    if result.status in BAD:
        return replace(result, status=found.status, message=f"{found.reason}\n{result.message}")
    gone = result.status in ("pass", "quality_warning", "rejected_ok") and found.status == "xfail"
    return replace(result, status="xpass", message=f"no longer fails: {found.reason}") if gone else result


def stale(expectations: Sequence[Expectation], results: Iterable[Result]) -> list[str]:
    """The lines that excuse no failure of a run, each with its place."""
    wrong = (*BAD, *STATUS.values())
    needed = {found for result in results if result.status in wrong and (found := about(result, expectations))}
    return [f"{e.place}: {e.pattern}" for e in expectations if e not in needed]
