"""Properties: what must be true of an implementation's own answers, on inputs that are drawn, and shrunk if it is not.

One file here for each file of the reference that they are about; `engine` is how they are tried.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moespec_conformance.address import Usage
from moespec_conformance.properties import (
    balance,
    bias_update,
    capacity,
    dispatch,
    expert,
    formats,
    gate,
    layouts,
    linear,
    loss,
    mixture,
    moe,
    moe_fp8,
    norm,
    optim,
    quant,
    ranks,
    router,
)
from moespec_conformance.properties.engine.keeping import keep, kept, kept_trial
from moespec_conformance.properties.engine.literals import snippet
from moespec_conformance.properties.engine.property import Property, Trial, question
from moespec_conformance.properties.engine.running import searched, tried
from moespec_conformance.protocol import Result, Tensors
from moespec_conformance.runner import Runner

__all__ = ["PROPERTIES", "Property", "replay", "replayed", "run_properties"]

FILES = (
    *(gate, router, expert, dispatch, layouts, moe, capacity, balance, bias_update, ranks, mixture, norm, loss),
    *(formats, quant, linear, moe_fp8, optim),
)


def gathered() -> dict[str, Property]:
    """All of them by name; a name stands for one."""
    found = [each for file in FILES for each in file.FOUND]
    by_name = {each.name: each for each in found}
    if len(by_name) != len(found):
        raise RuntimeError("two properties share a name")
    return by_name


PROPERTIES = gathered()


def run_properties(  # noqa: PLR0913 - the options of a run
    runner: Runner,
    names: Iterable[str] | None = None,
    *,
    examples: int = 50,
    seed: int = 0,
    save: Path | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Try properties of an implementation, all or the named ones: the same inputs for the same seed.

    A failure's message ends with a script that shows it. With `save` it is kept there as a folder, and what is kept
    there is tried first.
    """
    results: list[Result] = []
    for name in PROPERTIES if names is None else names:
        result = run_one(PROPERTIES[name], runner, examples, seed, save)
        results.append(result)
        if on_result:
            on_result(result)
    return results


def run_one(found: Property, runner: Runner, examples: int, seed: int, save: Path | None) -> Result:
    """What became of one property; first what broke it before."""
    for folder in kept(save, found.name):
        result = replay(folder, runner)
        if result.status != "pass":
            return result
    result, trial = searched(found, runner, examples, seed)
    if trial is None:
        return result
    where = f"\nkept in {keep(save, found, trial, result.message)}" if save else ""
    return told(result, snippet(found.name, trial, address_of(runner)) + where)


def told(result: Result, more: str) -> Result:
    """A result whose message goes on."""
    return replace(result, message=f"{result.message}\n\n{more}")


def address_of(runner: Any) -> str:  # noqa: ANN401 - a Runner of either kind
    """Where the implementation is found again: its address, or its class."""
    if hasattr(runner, "address"):
        return str(runner.address)
    kind = runner.adapter.__class__
    return f"{kind.__module__}:{kind.__qualname__}"


def replay(folder: Path, runner: Runner) -> Result:
    """Try a kept counterexample again."""
    name, trial = kept_trial(folder)
    if name not in PROPERTIES:
        raise Usage(f"{folder}: there is no property {name!r}")
    result = tried(PROPERTIES[name], runner, trial)
    return result if result.status == "pass" else told(result, f"kept in {folder}")


def replayed(  # noqa: PLR0913, PLR0917 - what a pasted script holds
    name: str, config: dict[str, Any], inputs: Tensors, how: dict[str, Any], runner: Runner, arithmetic: str = "float32"
) -> Result:
    """Try a counterexample that is written out."""
    op = PROPERTIES[name].ops[0]
    return tried(PROPERTIES[name], runner, Trial(question(op, config, inputs, arithmetic), how))
