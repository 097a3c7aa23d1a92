"""The reference with edits in its source, as modules beside the real ones: what is edited, and all that imports it.

Modules that no edit can reach are the reference's own. Nothing in sys.modules changes: an edited module's imports are
answered from its own family. Arithmetic may be replaced as well: then every module is made anew, `a @ b` and
`a.sum(axis)` are np.matmul and np.sum, and some of NumPy's functions are others.
"""

import ast
import builtins
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import numpy as np

import moespec
from moespec_conformance import roundings
from moespec_conformance.edits import Edit, edited, source_of

Tensors = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """A reading's code: the reference's own modules, or a mutant's."""

    modules: dict[str, ModuleType] = field(default_factory=dict[str, ModuleType])

    def module(self, name: str) -> Any:  # noqa: ANN401 - its names are data here
        """One of its modules."""
        return self.modules.get(name) or importlib.import_module(f"moespec.{name}")

    @property
    def table(self) -> dict[str, Callable[..., Tensors]]:
        """Its ops, unchecked, by name."""
        run: dict[str, Callable[..., Tensors]] = self.module("ops").RUN
        return run

    def config(self, config: Any) -> Any:  # noqa: ANN401 - a MoEConfig of this source
        """Its own reading of a config, checked by its own checks."""
        return self.module("config").MoEConfig.from_dict(config)


REFERENCE = Source()


@cache
def imports() -> dict[str, frozenset[str]]:
    """The reference's files, lower floors first, and what each imports of the others."""
    found = {info.name: _imports(info.name) for info in iter_modules(moespec.__path__)}
    order: dict[str, frozenset[str]] = {}
    while found:
        ready = [name for name, needs in found.items() if needs <= order.keys()]
        order |= {name: found.pop(name) for name in ready}
    return order


def _imports(name: str) -> frozenset[str]:
    nodes = [node for node in ast.walk(ast.parse(source_of(name))) if isinstance(node, ast.ImportFrom)]
    named = (node.module or "" for node in nodes)
    return frozenset(name.removeprefix("moespec.") for name in named if name.startswith("moespec."))


@cache
def reached(modules: frozenset[str]) -> frozenset[str]:
    """These files, and all that import them, directly or not."""
    found = set(modules)
    for name, needs in imports().items():
        if needs & found:
            found.add(name)
    return frozenset(found)


def load(edits: Sequence[Edit], arithmetic: Mapping[str, Any] | None = None) -> Source:
    """The reference with these edits (those of several mutants may stand together), and with other arithmetic."""
    made: dict[str, ModuleType] = {}
    numpy = np
    if arithmetic:
        numpy = ModuleType("numpy")
        numpy.__dict__.update(vars(np), **arithmetic)

    def given(name: str, *args: Any) -> Any:  # noqa: ANN401 - what __import__ takes and gives
        inner = name.removeprefix("moespec.")
        own = numpy if name == "numpy" else made.get(inner) if name != inner else None
        return own or builtins.__import__(name, *args)

    affected = imports() if arithmetic else reached(frozenset(edit.module for edit in edits))
    for name in (name for name in imports() if name in affected):
        mine = tuple(edit for edit in edits if edit.module == name)
        module = ModuleType(f"moespec.{name}")
        module.__dict__.update(vars(roundings) if mine else {}, __name__=f"moespec.{name}")
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": given}
        made[name] = module
        exec(compiled(name, mine, by_name=bool(arithmetic)), module.__dict__)  # noqa: S102 - the reference's own text
    return Source(made)


@cache
def compiled(name: str, edits: tuple[Edit, ...], *, by_name: bool) -> Any:  # noqa: ANN401 - a code object
    """A file's code after its edits; the file's name stays, so that errors point into it."""
    file = sys.modules["moespec"].__path__[0] + f"/{name}.py"
    tree: ast.Module = ast.parse(edited(source_of(name), edits), file)
    return compile(ast.fix_missing_locations(ByName().visit(tree)) if by_name else tree, file, "exec")


class ByName(ast.NodeTransformer):
    """`a @ b` as np.matmul(a, b), and `a.sum(axis)` as np.sum(a, axis)."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """A product of matrices."""
        self.generic_visit(node)
        return called("matmul", [node.left, node.right], []) if isinstance(node.op, ast.MatMult) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A sum along an axis."""
        self.generic_visit(node)
        method = node.func
        if isinstance(method, ast.Attribute) and method.attr == "sum" and not names_numpy(method.value):
            return called("sum", [method.value, *node.args], node.keywords)
        return node


def names_numpy(node: ast.AST) -> bool:
    """Whether this is the name np."""
    return isinstance(node, ast.Name) and node.id == "np"


def called(function: str, args: list[ast.expr], keywords: list[ast.keyword]) -> ast.Call:
    """np.function(args)."""
    return ast.Call(ast.Attribute(ast.Name("np", ast.Load()), function, ast.Load()), args, keywords)
