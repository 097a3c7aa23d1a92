"""Nothing depends on the order in which tokens, rows, experts, neurons or channels are numbered.

`order` says for a letter what stands at each place afterwards: a tensor with that letter has its axis in that order,
and numbers that point at such things are renamed with them.
"""

import numpy as np
from hypothesis import strategies as st

from moespec.signatures import OPS, expected
from moespec_conformance.judge.form import letters_of
from moespec_conformance.properties.engine.comparing import Shown, alike, shown, tolerances
from moespec_conformance.properties.engine.layers import Trials
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given
from moespec_conformance.protocol import Array, Case

Order = dict[str, Array]
Names = tuple[str, ...]

WORDS = {
    "T": "tokens",
    "N": "rows",
    "E": "experts",
    "F": "neurons",
    "H": "channels",
    "V": "words",
    "W": "slots",
    "M": "rows",
    "C": "columns",
}
# what the numbers in a tensor of integers point at
POINTING = {
    "topk_idx": "E",
    "tid2eid": "E",
    "target": "V",
    "row_token": "T",
    "row_slot": "W",
    "recv_token": "T",
    "group_index": "E",
}


def in_order(array: Array, dims: Names, order: Order) -> Array:
    """An array with its axes in that order. Of blocks (`M/a0`), and of codes two to a byte, whole ones move."""
    for axis, token in enumerate(dims):
        letter = token.split(":")[0].split("/")[0]
        if letter in order:
            step = len(order[letter]) // max(array.shape[axis], 1) or 1
            array = np.take(array, order[letter][::step] // step, axis=axis)
    return array


def pointed(array: Array, letter: str, order: Order) -> Array:
    """Numbers of things, after these have new numbers; -1 stays."""
    if letter not in order or array.dtype.kind not in "iu":
        return array
    return np.append(np.argsort(order[letter]), -1)[array].astype(array.dtype)


def renamed(case: Case, order: Order) -> Case:
    """The same question about things in another order."""
    dims = {name: t.dims for name, t in expected(OPS[case.op].inputs, case.cfg).items()}
    moved = {name: in_order(tensor, dims[name], order) for name, tensor in case.inputs.items()}
    return given(case, **{n: pointed(t, POINTING.get(n, ""), order) for n, t in moved.items()})


def same_after_renaming(ask: Ask, trial: Trial) -> None:
    """The answer to the renamed question is the renamed answer."""
    order = {letter: np.array(places, np.int64) for letter, places in trial.how["order"].items()}
    case, moved = trial.case, renamed(trial.case, order)
    first, second = shown(case, ask(case)), shown(moved, ask(moved))
    want = {name: Shown(in_order(value, dims, order), dims) for name, (value, dims) in first.items()}
    alike(
        second,
        want,
        lambda: {name: in_order(e, first[name].dims, order) for name, e in tolerances(case).items() if name in first},
    )


def places(draw: st.DrawFn, size: int, groups: int = 1) -> list[int]:
    """An order of so many things; groups of neighbours stay together, in an order of their own."""
    each = size // groups
    outer = draw(st.permutations(range(groups))) if groups > 1 else [0]
    return [group * each + place for group in outer for place in draw(st.permutations(range(each)))]


@st.composite
def orders(draw: st.DrawFn, trials: st.SearchStrategy[Trial], letter: str) -> Trial:
    """A question and another order; experts move with their groups, or with their devices."""
    case, how = draw(trials)
    size, cfg = letters_of(case).get(letter, 0), case.cfg
    if letter != "E":
        return Trial(case, {**how, "order": {letter: places(draw, size)}})
    groups = max(cfg.n_group, cfg.n_device)
    chosen = places(draw, size, groups)
    blocks = [place // (size // groups) for place in chosen[:: size // groups]]
    return Trial(case, {**how, "order": {"E": chosen, "G" if cfg.n_group > 1 else "D": blocks}})


def any_order(op: str, letter: str, trials: Trials, clauses: Names = ("MOE-9",)) -> Property:
    """The property of an op, of any order of what a letter counts."""
    name = f"{op.replace('_', '-')}-any-order-of-{WORDS[letter]}"

    def drawn(profiles: Names) -> st.SearchStrategy[Trial]:
        return orders(trials(profiles), letter)

    return Property(name, clauses, (op,), drawn, same_after_renaming)
