"""Prints the layer's ratios to its floor, forward and backward, and keeps them under this machine's name."""

import argparse
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from floor import CASES, PAIR, ROUNDS, Shape, build, machine, measure

RESULTS = Path(__file__).parent / "results"
ROW = "{:26} {:8} {:12} {:23} {:23} {:7} {:>4}"
HEAD = ("shape", "dtype", "floor s", "ratio forward", "ratio backward", "rounds", "load")


def row(shape: Shape, dtype: str, rounds: int) -> dict[str, Any]:
    """Measure one case in both directions, and print its line; load is the machine's in the last five minutes."""
    layer = build(shape, dtype)
    forward, backward = (measure(pair(layer), rounds) for pair in PAIR.values())
    load = os.getloadavg()[1]
    floors, counts = (f"{forward.floor:.3f} {backward.floor:.3f}", f"{len(forward.ratios)} {len(backward.ratios)}")
    print(ROW.format(str(shape), dtype, floors, str(forward), str(backward), counts, f"{load:.1f}"), flush=True)
    kept = {way: {**m._asdict(), "ratio": m.ratio} for way, m in (("forward", forward), ("backward", backward))}
    return {"shape": shape._asdict(), "dtype": dtype, **kept, "load": round(load, 2)}


def keep(cases: list[dict[str, Any]], kind: str = "") -> Path:
    """Write what was measured, on what, and when, under the machine's name and the kind's."""
    about = machine()
    slug = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{slug}{kind}.json"
    date = datetime.now(UTC).date().isoformat()
    path.write_text(json.dumps({**about, "date": date, "cases": cases}, indent=1) + "\n")
    return path


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="least number of rounds a case")
    rounds = parser.parse_args().rounds
    print(ROW.format(*HEAD))
    print(keep([row(shape, dtype, rounds) for shape, dtype in CASES]))


if __name__ == "__main__":
    main()
