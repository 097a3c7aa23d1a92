"""Which functions of the reference a case runs through: an edit elsewhere cannot show in it."""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import moespec
from moespec_conformance.mutants.mutant import Mutant
from moespec_conformance.oracle import is_fp8
from moespec_conformance.protocol import Case
from moespec_conformance.source import reached

HOME = moespec.__path__[0]
# the files of FP8 and FP4, and their checks
FP8 = {
    *("recipes", "formats", "storage", "quant", "accumulate", "linear", "expert_fp8", "moe_fp8", "optim"),
    *("fields_fp8", "signatures_fp8", "checks_fp8", "ops_fp8", "ops_moe_fp8"),
}


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


def shows(mutant: Mutant, functions: frozenset[str], case: Case) -> bool:
    """Whether a case, which runs through these functions, can show the mutant at all."""
    if case.kind != "reject" and (mutant.direction == "config" or (only_fp8(mutant) and not is_fp8(case.op))):
        return False
    return any(touches(edit.where, functions) for edit in mutant.edits)


def only_fp8(mutant: Mutant) -> bool:
    """Whether all that is edited is of sections 18 to 22, whose fields other ops never read."""
    return all(edit.module in FP8 for edit in mutant.edits)


def touches(where: str, functions: frozenset[str]) -> bool:
    """Whether what is edited is run; what stands outside functions may matter wherever its file is used."""
    module, _, function = where.partition(".")
    if function:
        return where in functions
    return any(name.partition(".")[0] in reached(frozenset([module])) for name in functions)
