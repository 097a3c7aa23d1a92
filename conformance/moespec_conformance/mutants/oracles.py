"""What the tests that others use would notice: each way to compare, on the same mutants and on honest variants.

The right answer is the reference's own, in the same arithmetic. Every output counts, traces too; ids are compared as
sets, codes by the numbers they stand for, other integers one by one. What crashes or has another shape is noticed by
everyone. Usual inputs are each op's ordinary random ones, in float32 and, but for FP8, once more in bfloat16; then come
all float32 inputs of the suite, but for refusals and relations, where there is nothing to compare.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from multiprocessing.pool import Pool
from typing import NamedTuple, TypeAlias

import numpy as np

from moespec.formats import decode
from moespec.signatures import OPS
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import in_bfloat16
from moespec_conformance.judge.form import Malformed, outputs_of
from moespec_conformance.judge.selection import members, proper
from moespec_conformance.judge.stored import format_out
from moespec_conformance.judging import ask
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.honest import VARIANTS, Adapter, Honest
from moespec_conformance.mutants.others import ORACLES, Pair
from moespec_conformance.mutants.reach import functions_of, shows
from moespec_conformance.oracle import is_fp8
from moespec_conformance.protocol import BFLOAT16, Array, Case, Tensors
from moespec_conformance.runner import InProcess

PORTION = 8  # cases that a process takes at a time
# the usual input of ops that have none called ordinary
USUAL = (
    *("cast-e4m3-numbers", "dequantize-e4m3-blocks-apart", "requantize-float32", "lift-fp4-ragged"),
    *("dispatch-ranks-of-4", "combine-ranks-of-4"),
)


class Rate(NamedTuple):
    """What one oracle notices, on the usual inputs and on all: mutants, and honest variants."""

    oracle: str
    usual: frozenset[str]
    whole: frozenset[str]
    alarms: frozenset[str]
    alarms_on_all: frozenset[str]


class Noticed(NamedTuple):
    """That an implementation was seen to be another than the reference, in one case: by which oracles."""

    name: str
    usual: bool
    oracles: frozenset[str]


Asked: TypeAlias = tuple[str, bool]  # a case, or its twin in bfloat16


class Work(NamedTuple):
    """What a process is asked at a time, of which mutants."""

    cases: tuple[Asked, ...]
    slugs: tuple[str, ...]


def is_usual(case: Case) -> bool:
    """Whether it is an op's ordinary random input."""
    return case.arithmetic == "float32" and ("ordinary" in case.id.split("-") or case.id in USUAL)


def asked() -> tuple[list[Asked], list[Asked]]:
    """The usual inputs, twins in bfloat16 among them; and all others."""
    mine = set(Reference.profiles)
    cases = [case for case in all_cases().values() if case.arithmetic == "float32" and set(case.profiles) & mine]
    cases = [case for case in cases if case.kind not in ("reject", "relation")]
    usual = [(case.id, False) for case in cases if is_usual(case)]
    twins = [(name, True) for name, _ in usual if not is_fp8(all_cases()[name].op)]
    return usual + twins, [(case.id, False) for case in cases if not is_usual(case)]


def twin(case: Case) -> Case:
    """The same question with bfloat16 numbers."""
    return replace(case, kind="bounded", arithmetic="bfloat16", build=lambda: in_bfloat16(case.inputs))


@cache
def loaded(slug: str) -> Adapter:
    """A mutant; for no name the reference."""
    return Adapter(Honest(slug, "", MUTANTS[slug].edits if slug else ()))


@cache
def implemented(slug: str, arithmetic: str) -> InProcess:
    """A mutant, or the reference, in this arithmetic."""
    made = copy(loaded(slug))
    made.arithmetic = (arithmetic,)
    return InProcess(made)


@cache
def variants(arithmetic: str) -> list[InProcess]:
    """The honest variants in this arithmetic."""
    return [InProcess(Adapter(variant)) for variant in VARIANTS if variant.arithmetic == arithmetic]


def noticed(case: Case, got: Reply, want: Tensors) -> frozenset[str]:
    """The oracles that do not take this reply for the right answer."""
    if got.happened in ("mutated", "overwritten"):
        return frozenset()  # nothing that a comparison sees
    try:
        outputs = outputs_of(case, got.outputs)
        if all(same(outputs.get(name), right) for name, right in want.items()):
            return frozenset()
        pairs = list(compared(case, outputs, want))
    except Malformed:
        return frozenset(ORACLES)
    return frozenset(name for name, accepts in ORACLES.items() if not all(accepts(pair) for pair in pairs))


def same(got: Array | None, want: Array) -> bool:
    """Whether every bit is the same."""
    return got is not None and got.shape == want.shape and got.tobytes() == want.tobytes()


def compared(case: Case, got: Tensors, want: Tensors) -> Iterator[Pair]:
    """Every output as numbers to compare; whole numbers that differ are infinitely far."""
    holds = {tensor.name: tensor.holds for tensor in OPS[case.op].outputs}
    for name, right in want.items():
        if name not in got or got[name].shape != right.shape:
            raise Malformed("shape", name, "another shape")
        mine, its = (numbers(case, name, holds[name], given) for given in (got, want))
        if holds[name] in ("ids", "index", "flag"):
            mine = np.where(mine == its, its, np.inf)
        yield agreed(mine, its, coarse=got[name].dtype == BFLOAT16)


