"""Questions about the layer and its parts, for an implementation of some profiles."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st

from moespec_conformance.properties.engine.configs import Profiles, configs, members
from moespec_conformance.properties.engine.drawing import Config, questions
from moespec_conformance.properties.engine.property import Trial

Trials = Callable[[Profiles], st.SearchStrategy[Trial]]
COUNT = st.integers(0, 5)  # tokens, or rows
SEEDS = st.integers(0, 255)  # of which directions, masks and rows are made


@st.composite
def of_layer(draw: st.DrawFn, profiles: Profiles, op: str, extra: tuple[str, ...], fixed: Config) -> Trial:
    """A question about a layer, or a part of one."""
    config, count = configs(draw, profiles, **fixed), draw(COUNT)
    return questions(draw, op, config, {"T": count, "N": count}, extra)


def of_members(profiles: Profiles, op: str, extra: tuple[str, ...], fixed: Config) -> st.SearchStrategy[Trial]:
    """The same; nothing where no model of these profiles has such rules."""
    return of_layer(profiles, op, extra, fixed) if members(profiles, fixed) else st.nothing()


def asked(op: str, *extra: str, **fixed: Any) -> Trials:  # noqa: ANN401 - config values
    """An op's questions, with these optional tensors, under configs with these fields."""
    return partial(of_members, op=op, extra=extra, fixed=fixed)


def also(trials: Trials, name: str, values: st.SearchStrategy[Any]) -> Trials:
    """The same questions, with a number more that says how they are changed."""
    return lambda profiles: st.builds(with_how, trials(profiles), st.just(name), values)


def seeded(trials: Trials) -> Trials:
    """The same questions with a seed."""
    return also(trials, "seed", SEEDS)


def with_how(trial: Trial, name: str, value: Any) -> Trial:  # noqa: ANN401 - whatever JSON keeps
    """A trial that is told one thing more."""
    return trial._replace(how={**trial.how, name: value})
