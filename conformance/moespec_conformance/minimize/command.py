"""`moespec minimize`: the smallest input that still fails, shown, and written as a folder that can be asked again."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from moespec.signatures import OPS, expected
from moespec_conformance.address import Usage
from moespec_conformance.case_folder import case_from, folder_of, write
from moespec_conformance.cases import all_cases
from moespec_conformance.judge.form import letters_of
from moespec_conformance.judging import judged
from moespec_conformance.minimize import minimized
from moespec_conformance.minimize.cutting import letter_of
from moespec_conformance.minimize.search import LIMIT, Search
from moespec_conformance.program import started
from moespec_conformance.protocol import BFLOAT16, Array, Case
from moespec_conformance.report.terminal import failure

FEW = 64  # numbers that are shown
out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def minimize(
    impl: Annotated[str, typer.Argument(help="path.py[:Name], an entry point NAME[:ARG], or module:Name.")],
    case: Annotated[str, typer.Option(help="The case that fails: its id, or its folder.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write the smallest case; by default NAME-minimal here.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one question.")] = 60.0,
) -> None:
    """Find the smallest input on which an implementation fails a case as it does, at the same stage."""
    start = named(case)
    place = folder or Path(f"{start.id}-minimal")
    runner = started(impl, timeout)
    try:
        with err.status("") as status:
            found = minimized(start, runner, lambda search: status.update(progress(search)))
        note = f"The smallest input found on which {runner.name} fails as in {start.id}."
        small = replace(found.case, id=f"{start.id}-minimal", note=note, profiles=())
        write(place, small)
        out.print(told(start, found))
        out.print(failure(judged(small, runner), impl, place))
    finally:
        runner.close()


def named(name: str) -> Case:
    """A case by its id or its folder."""
    if folder := folder_of(name):
        return case_from(folder)
    if name not in all_cases():
        raise Usage(f"no case {name!r}: see `moespec list cases`")
    return all_cases()[name]


def progress(search: Search) -> str:
    """How far it is."""
    return f"{search.tried} tried; {sizes(search.case)}"


def sizes(case: Case) -> str:
    """The letters that its tensors have."""
    return ", ".join(f"{letter} {size}" for letter, size in letters(case).items())


def letters(case: Case) -> dict[str, int]:
    """How many there are of each letter of its tensors."""
    inputs = [t for t in expected(OPS[case.op].inputs, case.cfg).values() if t.name in case.inputs]
    every = letters_of(case)
    return {letter: every[letter] for letter in dict.fromkeys(letter_of(token) for t in inputs for token in t.dims)}


def told(start: Case, found: Search) -> Text:
    """What is left of a case: its sizes and config, where they differ from before, and its numbers if they are few."""
    case = found.case
    made = Text.assemble((f"{start.id}, as small as it gets", "bold"), f" ({found.tried} others were tried)\n")
    if found.tried >= LIMIT:
        made.append(f"The search ended after {LIMIT} of them: it may get smaller still.\n")
    before, now = letters(start), letters(case)
    made.append("sizes   ", "bold")
    made.append(
        ", ".join(f"{n} {s} → {now.get(n, 0)}" if now.get(n, 0) != s else f"{n} {s}" for n, s in before.items())
    )
    made.append("\nconfig  ", "bold")
    changed = [f"{n} {start.config[n]} → {v}" for n, v in case.config.items() if start.config.get(n) != v]
    made.append((", ".join(changed) or "as it was") + "\n")
    few = sum(tensor.size for tensor in case.inputs.values()) <= FEW
    for name, tensor in case.inputs.items():
        made.append(f"{name} {tensor.shape} {tensor.dtype}" + (f" = {literal(tensor)}\n" if few else "\n"))
    return made


def literal(tensor: Array) -> str:
    """Numbers as they are written in Python."""
    wide = tensor.astype(np.float32) if tensor.dtype == BFLOAT16 else tensor
    return " ".join(np.array2string(wide, separator=", ", threshold=FEW + 1, formatter={"all": str}).split())
