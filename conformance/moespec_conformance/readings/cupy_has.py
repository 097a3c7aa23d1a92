"""What CuPy has of NumPy, from a list made of an installed one: names, and which parameters each function takes."""

import ast
from functools import cache
from importlib.resources import files
from inspect import Parameter, Signature
from typing import Any

FILE = files("moespec_conformance").joinpath("readings/cupy_functions.txt")


@cache
def members() -> dict[str, Signature | None]:
    """Every name, `ndarray.` before what its arrays offer, with its signature; None for what is no function."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    split = (line.partition("(") for line in lines)
    return {name: signature(mark + rest) if mark else None for name, mark, rest in split}


def signature(text: str) -> Signature:
    """A signature of its text, `(a, axis=...)`: which parameters may be left out, not what they then are."""
    (function,) = ast.parse(f"def f{text}: ...").body
    assert isinstance(function, ast.FunctionDef)
    args, needed = function.args, len(function.args.args) - len(function.args.defaults)
    found = [
        Parameter(a.arg, Parameter.POSITIONAL_OR_KEYWORD, default=Parameter.empty if at < needed else ...)
        for at, a in enumerate(args.args)
    ]
    if args.vararg:
        found.append(Parameter(args.vararg.arg, Parameter.VAR_POSITIONAL))
    found += [Parameter(a.arg, Parameter.KEYWORD_ONLY, default=...) for a in args.kwonlyargs]
    if args.kwarg:
        found.append(Parameter(args.kwarg.arg, Parameter.VAR_KEYWORD))
    return Signature(found)


def refuse(name: str, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - a call's arguments
    """Raise TypeError, as CuPy would, for a function that it lacks or a parameter that it does not take."""
    if name not in members():
        raise TypeError(f"CuPy has no {name}")
    takes = members()[name]
    try:
        if takes is not None:
            takes.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"CuPy's {name}{takes}: {error}") from None