def numbers(case: Case, name: str, holds: str, given: Tensors) -> Array:
    """One output as float64: sets as masks (T,E), the weights of chosen experts by expert (T,E), codes decoded."""
    array, experts = given[name], case.cfg.n_routed_experts
    if holds == "codes":
        return np.asarray(decode(array, format_out(case)), np.float64)
    ids = given.get("topk_idx", case.inputs.get("topk_idx"))
    if name not in ("topk_idx", "topk_weight") or ids is None or ids.shape != array.shape:
        return array.astype(np.float64)
    count = (ids >= 0).sum(axis=-1)
    if not proper(ids, count, experts).all():
        raise Malformed("selection", name, "experts twice, or none that exist")
    if name == "topk_idx":
        return members(ids, experts).astype(np.float64)
    laid_out = np.zeros((len(ids), experts + 1))
    np.put_along_axis(laid_out, ids.astype(np.int64), array.astype(np.float64), axis=-1)
    return laid_out[:, :-1]


def agreed(got: Array, want: Array, *, coarse: bool) -> Pair:
    """Where both are NaN, or the same infinity, nothing is left to compare."""
    same = ~np.isfinite(want) & ((got == want) | (np.isnan(got) & np.isnan(want)))
    return Pair(np.where(same, 0.0, got), np.where(same, 0.0, want), coarse)


def portion(work: Work) -> list[Noticed]:
    """Some cases, in a process of their own."""
    with np.errstate(all="ignore"):
        return [found for name, stored in work.cases for found in one(all_cases()[name], work.slugs, stored=stored)]


def one(plain: Case, slugs: Sequence[str], *, stored: bool) -> list[Noticed]:
    """Who is noticed in one case, or in its twin."""
    case = twin(plain) if stored else plain
    held: list[Reply] = []
    right = implemented("", case.arithmetic)
    functions = functions_of(lambda: held.append(ask(case, right, case.inputs)))
    want = outputs_of(case, held[0].outputs)
    runners = [implemented(slug, case.arithmetic) for slug in slugs if shows(MUTANTS[slug], functions, case)]
    runners += variants(case.arithmetic)
    found = [(runner.name, noticed(case, ask(case, runner, case.inputs), want)) for runner in runners]
    return [Noticed(name, is_usual(plain), oracles) for name, oracles in found if oracles]


def kill_rates(
    slugs: Sequence[str], on_cases: Callable[[int], None] | None = None, *, whole: bool = True
) -> list[Rate]:
    """What each oracle notices of these mutants, and of the honest variants, on usual inputs, and on the whole suite's.

    on_cases hears how many more cases are done.
    """
    usual, others = asked()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        found = through(pool, usual, slugs, on_cases)
        by_all = {made.name for made in found if len(made.oracles) == len(ORACLES)}
        left = [slug for slug in slugs if slug not in by_all]  # of the others all is known
        found += through(pool, others, left, on_cases) if whole else []
    return rates(found)


def through(
    pool: Pool, cases: Sequence[Asked], slugs: Sequence[str], on_cases: Callable[[int], None] | None
) -> list[Noticed]:
    """Who is noticed in these cases."""
    work = [Work(tuple(cases[i : i + PORTION]), tuple(slugs)) for i in range(0, len(cases), PORTION)]
    found: list[Noticed] = []
    for part, made in zip(work, pool.imap(portion, work), strict=True):
        found += made
        if on_cases:
            on_cases(len(part.cases))
    return found


def rates(found: Sequence[Noticed]) -> list[Rate]:
    """By oracle."""
    honest = {variant.name for variant in VARIANTS}

    def names(oracle: str, *, usual: bool) -> frozenset[str]:
        return frozenset(n.name for n in found if oracle in n.oracles and (n.usual or not usual))

    made: list[Rate] = []
    for oracle in ORACLES:
        usual, whole = names(oracle, usual=True), names(oracle, usual=False)
        made.append(Rate(oracle, usual - honest, whole - honest, usual & honest, whole & honest))
    return made


def markdown(made: Sequence[Rate], mutants: int, *, whole: bool = True) -> str:
    """README's table; without the whole suite's inputs, two columns fewer."""
    head = (
        "compared by",
        "bugs noticed on usual inputs",
        "honest variants flagged",
        "on all of the suite's",
        "flagged",
    )
    rows = [head, ("---",) * len(head)]
    for rate in made:
        usual, every = (f"{len(found)} ({len(found) / mutants:.0%})" for found in (rate.usual, rate.whole))
        alarms = (f"{len(found)} of {len(VARIANTS)}" for found in (rate.alarms, rate.alarms_on_all))
        rows.append((rate.oracle, usual, next(alarms), every, next(alarms)))
    return "\n".join(f"| {' | '.join(row if whole else row[:3])} |" for row in rows)
