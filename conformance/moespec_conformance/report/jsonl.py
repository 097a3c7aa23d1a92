"""results.jsonl: a header, one line for each case, a footer. Without a footer a run was cut short and says nothing."""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from moespec_conformance.address import Usage
from moespec_conformance.protocol import Result

NAME = "results.jsonl"
KNOWN = tuple(field.name for field in fields(Result))


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
        self.folder, self.header = folder, header
        self.results: list[Result] = []
        self.file: TextIO = (folder / NAME).open("w", encoding="utf-8")
        self.line({"record": "header", **header})

    def line(self, content: dict[str, Any]) -> None:
        """Write one line at once."""
        self.file.write(json.dumps(content, allow_nan=False) + "\n")
        self.file.flush()

    def result(self, result: Result) -> None:
        """Write one case."""
        self.results.append(result)
        self.line({"record": "result", **finite(asdict(result))})

    def revise(self, results: Sequence[Result]) -> None:
        """Write all results anew, now that more is known of them; what is there stays until they are complete."""
        self.file.close()
        made = self.folder / f"{NAME}.part"
        self.results, self.file = [], made.open("w", encoding="utf-8")
        self.line({"record": "header", **self.header})
        for result in results:
            self.result(result)
        made.replace(self.folder / NAME)

    def close(self, exit_code: int, **more: Any) -> Log:  # noqa: ANN401 - whatever came out
        """Write the footer: the whole run."""
        counts = Counter(result.status for result in self.results)
        footer = {"counts": dict(sorted(counts.items())), "exit_code": exit_code, **more}
        self.line({"record": "footer", **footer})
        self.file.close()
        return Log(self.header, tuple(self.results), footer)


def finite(content: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what lies beyond a bound of 0 is the largest double."""
    return {name: sys.float_info.max if value == math.inf else value for name, value in content.items()}


def read(path: Path) -> Log:
    """A run that was written, from its file or the folder of its reports; one without its footer is none."""
    path = path / NAME if path.is_dir() else path
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kinds = [line.pop("record") for line in lines]
        results = tuple(_result(line) for line, kind in zip(lines, kinds, strict=True) if kind == "result")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
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
    return Result(**told)
