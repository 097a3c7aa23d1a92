"""`moespec mutants`: how strong the suite is, by the bugs it kills."""

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moespec_conformance.address import Usage
from moespec_conformance.cases import all_cases
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.matrix import KILLS, PORTION, TOP, Shown, classes, matrix

out, err = Console(highlight=False, soft_wrap=False), Console(stderr=True, highlight=False, soft_wrap=True)
BEST = 5  # killers named
WIDE = 3.0  # a bug should be this many times beyond the limit in the case that shows it best


class Fate(NamedTuple):
    """What became of a mutant: its killers, best first, and all mutants that answer as it does."""

    slug: str
    killers: tuple[Shown, ...]
    alike: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """Whether any case failed."""
        return bool(self.killers)

    @property
    def margin(self) -> float:
        """How many times beyond the limit, in the case that shows it best."""
        return max((killer.margin for killer in self.killers), default=0.0)


def fates(slugs: Sequence[str], found: Sequence[Shown]) -> list[Fate]:
    """What became of each."""
    together = classes(found)
    return [
        Fate(
            slug, tuple(best_first([s for s in found if s.slug == slug and s.status in KILLS])), together.get(slug, ())
        )
        for slug in slugs
    ]


def best_first(kills: list[Shown]) -> tuple[Shown, ...]:
    """Wrong answers before crashes, the farthest beyond the limit first."""
    return tuple(sorted(kills, key=lambda kill: (kill.status != "fail", -kill.margin)))


def told(fate: Fate) -> dict[str, Any]:
    """One mutant, for --json."""
    return {
        "mutant": fate.slug,
        "clause": MUTANTS[fate.slug].clause,
        "killed": fate.killed,
        "killed_by": [killer.case for killer in fate.killers[:BEST]],
        "kills": len(fate.killers),
        "margin": fate.margin,
        "class": list(fate.alike),
    }


def mutants(
    only: Annotated[str, typer.Option(help="Only mutants whose slug matches this glob.")] = "*",
    op: Annotated[list[str] | None, typer.Option(help="Only cases of this op; may be repeated.")] = None,
    room: Annotated[float, typer.Option(help="Multiply every bound, to see what then survives.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Run the suite against every mutant of the catalogue. Exit 1: one is alive."""
    slugs = [slug for slug in MUTANTS if fnmatch(slug, only)]
    if not slugs:
        raise Usage(f"no mutant matches {only!r}: see `moespec list mutants`")
    done = fates(slugs, asked(slugs, asking(op), room))
    if as_json:
        out.print_json(json.dumps({"mutants": [told(fate) for fate in done]}))
    else:
        show(done)
    raise typer.Exit(0 if all(fate.killed for fate in done) else 1)


def asking(ops: Sequence[str] | None) -> list[str]:
    """The cases to ask: of these ops, in what the reference computes in."""
    return [c.id for c in all_cases().values() if c.arithmetic == "float32" and (not ops or c.op in ops) and set(c.profiles) & set(Reference.profiles)]


def asked(slugs: Sequence[str], names: Sequence[str], room: float) -> list[Shown]:
    """The matrix, with a progress bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        cases = progress.add_task(f"{len(slugs)} mutants, by cases", total=len(names))
        return matrix(slugs, names, room=room, on_cases=lambda n: progress.advance(cases, n))


def show(done: Sequence[Fate]) -> None:
    """A line for each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("mutant", "clause", "kills", "margin", "best killer"):
        table.add_column(column, justify="right" if column in ("kills", "margin") else "left", no_wrap=True)
    for fate in done:
        margin = "exact" if fate.margin == TOP else f"{fate.margin:.3g}"
        best = fate.killers[0].case if fate.killed else "ALIVE"
        table.add_row(fate.slug, MUTANTS[fate.slug].clause, str(len(fate.killers)), margin, best)
    out.print(table)
    alive = [f.slug for f in done if not f.killed]
    thin = [f.slug for f in done if f.killed and f.margin < WIDE]
    out.print(
        f"\n{len(done) - len(alive)} of {len(done)} killed, {len(thin)} of them by less than {WIDE:g} times the limit"
    )
    for name, slugs in (("alive", alive), ("by little", thin)):
        if slugs:
            out.print(f"{name}: {', '.join(slugs)}")
