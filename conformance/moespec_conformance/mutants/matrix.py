"""The kill matrix: every mutant against every case that it can show in.

A case is asked of the reference first, which tells the functions it runs through, and then of each mutant of one of
these. Where a mutant's answer differs from the reference's by a bit, the judge has its say. Mutants whose answers are
the same wherever they differ from the reference's are one class: no input of the suite tells them apart.
"""

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from moespec.signatures import OPS
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.judge import near
from moespec_conformance.judging import ask, judged, judgement
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.adapter import Adapter
from moespec_conformance.mutants.honest import VARIANTS
from moespec_conformance.mutants.honest import Adapter as Variant
from moespec_conformance.mutants.naming import suspect
from moespec_conformance.mutants.reach import functions_of, shows
from moespec_conformance.protocol import Case, Result, Tensors
from moespec_conformance.runner import InProcess

TOP = float(np.finfo(np.float64).max)  # how far beyond an exact check any difference is
KILLS = ("fail", "error")
PORTION = 8  # cases that a process takes at a time


class Shown(NamedTuple):
    """A case in which a mutant's answer is not the reference's: what the judge says, and a digest of the answer."""

    slug: str
    case: str
    status: str
    kind: str
    margin: float
    digest: str


@cache
def loaded(slug: str) -> InProcess:
    """A mutant, ready to be asked."""
    return InProcess(Adapter(slug))


@cache
def reference() -> InProcess:
    """The reference, ready to be asked."""
    return InProcess(Reference())


def shown(case: Case, slugs: Iterable[str]) -> list[Shown]:
    """What becomes of these mutants in one case; those that nobody can see there are left out."""
    held: list[Reply] = []
    functions = functions_of(lambda: held.append(reply_of(case, reference())))
    right = digest(case, held[0])
    found = [slug for slug in slugs if shows(MUTANTS[slug], functions, case)]
    return [made for slug in found if (made := one(case, slug, right))]


def reply_of(case: Case, runner: InProcess) -> Reply:
    """What a runner does with a case; a relation asks more than once, and has a result."""
    if case.kind != "relation":
        return ask(case, runner, case.inputs)
    result = judged(case, runner)
    return Reply(result.status, message=result.message)


def digest(case: Case, reply: Reply) -> str:
    """The same for the same outputs, bit for bit, whatever steps are named; errors are told apart by their text."""
    given: Tensors = reply.outputs or {}
    made = hashlib.sha256(f"{reply.happened}: {'' if given else reply.message}".encode())
    for name in (t.name for t in OPS[case.op].outputs if t.name in given):
        made.update(f"{name} {given[name].shape} {given[name].dtype}".encode())
        made.update(np.ascontiguousarray(given[name]).tobytes())
    return made.hexdigest()[:16]


def one(case: Case, slug: str, right: str) -> Shown | None:
    """What becomes of one mutant, unless its answer is the reference's; one that remembers has nothing to remember."""
    runner = fresh(slug) if MUTANTS[slug].remembers else loaded(slug)
    reply = reply_of(case, runner)
    mine = digest(case, reply)
    if mine == right:
        return None
    asked_again = case.kind in ("relation", "reject") or MUTANTS[slug].remembers
    result = judged(case, fresh(slug)) if asked_again else judgement(case, reply)
    return Shown(slug, case.id, result.status, result.kind, margin_of(result), mine)


def fresh(slug: str) -> InProcess:
    """A mutant that has not been asked yet."""
    return InProcess(Adapter(slug))


def margin_of(result: Result) -> float:
    """How many times beyond the limit; an exact check has none."""
    return TOP if result.margin is None or not np.isfinite(result.margin) else result.margin


class Work(NamedTuple):
    """What a process is asked at a time: mutants by case, honest variants too or not, and the room in every bound.

    enough: how often a process needs to see a mutant killed before it asks that one no more; 0 for no end.
    """

    cases: dict[str, tuple[str, ...]]
    honest: bool
    room: float
    enough: int


KILLED: Counter[str] = Counter()  # of this process


def portion(work: Work) -> list[Shown]:
    """Some cases, in a process of their own."""
    near.ROOM = work.room
    found: list[Shown] = []
    with np.errstate(all="ignore"):
        for name, slugs in work.cases.items():
            made = shown(all_cases()[name], [s for s in slugs if not 0 < work.enough <= KILLED[s]])
            KILLED.update(one.slug for one in made if one.status in KILLS)
            found += made + (held_against(all_cases()[name]) if work.honest else [])
    return found


@cache
def variants() -> list[InProcess]:
    """The honest variants, ready to be asked."""
    return [InProcess(Variant(variant)) for variant in VARIANTS]


def held_against(case: Case) -> list[Shown]:
    """What honest variants are told in one case, right or wrong."""
    asked = [v for v in variants() if case.arithmetic in v.arithmetic and set(case.profiles) & set(v.profiles)]
    results = [(variant.name, judged(case, variant)) for variant in asked]
    return [Shown(name, case.id, r.status, r.kind, margin_of(r), "") for name, r in results]


def matrix(
    asked: Mapping[str, tuple[str, ...]],
    *,
    room: float = 1.0,
    honest: bool = True,
    enough: int = 0,
    on_cases: Callable[[int], None] | None = None,
) -> list[Shown]:
    """These mutants, by case, and the honest variants, on every CPU; on_cases hears how many more cases are done."""
    names = list(asked)
    portions = [{n: asked[n] for n in names[i : i + PORTION]} for i in range(0, len(names), PORTION)]
    found: list[Shown] = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        answers = pool.imap(portion, [Work(part, honest, room, enough) for part in portions])
        for part, made in zip(portions, answers, strict=True):
            found += made
            if on_cases:
                on_cases(len(part))
    return found


def named(work: tuple[str, tuple[str, ...]]) -> tuple[str, str | None]:
    """Whom the diagnosis suspects first behind a mutant, by these cases."""
    with np.errstate(all="ignore"):
        return work[0], suspect(*work)


def names(
    killers: Mapping[str, tuple[str, ...]], on_mutant: Callable[[int], None] | None = None
) -> dict[str, str | None]:
    """The diagnosis of each mutant by cases that kill it, on every CPU."""
    found: dict[str, str | None] = {}
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for slug, first in pool.imap_unordered(named, killers.items(), PORTION):
            found[slug] = first
            if on_mutant:
                on_mutant(1)
    return found


def classes(found: Iterable[Shown]) -> dict[str, tuple[str, ...]]:
    """Each mutant's class: those that answer alike in every case where one of them is not the reference."""
    answers: dict[str, list[tuple[str, str]]] = {}
    for made in found:
        answers.setdefault(made.slug, []).append((made.case, made.digest))
    alike: dict[str, list[str]] = {}
    for slug, all_of_it in answers.items():
        alike.setdefault(json.dumps(sorted(all_of_it)), []).append(slug)
    return {slug: tuple(together) for together in alike.values() for slug in together}
