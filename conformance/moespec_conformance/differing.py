"""The command `moespec diff`: what became better and what worse between two runs."""

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from moespec_conformance.protocol import Result
from moespec_conformance.report.jsonl import Log, read
from moespec_conformance.report.words import ratio as ratio_of
from moespec_conformance.report.words import reason

out = Console(highlight=False, soft_wrap=True)
GROWN = 2.0  # times as far from the bound as before
# from right to wrong; whether a failure is excused is the caller's affair, not the implementation's
LEVELS = (("pass", "rejected_ok", "xpass"), ("quality_warning",), ("not_supported",))
LEVEL = {status: level for level, statuses in enumerate(LEVELS) for status in statuses}
WRONG, OFFERED = len(LEVELS), 2  # a level below OFFERED is an answer that counts
PASSING = ("seconds", "started")  # of a header: differs between any two runs
TITLES = {
    "regressed": ("worse", "red"),
    "grown": (f"error/bound more than {GROWN:g} times as large", "red"),
    "lost": ("right before, and no longer asked", "red"),
    "fixed": ("fixed", "green"),
    "changed": ("wrong in another way", "yellow"),
    "only_before": ("asked only before", "white"),
    "only_after": ("asked only now", "white"),
}
WORSE = ("regressed", "grown", "lost")


class Pair(NamedTuple):
    """One case before and after; nothing where it was not asked."""

    before: Result | None
    after: Result | None

    @property
    def case(self) -> str:
        """Its id."""
        return next(result.case for result in self if result)


def diff(
    before: Annotated[Path, typer.Argument(help="results.jsonl of a run, or the folder of its reports.")],
    after: Annotated[Path, typer.Argument(help="The same of a later run.")],
    as_json: Annotated[bool, typer.Option("--json", help="The same, for programs.")] = False,  # noqa: FBT002
) -> None:
    """Compare two runs. Exit 0: nothing became worse; 1: something did; 2: a run cannot be read, or was cut short."""
    old, new = read(before), read(after)
    found = differences(old, new)
    if as_json:
        typer.echo(json.dumps(told(found, old, new), indent=1))
    else:
        show(found, old, new)
    raise typer.Exit(int(worse(found)))


def differences(old: Log, new: Log) -> dict[str, list[Pair]]:
    """Cases by what became of them; those that stayed as they were are in no list."""
    before, after = ({result.case: result for result in log.results} for log in (old, new))
    found: dict[str, list[Pair]] = {name: [] for name in TITLES}
    for case in before | after:
        pair = Pair(before.get(case), after.get(case))
        for name in (name for name, holds in became(pair).items() if holds):
            found[name].append(pair)
    return found


def became(pair: Pair) -> dict[str, bool]:
    """What became of one case: more than one thing may have."""
    a, b = pair
    if a is None or b is None:
        lost = a is not None and level(a) < OFFERED
        return {"lost": lost, "only_before": b is None and not lost, "only_after": a is None}
    kept = level(a) == level(b)
    return {
        "regressed": level(b) > level(a),
        "fixed": level(b) < level(a) and level(b) < OFFERED,
        "changed": (kept and manner(a) != manner(b)) or (level(a) > level(b) >= OFFERED),
        "grown": kept and grown(a.error_over_bound, b.error_over_bound),
    }


def level(result: Result) -> int:
    """From right (0) to wrong."""
    return LEVEL.get(result.status, WRONG)


def manner(result: Result) -> tuple[str | None, ...]:
    """How a case went wrong; all right answers are alike."""
    return (result.status, result.kind, result.stage) if level(result) == WRONG else ()


def grown(before: float | None, after: float | None) -> bool:
    """Whether an answer moved away from what is right: far more than half of its way."""
    return before is not None and after is not None and after > GROWN * before


def worse(found: dict[str, list[Pair]]) -> bool:
    """Whether anything became worse."""
    return any(found[name] for name in WORSE)


def pins(old: Log, new: Log) -> dict[str, tuple[Any, Any]]:
    """What the two runs do not both stand on."""
    names = [name for name in old.header | new.header if name not in PASSING]
    pairs = {name: (old.header.get(name), new.header.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def told(found: dict[str, list[Pair]], old: Log, new: Log) -> dict[str, Any]:
    """Everything, for --json."""
    cases = {
        name: [{"case": p.case, "before": brief(p.before), "after": brief(p.after)} for p in found[name]]
        for name in found
    }
    header = {name: {"before": a, "after": b} for name, (a, b) in pins(old, new).items()}
    return {"worse": worse(found), "header": header, **cases}


def brief(result: Result | None) -> dict[str, Any] | None:
    """What is compared of a result."""
    names = ("status", "kind", "stage", "error_over_bound", "message")
    return None if result is None else {name: getattr(result, name) for name in names}


def show(found: dict[str, list[Pair]], old: Log, new: Log) -> None:
    """A list for each kind of difference, what is worse first."""
    for name, (a, b) in pins(old, new).items():
        out.print(Text.assemble((f"{name}  ", "bold"), f"{a} → {b}"))
    for name, (title, colour) in TITLES.items():
        if found[name]:
            out.print(Text(f"\n{len(found[name])} {title}", style=f"bold {colour}"))
        for pair in found[name]:
            out.print(Text(f"  {pair.case}  {said(pair.before)} → {said(pair.after)}"))
    verdict = ("WORSE", "bold red") if worse(found) else ("NOT WORSE", "bold green")
    out.print(Text.assemble("\n", verdict, f"  {len(old.results)} cases before, {len(new.results)} now"))


def said(result: Result | None) -> str:
    """A result in a few words."""
    if result is None:
        return "not asked"
    far = f", error/bound {ratio_of(result.error_over_bound)}" if result.error_over_bound is not None else ""
    where = f" at {result.stage} ({result.kind})" if level(result) == WRONG and result.stage else ""
    why = f": {reason(result)}" if result.status in ("error", "not_supported") else ""
    return f"{result.status}{where}{far}{why}"
