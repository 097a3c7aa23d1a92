"""What a unit's answers say: which hypotheses still stand, and which open points that settles.

A hypothesis falls with the first answer that is not its own. A point is settled if some hypothesis stands, and all that
stand say the same about it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from hypotheses import HOPPER, HYPOTHESES, Hypothesis, answer
from problems import STEP, Problems, same
from vectors import Recorded


class Point(NamedTuple):
    """An open point: the details that are about it, and which problems ask about it."""

    name: str
    details: tuple[str, ...]
    asked: Callable[[Problems], bool]


def begun(p: Problems) -> bool:
    """One accumulator, that begins at a C that is not 0."""
    return not p.promote and bool(np.any(p.c != 0))


def chained(p: Problems) -> bool:
    """One accumulator, through more than one instruction."""
    return not p.promote and p.a.shape[-1] > STEP


def promoted(p: Problems) -> bool:
    """Accumulators that are added in float32."""
    return p.promote > 0


def of_family(name: str) -> Callable[[Problems], bool]:
    """Designed problems, some of them of this family."""
    return partial(_of_family, name)


def _of_family(name: str, p: Problems) -> bool:
    return any(said.startswith(f"{name} ") for said in p.said)


POINTS = (
    Point("C that is not 0", ("c",), begun),
    Point("C that is subnormal", ("c_subnormal",), of_family("P9")),
    Point("chained K", ("step", "interleaved", "between"), chained),
    Point("promotion", (), promoted),
    Point("subnormal factors and zeros", ("subnormals", "zeros"), of_family("P6")),
)


def differences(h: Hypothesis, recorded: Sequence[Recorded]) -> int:
    """How many answers are not this hypothesis's."""
    return sum(int((~same(answer(h, r.problems), r.d)).sum()) for r in recorded if not r.problems.free)


def fits(h: Hypothesis, recorded: Sequence[Recorded]) -> bool:
    """Whether no answer speaks against it; the first that does ends the search."""
    return all(same(answer(h, r.problems), r.d).all() for r in recorded if not r.problems.free)


def tally(recorded: Sequence[Recorded]) -> dict[str, int]:
    """Every hypothesis, and how many answers speak against it."""
    return {name: differences(h, recorded) for name, h in HYPOTHESES.items()}


def changed(h: Hypothesis) -> dict[str, Any]:
    """The details in which a hypothesis is not Hopper's."""
    return {k: v for k, v in h._asdict().items() if v != getattr(HOPPER, k)}


def two_together() -> dict[str, Hypothesis]:
    """Each two hypotheses that change different details, as one."""
    found = dict[str, Hypothesis]()
    for (x, one), (y, other) in combinations(HYPOTHESES.items(), 2):
        if one != HOPPER and not changed(one).keys() & changed(other).keys():
            found[f"{x}; {y}"] = HOPPER._replace(**changed(one), **changed(other))
    return found


def standing(tallied: dict[str, int], recorded: Sequence[Recorded]) -> dict[str, Hypothesis]:
    """Those that nothing speaks against; if there is none, two of them together."""
    alone = {name: HYPOTHESES[name] for name, against in tallied.items() if not against}
    if alone:
        return alone
    return {name: h for name, h in two_together().items() if fits(h, recorded)}


def points(stand: dict[str, Hypothesis], recorded: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Each open point: whether it is settled, as what, and by how many answers."""
    found = list[dict[str, Any]]()
    for point in POINTS:
        asked = sum(r.d.size for r in recorded if not r.problems.free and point.asked(r.problems))
        said = {tuple(getattr(h, detail) for detail in point.details) for h in stand.values()}
        settled = bool(asked) and len(said) == 1
        values = dict(zip(point.details, next(iter(said)), strict=True)) if settled else {}
        found.append({"point": point.name, "settled": settled, "as": values, "answers": asked})
    return found


class Verdict(NamedTuple):
    """How many answers speak against each hypothesis, those that stand, and what that says of each open point."""

    tally: dict[str, int]
    standing: list[str]
    points: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """The same to read."""
        out = [f"  {against:7d} answers against: {name}" for name, against in self.tally.items()]
        none = "none, alone or two together: this unit adds in another way"
        out.append(f"standing: {', '.join(self.standing) or none}")
        for point in self.points:
            how = ", ".join(f"{k} {v}" for k, v in point["as"].items()) or "as the model says"
            said = f"settled: {how}" if point["settled"] else "open"
            out.append(f"{point['point']}: {said} ({point['answers']} answers)")
        return out


def judged(recorded: Sequence[Recorded]) -> Verdict:
    """All of it, from answers alone."""
    tallied = tally(recorded)
    stand = standing(tallied, recorded)
    return Verdict(tallied, sorted(stand), points(stand, recorded))
