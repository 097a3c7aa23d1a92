"""Which functions of the reference a case runs through: an edit elsewhere cannot show in it."""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import moespec
from moespec_conformance.mutants.mutant import Mutant
from moespec_conformance.source import reached

HOME = moespec.__path__[0]


def functions_of(call: Callable[[], object]) -> frozenset[str]:
    """The functions ("gate.weigh") that a call runs through."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before: Any = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return frozenset(named(code) for code in seen if code.co_filename.startswith(HOME))


def named(code: CodeType) -> str:
    """A function as edits name it: the outermost one, by file."""
    file = code.co_filename[len(HOME) + 1 :].removesuffix(".py")
    return f"{file}.{code.co_qualname.partition('.<locals>')[0]}"


def shows(mutant: Mutant, functions: frozenset[str]) -> bool:
    """Whether a case that runs through these functions can show the mutant at all."""
    return any(touches(edit.where, functions) for edit in mutant.edits)


def touches(where: str, functions: frozenset[str]) -> bool:
    """Whether what is edited is run; what stands outside functions may matter wherever its file is used."""
    module, _, function = where.partition(".")
    if function:
        return where in functions
    return any(name.partition(".")[0] in reached(frozenset([module])) for name in functions)
