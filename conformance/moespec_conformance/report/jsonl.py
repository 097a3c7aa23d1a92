"""results.jsonl: a header, one line for each case, a footer. Without a footer a run was cut short and says nothing."""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from moespec_conformance.address import Usage
from moespec_conformance.foreign import object_in
from moespec_conformance.protocol import Result

NAME = "results.jsonl"
PART = f"{NAME}.part"  # while it is written anew
KNOWN = tuple(field.name for field in fields(Result))
NUMBERS = ("error_over_bound", "margin", "seconds")
WORDS = ("case", "op", "status", "kind", "message", "arithmetic")


class Log(NamedTuple):
    """A whole run: what it stands on, its results, what came out. Every other report is made of this alone."""

    header: dict[str, Any]
    results: tuple[Result, ...]
    footer: dict[str, Any]

    @property
    def counts(self) -> Counter[str]:
        """How many results have each status."""
        return Counter(result.status for result in self.results)


class Writer:
    """Writes line by line, so that a run that dies leaves what it had."""

    def __init__(self, folder: Path, **header: Any) -> None:  # noqa: ANN401 - whatever describes the run
        """Write the header into a folder that exists."""
        self.path, self.header = folder / NAME, header
        self.results: list[Result] = []
        self.revise([])

    def result(self, result: Result) -> None:
        """Write one case."""
        self.results.append(result)
        self.append(case_of(result))

    def append(self, line: str) -> None:
        """Write one line at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def revise(self, results: Sequence[Result]) -> None:
        """Write all results anew, now that more is known of them; what is there stays until they are complete."""
        self.results = list(results)
        part = self.path.with_name(PART)
        lines = [line_of("header", self.header), *map(case_of, results)]
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self.path)

    def close(self, exit_code: int, **more: Any) -> Log:  # noqa: ANN401 - whatever came out
        """Write the footer: the whole run."""
        counts = Counter(result.status for result in self.results)
        footer = {"counts": dict(sorted(counts.items())), "exit_code": exit_code, **more}
        self.append(line_of("footer", footer))
        return Log(self.header, tuple(self.results), footer)


def case_of(result: Result) -> str:
    """One case."""
    return line_of("result", finite(asdict(result)))


def line_of(record: str, content: dict[str, Any]) -> str:
    """One line."""
    return json.dumps({"record": record, **content}, allow_nan=False) + "\n"


def finite(content: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what lies beyond a bound of 0 is the largest double."""
    return {name: sys.float_info.max if value == math.inf else value for name, value in content.items()}


def read(path: Path) -> Log:
    """A run that was written, from its file or the folder of its reports; one without its footer is none."""
    path = path / NAME if path.is_dir() else path
    try:
        lines = [object_in(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kinds = [line.pop("record") for line in lines]
        results = tuple(_result(line) for line, kind in zip(lines, kinds, strict=True) if kind == "result")
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise Usage(f"{path}: no results can be read: {type(error).__name__}: {error}") from error
    if kinds != ["header", *["result"] * len(results), "footer"]:
        raise Usage(f"{path}: not a header, results and a footer: the run was cut short")
    log = Log(lines[0], results, lines[-1])
    if log.footer.get("counts") != log.counts or len({result.case for result in results}) != len(results):
        raise Usage(f"{path}: its results are not those that its footer counts")
    return log


def _result(line: dict[str, Any]) -> Result:
    """One line; fields of later versions are left out."""
    told: dict[str, Any] = {name: line[name] for name in KNOWN if name in line}
    told |= {name: tuple(line.get(name, ())) for name in ("suspects", "trace")}
    told |= {"clauses": tuple(line["clauses"])}
    told |= {name: float(line[name]) for name in NUMBERS if line.get(name) is not None}
    words = [told.get(name, "") for name in WORDS] + [told.get("stage") or ""]
    if not all(isinstance(word, str) for word in words):
        raise TypeError(f"{', '.join(WORDS)} must be words")
    return Result(**told)
