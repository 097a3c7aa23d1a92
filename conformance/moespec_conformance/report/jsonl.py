"""results.jsonl: a header, one line for each case, a footer. Without a footer a run was cut short and says nothing."""

import json
import platform
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from moespec_conformance.protocol import Result


class Writer:
    """Writes line by line, so that a run that dies leaves what it had."""

    def __init__(self, folder: Path, **about: Any) -> None:  # noqa: ANN401 - whatever describes the run
        """Make the folder, and write the header."""
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self.file: TextIO = (folder / "results.jsonl").open("w", encoding="utf-8")
        made_by = {"moespec": version("moespec"), "numpy": np.__version__, "python": platform.python_version()}
        self.line({"record": "header", **about, **made_by})

    def line(self, content: dict[str, Any]) -> None:
        """Write one line at once."""
        self.file.write(json.dumps(content, allow_nan=False) + "\n")
        self.file.flush()

    def result(self, result: Result) -> None:
        """Write one case."""
        self.counts[result.status] += 1
        self.line({"record": "result", **finite(asdict(result))})

    def close(self, exit_code: int) -> None:
        """Write the footer."""
        self.line({"record": "footer", "counts": dict(sorted(self.counts.items())), "exit_code": exit_code})
        self.file.close()


def finite(content: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what lies beyond a bound of 0 is the largest double."""
    top = float(np.finfo(np.float64).max)
    ratios = ("error_over_bound", "margin")
    return {name: top if name in ratios and value == np.inf else value for name, value in content.items()}
