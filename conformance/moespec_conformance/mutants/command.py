"""`moespec mutants`: how strong the suite is, by the bugs it kills."""

import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.address import Usage
from moespec_conformance.cases import all_cases
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.honest import VARIANTS
from moespec_conformance.mutants.killers import KEPT, RECORDED, Record, record
from moespec_conformance.mutants.matrix import KILLS, TOP, Shown, classes, matrix, names
from moespec_conformance.mutants.oracles import kill_rates, markdown

out, err = Console(highlight=False, soft_wrap=False), Console(stderr=True, highlight=False, soft_wrap=True)
BEST = 5  # killers named
ENOUGH = 30  # kills of a mutant that a process has seen, and then asks it no more
CLUES = 2  # killers by which a mutant is to be named
WIDE = 3.0  # a bug should be this many times beyond the limit in the case that shows it best


class Fate(NamedTuple):
    """What became of a mutant: its killers, best first, all mutants that answer as it does, and who was suspected."""

    slug: str
    killers: tuple[Shown, ...]
    alike: tuple[str, ...]
    suspect: str | None = None

    @property
    def killed(self) -> bool:
        """Whether any case failed."""
        return bool(self.killers)

    @property
    def margin(self) -> float:
        """How many times beyond the limit, in the case that shows it best."""
        return max((killer.margin for killer in self.killers), default=0.0)

    @property
    def diagnosed(self) -> bool:
        """Whether the diagnosis suspects its class first."""
        return self.suspect in (self.slug, *self.alike)


class Strength(NamedTuple):
    """What came out: the mutants' fates, and what each honest variant was asked and told."""

    fates: list[Fate]
    asked: dict[str, int]
    flagged: dict[str, list[str]]

    @property
    def whole(self) -> bool:
        """Every mutant killed, no honest variant flagged."""
        return all(fate.killed for fate in self.fates) and not any(self.flagged.values())


def fates(slugs: Sequence[str], found: Sequence[Shown]) -> list[Fate]:
    """What became of each; classes as recorded, where only recorded killers were asked."""
    together = classes(found)
    return [Fate(slug, best_first(found, slug), together.get(slug, ())) for slug in slugs]


def best_first(found: Sequence[Shown], slug: str) -> tuple[Shown, ...]:
    """Who kills it: wrong answers before crashes, the farthest beyond the limit first."""
    kills = [shown for shown in found if shown.slug == slug and shown.status in KILLS]
    return tuple(sorted(kills, key=lambda kill: (kill.status != "fail", -kill.margin)))


