"""What a search tries to drop: tokens, slots, experts, columns, shared experts, and inputs that may be left out."""

from itertools import chain, islice, product
from math import lcm

import numpy as np

from moespec.shapes import per_byte, width
from moespec.signatures import OPS, expected, optional
from moespec_conformance.judge.form import letters_of
from moespec_conformance.minimize.cutting import letter_of, without
from moespec_conformance.minimize.search import Candidates, Search, thin, varied
from moespec_conformance.protocol import Case

FIRST = ("T", "P", "N", "M", "U", "B", "W", "V", "R", "C")  # letters that no config fixes
PICKS = 64  # ways to drop one expert of every group that are tried


def letters(search: Search) -> None:
    """Tokens, rows and all else that no config counts."""
    for letter in FIRST:
        drop(search, letter)


def columns(search: Search) -> None:
    """Columns of the model, and of the experts."""
    drop(search, "H")
    drop(search, "F")


def drop(search: Search, letter: str) -> None:
    """All indices of a letter that may go; where there are blocks, whole blocks of those."""
    case = search.case
    given = [t for t in expected(OPS[case.op].inputs, case.cfg).values() if t.name in case.inputs]
    tokens = [token for t in given for token in t.dims if letter_of(token) == letter]
    if not tokens:
        return
    size = letters_of(case)[letter]
    widths = [width(token, case.cfg) if "/" in token else per_byte(token, case.cfg) for token in tokens]
    grain = lcm(*(w for w in widths if w < size))
    units = [tuple(range(start, min(start + grain, size))) for start in range(0, size, grain)]
    thin(search, units, lambda kept: [without(case, letter, kept)])


def slots(search: Search) -> None:
    """Experts of a token: as few as will do."""
    k = search.case.config["num_experts_per_tok"]
    search.take(without(search.case, "K", list(range(few))) for few in range(1, k))


def shared(search: Search) -> None:
    """Shared experts: as few as will do."""
    case = search.case
    if "shared_up_proj" in case.inputs or "shared_up_proj_codes" in case.inputs:
        f = case.cfg.moe_intermediate_size
        for few in range(case.cfg.n_shared_experts):
            if search.take([without(case, "SF", list(range(few * f)), n_shared_experts=few)]):
                return


def extras(search: Search) -> None:
    """Inputs that may be left out."""
    case = search.case
    free = [t.name for t in expected(OPS[case.op].inputs, case.cfg).values() if optional(t) and t.name in case.inputs]
    for name in free:
        rest = {key: tensor for key, tensor in search.case.inputs.items() if key != name}
        search.take([varied(search.case, {**search.case.config}, rest)])


def experts(search: Search) -> None:
    """Experts that nobody names: whole groups first, then equally many of each group."""
    groups(search)
    while search.case.cfg.n_group > 1 and search.take(fewer_each(search.case)):
        pass
    if search.case.cfg.n_group == 1:
        drop(search, "E")


def groups(search: Search) -> None:
    """Groups of experts."""
    case, size = search.case, search.case.cfg.experts_per_group
    units = [tuple(range(g * size, (g + 1) * size)) for g in range(case.cfg.n_group)]
    thin(search, units, lambda kept: fewer_groups(case, kept))


def fewer_groups(case: Case, kept: list[int]) -> Candidates:
    """With the experts of some groups: of these as many are chosen as were, or as many fewer as there are."""
    groups = len(kept) // case.cfg.experts_per_group
    chosen = case.cfg.topk_group
    for topk in dict.fromkeys((min(chosen, groups), max(1, chosen - case.cfg.n_group + groups), 1)):
        score = {"group_score": None} if groups == 1 else {}
        yield without(case, "E", kept, n_group=groups, topk_group=topk, **score)


def fewer_each(case: Case) -> Candidates:
    """With half of the experts of each group, or with one less; which one, may differ from group to group."""
    count, size = case.cfg.n_group, case.cfg.experts_per_group
    place = np.arange(count * size).reshape(count, size)
    if size > 2:  # noqa: PLR2004 - else a half is one
        yield from (without(case, "E", part.reshape(-1).tolist()) for part in np.array_split(place, 2, axis=1))
    for picks in ways(count, size) if size > 1 else ():
        gone = place[range(count), picks]
        yield without(case, "E", [e for e in range(count * size) if e not in gone])


def ways(count: int, size: int) -> list[tuple[int, ...]]:
    """Some ways to pick one of each group: along diagonals first."""
    along = (tuple((first + step * g) % size for g in range(count)) for step in range(size) for first in range(size))
    return list(dict.fromkeys(islice(chain(along, product(range(size), repeat=count)), 4 * PICKS)))[:PICKS]
