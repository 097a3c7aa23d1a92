"""What is measured of one case, in the form in which it is kept."""

import os
from statistics import median
from typing import Any

from moespec_conformance.bench.timing import Measured

Row = dict[str, Any]


def row(case: str, measured: Measured, goals: dict[str, float] | None = None) -> Row:
    """Seconds (median), ratio to each yardstick with its rounds, goals, and the machine's load meanwhile."""
    ratios = {name: {"ratio": median(rounds), "rounds": rounds} for name, rounds in measured.rounds.items()}
    return {
        "case": case,
        "seconds": measured.seconds,
        "ratios": ratios,
        "goals": goals or {},
        "load": round(os.getloadavg()[0], 2),
    }


def missed(found: Row) -> dict[str, float]:
    """Yardsticks whose goal was not met, and the ratio."""
    ratios = {name: found["ratios"][name]["ratio"] for name in found["goals"] if name in found["ratios"]}
    return {name: ratio for name, ratio in ratios.items() if ratio > found["goals"][name]}


def told(found: Row) -> list[str]:
    """Each ratio in words: median, least and largest round, and its goal."""
    lines = list[str]()
    for name, of in found["ratios"].items():
        goal = found["goals"].get(name)
        mark = "" if goal is None else f", goal {goal:g}: " + ("met" if of["ratio"] <= goal else "MISSED")
        lines.append(f"{of['ratio']:.2f} [{min(of['rounds']):.2f} .. {max(of['rounds']):.2f}] of {name}{mark}")
    return lines
