"""report.html: one file that needs no network, made of results alone."""

import math
from bisect import bisect_left
from collections import Counter
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from moespec_conformance.checking import JUDGED
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.protocol import BAD, Array, Result
from moespec_conformance.report.heat import Heat
from moespec_conformance.report.histogram import axis_of, histograms
from moespec_conformance.report.jsonl import Log
from moespec_conformance.report.tally import (
    ELSEWHERE,
    STATUSES,
    by_clause,
    by_op,
    parts,
    suspected,
    suspects,
)
from moespec_conformance.report.words import again, clean, linked, ratio, reason
from moespec_conformance.spec import clauses

WRONG = 5  # colours of what is beyond its bound
MOSTLY = 0.9  # of the cells beyond their bounds: a few that lie farther must not flatten the rest
LEFT_OUT = ("not_supported", "xfail", "waived", "xpass", "quality_warning")
MOST = 3  # suspects described at the top


class Strip(NamedTuple):
    """Neighbouring cells of one colour, in one row of a picture."""

    row: int
    column: int
    width: int
    level: int


def page(log: Log, heat: Heat | None = None) -> str:
    """The whole file."""
    environment = Environment(
        loader=PackageLoader("moespec_conformance", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return clean(environment.get_template("report.html.j2").render(**view(log), **pictures(log, heat)))


def view(log: Log) -> dict[str, Any]:
    """Everything that is said in words and tables."""
    failures = [result for result in log.results if result.status in BAD]
    statuses = [status for status in STATUSES if log.counts[status]]
    asked = [row for row in by_clause(log.results) if row.counts]
    return {
        "log": log,
        "right": sum(log.counts[status] for status in JUDGED),
        "statuses": statuses,
        "ops": by_op(log.results),
        "asked": asked,
        "unasked": [name for name in clauses() if name not in {row.name for row in asked}],
        "elsewhere": [ELSEWHERE] if any(row.counts[ELSEWHERE] for row in asked) else [],
        "columns": sorted(statuses, key=lambda status: status not in BAD),
        "clauses": clauses(),
        "failures": failures,
        "most": MOST,
        "suspected": suspected,
        "suspects": suspects(failures),
        "parts": parts,
        "catalogue": len(MUTANTS),
        "again": again,
        "ratio": ratio,
        "linked": linked,
        "left_out": left_out(log),
    }


def pictures(log: Log, heat: Heat | None) -> dict[str, Any]:
    """The histograms, and the heat map if there is one."""
    drawn = heat if heat and heat.cells.size else None
    return {
        "axis": axis_of(log.results),
        "histograms": histograms(log.results),
        "heat": drawn,
        "strips": strips(drawn.cells) if drawn else [],
        "levels": levels(drawn.cells) if drawn else (),
    }


def strips(cells: Array) -> list[Strip]:
    """A picture's cells, neighbours of one colour together."""
    made: list[Strip] = []
    edges = levels(cells)
    for number, row in enumerate(cells):
        column = 0
        for found, run in groupby(bisect_left(edges, float(value)) for value in row):
            width = len(list(run))
            made.append(Strip(number, column, width, found))
            column += width
    return made


def levels(cells: Array) -> tuple[float, ...]:
    """Up to which error/bound each colour goes, the last one's apart: 0, half, 1; from there to most of the cells."""
    beyond = cells[np.isfinite(cells) & (cells > 1)]
    most = float(np.quantile(beyond, MOSTLY)) if beyond.size else 1.0
    decades = max(math.ceil(math.log10(most)), WRONG)
    return (0.0, 0.5, 1.0, *(10.0 ** round(decades * step / WRONG) for step in range(1, WRONG)))


def left_out(log: Log) -> list[tuple[str, list[tuple[str, list[Result]]]]]:
    """By status, what neither passed nor failed, under the reason it gives, the commonest first."""
    made: list[tuple[str, list[tuple[str, list[Result]]]]] = []
    for status in LEFT_OUT:
        found = [result for result in log.results if result.status == status]
        reasons = Counter(reason(result) for result in found)
        groups = [(why, [r for r in found if reason(r) == why]) for why, _ in reasons.most_common()]
        made += [(status, groups)] if groups else []
    return made
