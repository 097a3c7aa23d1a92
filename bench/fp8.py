"""Prints FP8's ratios to its yardsticks, and keeps them under this machine's name."""

import argparse
import os
from statistics import median
from typing import Any

from layer import keep
from yardsticks import CASES, PER_MULTIPLY_ADD, ROUNDS, UNIT_SHAPES, Case, compare, per_multiply_add

ROW = "{:26} {:>9} {:52} {:24} {:>4}"
HEAD = ("case", "seconds", "ratio, least and largest round", "goals", "load")


def row(case: Case, rounds: int) -> dict[str, Any]:
    """Measure one case, and print a line a yardstick; load is the machine's in the last five minutes."""
    measured, load = compare(case, rounds), os.getloadavg()[1]
    for name, ratios in measured.rounds.items():
        goal = f"<= {case.goals[name]:.2f}" if name in case.goals else ""
        figure = f"{measured.of(name):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}] of {name}"
        print(ROW.format(case.name, f"{measured.seconds:.4f}", figure, goal, f"{load:.1f}"), flush=True)
    found = {name: {"ratio": measured.of(name), "rounds": ratios} for name, ratios in measured.rounds.items()}
    return {"case": case.name, "seconds": measured.seconds, **found, "goals": case.goals, "load": round(load, 2)}


def unit_row(shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """The model of a tensor core."""
    times, name = per_multiply_add(shape, rounds), "hopper {}x{}x{}".format(*shape)
    figure = f"{median(times) * 1e9:.1f} [{min(times) * 1e9:.1f} .. {max(times) * 1e9:.1f}] ns per multiply-add"
    print(ROW.format(name, "", figure, f"<= {PER_MULTIPLY_ADD * 1e9:.0f} ns", f"{os.getloadavg()[1]:.1f}"), flush=True)
    return {"case": name, "seconds_per_multiply_add": median(times), "rounds": times}


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="least number of rounds a case")
    rounds = parser.parse_args().rounds
    print(ROW.format(*HEAD))
    cases = [row(case, rounds) for case in CASES] + [unit_row(shape, rounds) for shape in UNIT_SHAPES]
    print(keep(cases, "-fp8"))


if __name__ == "__main__":
    main()
