"""Tokens do not know of each other: a batch gives what its parts give, and its gradients are the sum of theirs."""

import numpy as np
from hypothesis import strategies as st

from moespec.signatures import OPS, expected
from moespec_conformance.judge.form import letters_of
from moespec_conformance.properties.engine.comparing import Answered, Shown, alike, shown, tolerances
from moespec_conformance.properties.engine.layers import Trials
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given
from moespec_conformance.properties.engine.renaming import WORDS, Names
from moespec_conformance.protocol import Case


def part(case: Case, letter: str, cut: slice) -> Case:
    """The same question about some of the tokens."""
    dims = {name: t.dims for name, t in expected(OPS[case.op].inputs, case.cfg).items()}
    return given(case, **{n: t[cut] for n, t in case.inputs.items() if dims[n][:1] == (letter,)})


def joined(first: Answered, second: Answered, letter: str) -> Answered:
    """What two parts say of the whole: one after the other, or added up."""
    made: Answered = {}
    for name, (a, dims) in first.items():
        b = second[name].value
        made[name] = Shown(np.concatenate([a, b]) if dims[:1] == (letter,) else a.astype(np.float64) + b, dims)
    return made


def same_in_parts(ask: Ask, trial: Trial) -> None:
    """The whole is its parts. These have no larger bounds than it has: fewer terms, each with the same errors."""
    case, (letter, cut) = trial.case, trial.how["cut"]
    parts = [part(case, letter, slice(None, cut)), part(case, letter, slice(cut, None))]
    whole, first, second = (shown(asked, ask(asked)) for asked in (case, *parts))
    alike(whole, joined(first, second, letter), lambda: tolerances(case))


@st.composite
def cuts(draw: st.DrawFn, trials: st.SearchStrategy[Trial], letter: str) -> Trial:
    """A question, and where to cut it in two."""
    case, how = draw(trials)
    return Trial(case, {**how, "cut": [letter, draw(st.integers(0, letters_of(case)[letter]))]})


def in_parts(op: str, trials: Trials, letter: str = "T", clauses: Names = ("MOE-9",)) -> Property:
    """The property of an op, of any cut."""
    name = f"{op.replace('_', '-')}-in-parts-by-{WORDS[letter]}"

    def drawn(profiles: Names) -> st.SearchStrategy[Trial]:
        return cuts(trials(profiles), letter)

    return Property(name, clauses, (op,), drawn, same_in_parts)
