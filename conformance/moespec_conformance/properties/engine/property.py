"""A property: a sentence about an implementation's own answers, true for every input, that needs no right answer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from hypothesis.strategies import SearchStrategy

from moespec_conformance.protocol import Array, Case, Tensors

Ask = Callable[[Case], Tensors]  # the implementation's outputs, of the right shapes; it may raise Unanswered


class Broken(Exception):  # noqa: N818 - a verdict
    """The property does not hold here; the message says what was seen."""


class Trial(NamedTuple):
    """One drawn input: a question, and how the property changes it (numbers and lists, which JSON can keep)."""

    case: Case
    how: dict[str, Any]


class Property(NamedTuple):
    """A property of some ops; it is reported under the first of them."""

    name: str
    clauses: tuple[str, ...]
    ops: tuple[str, ...]
    trials: Callable[[tuple[str, ...]], SearchStrategy[Trial]]  # for an implementation of these profiles
    holds: Callable[[Ask, Trial], None]  # raises Broken if it does not


def question(op: str, config: dict[str, Any], tensors: Tensors, arithmetic: str = "float32") -> Case:
    """A question that no profile asks."""
    return Case("", op, config, lambda: dict(tensors), (), arithmetic=arithmetic)


def given(case: Case, **tensors: Array) -> Case:
    """The same question with some tensors replaced, or added."""
    held = {**case.inputs, **tensors}
    return replace(case, build=lambda: dict(held))


def without(case: Case, *names: str) -> Case:
    """The same question without some tensors."""
    held = {name: tensor for name, tensor in case.inputs.items() if name not in names}
    return replace(case, build=lambda: dict(held))


def under(case: Case, **fields: Any) -> Case:  # noqa: ANN401 - config values
    """The same question under another config."""
    held = case.inputs
    return replace(case, config={**case.config, **fields}, build=lambda: dict(held))


def of_op(case: Case, op: str, tensors: Tensors, **fields: Any) -> Case:  # noqa: ANN401 - config values
    """Another op, asked under the same config."""
    return question(op, {**case.config, **fields}, tensors, case.arithmetic)
