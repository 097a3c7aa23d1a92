"""What a run stands on: everything that must be the same where two runs are to say the same."""

import json
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from moespec_conformance.runner import Runner
from moespec_conformance.spec import home

EDITION = re.compile(r"^Version (\d[\w.]*\w)", re.MULTILINE)


def about(runner: Runner) -> dict[str, Any]:
    """The implementation, as it names itself."""
    return {"adapter": runner.name, "version": runner.version, "arithmetic": list(runner.arithmetic)}


def pins() -> dict[str, Any]:
    """The suite, its text and its corpus; the libraries and the machine; the hour."""
    return {
        "moespec": version("moespec"),
        "spec": edition(),
        "golden": json.loads((home("golden") / "MANIFEST.json").read_text(encoding="utf-8"))["root"],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ml_dtypes": version("ml_dtypes"),
        "blas": blas(),
        "platform": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def edition() -> str:
    """The version that SPEC.md gives itself."""
    found = EDITION.search(home("SPEC.md").read_text(encoding="utf-8"))
    return found[1] if found else "unknown"


def blas() -> str:
    """The library that NumPy multiplies matrices with, by name and version."""
    config: Any = np.show_config(mode="dicts")
    built = config.get("Build Dependencies", {}).get("blas", {})
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()
