"""`moespec bench`: how fast the reference is, and how near to what this machine can do."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from moespec.signatures import OPS
from moespec_conformance.address import Usage
from moespec_conformance.bench import beside, goals, growth, ops, store
from moespec_conformance.bench.backend import BACKENDS, Backend
from moespec_conformance.bench.layers import SHAPES
from moespec_conformance.bench.plot import draw
from moespec_conformance.bench.rates import Rates, rates
from moespec_conformance.bench.rows import Row, missed, told
from moespec_conformance.bench.timing import ROUNDS, SECONDS
from moespec_conformance.showing import out

BRIEF = 0.2  # seconds of CPU, at least, for an op


def bench(  # noqa: PLR0913, PLR0917 - one parameter an option
    op: Annotated[list[str] | None, typer.Option(help="Only this op; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Ops alone: no goals, no growth.")] = False,  # noqa: FBT002
    backend: Annotated[str, typer.Option(help="numpy, or cupy: a GPU, ops alone.")] = "numpy",
    side_by_side: Annotated[bool, typer.Option("--beside", help="The layer beside torch's and others'.")] = False,  # noqa: FBT002
    rounds: Annotated[int, typer.Option(min=1, help="Least number of rounds a case.")] = ROUNDS,
    json: Annotated[Path | None, typer.Option(help="Keep the run in this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this SVG (extra `plots`).")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Compare two runs that were kept.")
    ] = None,
) -> None:
    """Time the reference: each op, its floor on this machine, the ratio, and what the rest goes to.

    One BLAS thread and its CPU time; what is compared is timed in turn, and ratios are taken inside a round.
    """
    if compare:
        side(*map(store.load, compare))
        return
    if backend not in BACKENDS:
        raise Usage(f"no backend {backend}; they are {', '.join(BACKENDS)}")
    on = BACKENDS[backend]()
    found: dict[str, Any] = {**store.about(on.device), "rows": []}
    with np.errstate(all="ignore"):
        if side_by_side:
            found |= {"versions": beside.versions(), "rows": list(shown(beside.rows(SHAPES, rounds)))}
        else:
            found |= alone(op or list(OPS), rounds, on, quick=quick or bool(op) or backend != "numpy")
    if json:
        store.keep(json, found)
        out.print(f"kept in {json}", markup=False)
    if plot:
        draw(found, plot)
        out.print(f"drawn into {plot}", markup=False)


def alone(names: list[str], rounds: int, on: Backend, *, quick: bool) -> dict[str, Any]:
    """The ops; and unless quick, the goals and the growth."""
    unknown = [name for name in names if name not in OPS]
    if unknown:
        raise Usage(f"no op {unknown[0]}; they are {', '.join(OPS)}")
    can = rates(on.send, on.clock)
    out.print(
        f"{on.device}: sgemm {can.sgemm / 1e9:.0f} GFLOP/s, dgemm {can.dgemm / 1e9:.0f} GFLOP/s, "
        f"copy {can.copy / 1e9:.1f} GB/s (read and written), measured now\n",
        markup=False,
        soft_wrap=True,
    )
    found: dict[str, Any] = {"rates": can._asdict(), "rows": list(table(names, can, on))}
    if quick:
        return found
    out.print("\nwhat is promised", markup=False)
    found["rows"] += (rows := list(shown(goals.rows(rounds))))
    not_met = sum(bool(missed(row)) for row in rows)
    out.print(f"{len(rows) - not_met} of {len(rows)} cases meet their goals", markup=False)
    out.print("\nhow cost grows", markup=False)
    found["growth"] = growth.growth(SECONDS)
    out.print("\n".join(growth.told(found["growth"])), markup=False, soft_wrap=True)
    return found


def table(names: Iterable[str], can: Rates, on: Backend) -> Iterator[Row]:
    """A line for each op, as it is measured."""
    line = "{:22} {:>9} {:>9} {:>6} {:>12} {:>6}  {}"
    out.print(line.format("op", "ms", "floor ms", "ratio", "products ms", "ratio", "the rest goes to"), soft_wrap=True)
    for row in ops.rows(names, can, BRIEF, on):
        own = row["ratios"].get(ops.OWN)
        products = (f"{row['seconds'] / own['ratio'] * 1e3:.3f}", f"{own['ratio']:.2f}") if own else ("", "")
        limit = row["limit"]
        ms = (f"{row['seconds'] * 1e3:.3f}", f"{limit * 1e3:.3f}", f"{row['seconds'] / limit:.1f}")
        out.print(line.format(row["case"], *ms, *products, ops.rest(row)), markup=False, soft_wrap=True)
        yield row


def shown(rows: Iterable[Row]) -> Iterator[Row]:
    """Each case and its ratios, as it is measured."""
    for row in rows:
        for i, ratio in enumerate(told(row)):
            head = f"{row['case']:45} {row['seconds'] * 1e3:10.2f} ms" if i == 0 else " " * 58
            out.print(f"{head}  {ratio}", markup=False, soft_wrap=True)
        for name, why in row.get("absent", {}).items():
            out.print(f"{'':58}  {name}: {why}", markup=False, soft_wrap=True)
        yield row


def side(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Two runs, ratio by ratio. Exit 1 if anything became slower."""
    if old["device"] != new["device"]:
        out.print(f"two machines: {old['device']}, and {new['device']}", markup=False)
    found = store.compared(old, new)
    for case, name, then, now, word in found:
        out.print(f"{case:45} {then:8.2f} -> {now:8.2f} of {name:14} {word}", markup=False, soft_wrap=True)
    words = [word for *_, word in found]
    out.print(", ".join(f"{words.count(word)} {word}" for word in ("slower", "faster", "same")), markup=False)
    raise typer.Exit(1 if "slower" in words else 0)
