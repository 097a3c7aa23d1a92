"""An edit of the reference's own source: in a named function, a piece of its text that occurs there once."""

import ast
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple


class Edit(NamedTuple):
    """In a function ("gate.weigh", "config.MoEConfig._check_sizes") or anywhere in a file ("gate") of the reference."""

    where: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """The file, without .py."""
        return self.where.partition(".")[0]

    @property
    def function(self) -> str:
        """The function in it, or nothing."""
        return self.where.partition(".")[2]

    @property
    def name(self) -> str:
        """The function's own name, as its text would call it."""
        return self.function.rpartition(".")[2]


def source_of(module: str) -> str:
    """The reference's own text."""
    return files("moespec").joinpath(f"{module}.py").read_text(encoding="utf-8")


@cache
def span(module: str, function: str) -> tuple[int, int]:
    """Where a function's text begins and ends, decorators left out; the whole file for no name."""
    text = source_of(module)
    node: ast.AST = ast.parse(text)
    if not function:
        return 0, len(text)
    for name in function.split("."):
        node = next(n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == name)
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return starts[node.lineno - 1], starts[node.end_lineno or 0]


def edited(text: str, edits: tuple[Edit, ...]) -> str:
    """A file's text after its edits. New lines after the first are indented like the line that is replaced."""
    places = sorted(placed(text, edit) for edit in edits)
    for (_, end, _), (begin, _, _) in pairwise(places):
        if begin < end:
            raise ValueError(f"two edits of the same words: {text[begin:end]!r}")
    for begin, end, new in reversed(places):
        text = text[:begin] + new + text[end:]
    return text


def placed(text: str, edit: Edit) -> tuple[int, int, str]:
    """Where an edit falls in the file, and what it puts there."""
    begin, end = span(edit.module, edit.function)
    held = text.count(edit.old, begin, end)
    if held != 1:
        raise ValueError(f"{edit.where}: {edit.old!r} occurs {held} times, not once")
    at = text.index(edit.old, begin, end)
    line = text[text.rfind("\n", 0, at) + 1 : at + 1]
    indent = line[: len(line) - len(line.lstrip(" "))]
    return at, at + len(edit.old), edit.new.replace("\n", "\n" + indent)
