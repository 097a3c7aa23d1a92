"""Where figures are kept: one JSON file a run, with the machine's name; and what two of them say side by side."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, cast

from moespec_conformance.address import Usage
from moespec_conformance.bench.rates import machine

FORMAT = 1
NOISE = 1.1  # ratios that differ by less than this say nothing


def slug(device: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def about(device: str | None = None) -> dict[str, Any]:
    """The head of a file: what was measured on, and when."""
    head = machine()
    return {"format": FORMAT, **head, "device": device or head["device"], "date": datetime.now(UTC).date().isoformat()}


def keep(path: Path, found: dict[str, Any]) -> None:
    """Write a run; a file that is there is replaced in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a run."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Usage(f"{path} is not a run of `moespec bench`: {error}") from None
    if not is_run(found):
        raise Usage(f"{path} is not a run of `moespec bench` of format {FORMAT}")
    return dict(found)


def is_run(found: object) -> bool:
    """Whether this is what `keep` writes."""
    run = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return run.get("format") == FORMAT and isinstance(run.get("rows"), list)


def compared(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, float, float, str]]:
    """Case, yardstick, ratio then and now, and a word, for all that both measured.

    Ratios to a yardstick of the same round are compared, not seconds: those are the machine's as much as ours. A change
    counts if it is larger than 1.1 and the middle halves of the rounds lie apart.
    """
    then = {row["case"]: row for row in old["rows"]}
    found = list[tuple[str, str, float, float, str]]()
    for row in new["rows"]:
        before = then.get(row["case"], {"ratios": {}})["ratios"]
        for name in (n for n in row["ratios"] if n in before):
            a, b = before[name]["rounds"], row["ratios"][name]["rounds"]
            found.append((row["case"], name, median(a), median(b), word(a, b)))
    return found


def word(old: list[float], new: list[float]) -> str:
    """Faster, slower, or the same as far as these rounds can tell."""
    (a, low_a, high_a), (b, low_b, high_b) = middle(old), middle(new)
    if b > NOISE * a and low_b > high_a:
        return "slower"
    return "faster" if a > NOISE * b and high_b < low_a else "same"


def middle(rounds: list[float]) -> tuple[float, float, float]:
    """The median, and where the middle half of the rounds lies."""
    order = sorted(rounds)
    quarter = len(order) // 4
    return median(order), order[quarter], order[-1 - quarter]