def mutants(  # noqa: PLR0913, PLR0917 - one parameter an option
    only: Annotated[str, typer.Option(help="Only mutants whose slug matches this glob.")] = "*",
    op: Annotated[list[str] | None, typer.Option(help="Only cases of this op; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick/--full", help="Only the surest killers, or usual inputs.")] = False,  # noqa: FBT002
    room: Annotated[float, typer.Option(help="Multiply every bound, to see what then survives.")] = 1.0,
    keep: Annotated[bool, typer.Option("--record", help="Record the killers found.")] = False,  # noqa: FBT002
    oracles: Annotated[bool, typer.Option(help="What others' ways to compare notice, as a table.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Run the suite against every mutant of the catalogue, and against honest variants.

    Exit 1: a mutant is alive, or an honest variant is flagged.
    """
    slugs = [slug for slug in MUTANTS if fnmatch(slug, only)]
    if not slugs:
        raise Usage(f"no mutant matches {only!r}: see `moespec list mutants`")
    if keep and (quick or op or only != "*"):
        raise Usage("only the whole matrix is recorded")
    if oracles:
        sys.stdout.write(markdown(kill_rates(slugs, whole=not quick), len(slugs), whole=not quick) + "\n")
        return
    done = measured(slugs, asking(slugs, op, quick=quick), room, every=keep or quick)
    if keep:
        record({fate.slug: kept(fate) for fate in done.fates})
    if as_json:
        out.print_json(json.dumps(told(done)))
    else:
        show(done)
    raise typer.Exit(0 if done.whole else 1)


def kept(fate: Fate) -> Record:
    """What is recorded of a mutant."""
    return Record(tuple(killer.case for killer in fate.killers[:KEPT]), fate.margin, fate.alike)


def asking(slugs: Sequence[str], ops: Sequence[str] | None, *, quick: bool) -> dict[str, tuple[str, ...]]:
    """Which mutants each case is asked of: all of them, or those it is recorded to kill most surely."""
    mine = set(Reference.profiles)
    cases = [c for c in all_cases().values() if set(c.profiles) & mine and (not ops or c.op in ops)]
    if not quick:
        return {case.id: tuple(slugs) if case.arithmetic == "float32" else () for case in cases}
    kills = {case.id: tuple(slug for slug in slugs if case.id in surest(slug)) for case in cases}
    return {name: some for name, some in kills.items() if some}


def surest(slug: str) -> tuple[str, ...]:
    """The recorded killer that is surest; all of them, where what was asked before makes a difference."""
    killers = RECORDED[slug].killers if slug in RECORDED else ()
    return killers if MUTANTS[slug].remembers else killers[:1]


def measured(slugs: Sequence[str], asked: dict[str, tuple[str, ...]], room: float, *, every: bool) -> Strength:
    """The matrix and the diagnosis of what it killed; or every killer, and no names. With progress on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        cases = progress.add_task(f"{len(slugs)} mutants, {len(VARIANTS)} honest variants, by cases", total=len(asked))
        found = matrix(asked, room=room, enough=0 if every else ENOUGH, on_cases=lambda n: progress.advance(cases, n))
        made = [recalled(fate) for fate in fates(slugs, found)]
        killers = {fate.slug: smallest(fate) for fate in made if fate.killed and not every}
        bugs = progress.add_task("diagnosis, by mutants", total=len(killers))
        first = names(killers, lambda n: progress.advance(bugs, n))
    variants = [variant.name for variant in VARIANTS]
    flagged = {v: [s.case for s in found if s.slug == v and s.status in (*KILLS, "timeout")] for v in variants}
    told = {v: sum(s.slug == v for s in found) for v in variants}
    return Strength([fate._replace(suspect=first.get(fate.slug)) for fate in made], told, flagged)


def smallest(fate: Fate) -> tuple[str, ...]:
    """Of its killers by wrong answers those with the smallest inputs: what the diagnosis is made of."""
    by_answer = [killer.case for killer in fate.killers if killer.status == "fail"]
    sizes = {name: sum(t.size for t in all_cases()[name].inputs.values()) for name in by_answer}
    return tuple(sorted(by_answer, key=lambda name: sizes[name])[:CLUES])


def recalled(fate: Fate) -> Fate:
    """With the recorded class, if few cases say less: mutants that differ only elsewhere would seem alike."""
    known = RECORDED.get(fate.slug)
    return fate._replace(alike=known.alike) if known and set(known.alike) <= set(fate.alike) else fate


def told(done: Strength) -> dict[str, Any]:
    """Everything, for --json."""
    return {
        "mutants": [
            {
                "mutant": fate.slug,
                "clause": MUTANTS[fate.slug].clause,
                "killed": fate.killed,
                "killed_by": [killer.case for killer in fate.killers[:BEST]],
                "kills": len(fate.killers),
                "margin": fate.margin,
                "diagnosed": fate.diagnosed,
                "suspect": fate.suspect,
                "class": list(fate.alike),
            }
            for fate in done.fates
        ],
        "honest": [
            {"variant": name, "asked": number, "flagged": done.flagged[name]} for name, number in done.asked.items()
        ],
    }


def show(done: Strength) -> None:
    """A line for each, and what it comes to."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("mutant", "clause", "kills", "margin", "best killer", "suspected first"):
        table.add_column(column, justify="right" if column in ("kills", "margin") else "left", no_wrap=True)
    for fate in done.fates:
        margin = "exact" if fate.margin == TOP else f"{fate.margin:.3g}"
        best = fate.killers[0].case if fate.killed else "ALIVE"
        name = "" if fate.diagnosed else fate.suspect or "nobody"
        table.add_row(fate.slug, MUTANTS[fate.slug].clause, str(len(fate.killers)), margin, best, name)
    out.print(table)
    for line in sums(done):
        out.print(line)


def sums(done: Strength) -> list[str]:
    """What it comes to, in words."""
    killed = [fate for fate in done.fates if fate.killed]
    thin = [fate.slug for fate in killed if fate.margin < WIDE]
    named = sum(fate.diagnosed for fate in done.fates)
    alike = {fate.alike for fate in done.fates if len(fate.alike) > 1}
    flagged = {name: cases for name, cases in done.flagged.items() if cases}
    lines = [
        f"\n{len(killed)} of {len(done.fates)} mutants killed, {len(thin)} by less than {WIDE:g} times the limit",
        f"{len(done.flagged) - len(flagged)} of {len(done.flagged)} honest variants pass",
    ]
    if named:  # else nobody was asked for names
        lines += [
            f"{named} diagnosed by name, or as one of a class that no case tells apart; {len(alike)} such classes"
        ]
    lines += [f"ALIVE: {fate.slug}" for fate in done.fates if not fate.killed]
    lines += [f"by little: {', '.join(thin)}"] if thin else []
    lines += [f"alike: {', '.join(slugs)}" for slugs in sorted(alike)]
    return lines + [f"FLAGGED: {name} by {', '.join(cases[:BEST])}" for name, cases in flagged.items()]
