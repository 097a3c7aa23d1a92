"""Writes down what an installed CuPy has: its functions with their parameters, and what its arrays offer."""

import inspect
import re
from typing import Any

from moespec_conformance.readings.cupy_has import signature

CYTHON = re.compile(r"\b(?:_ndarray_base|Py_ssize_t|int|bint|tuple|list) (?=\w)")
UFUNC = "(*args, out=..., dtype=..., casting=...)"


def line(cupy: Any, name: str) -> str:
    """One line of the list: `take(a, indices, axis=..., out=...)`, or the bare name of what is no function."""
    member = cupy
    for part in name.split("."):
        member = getattr(member, part)
    if isinstance(member, cupy.ufunc):
        return name + UFUNC
    return name + parameters(member) if callable(member) else name


def parameters(function: Any) -> str:
    """What a function takes, without types, every default as `...`."""
    try:
        return bare(inspect.signature(function))
    except ValueError:  # a compiled method says it on the first line of its text
        said = function.__doc__.partition("\n")[0].partition(" -> ")[0]
        return bare(signature(CYTHON.sub("", said[said.index("(") :])))


def bare(given: inspect.Signature) -> str:
    """Without types and defaults, and without self."""
    plain = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else ...)
        for p in given.parameters.values()
        if p.name != "self"
    ]
    return str(given.replace(parameters=plain, return_annotation=given.empty)).replace("Ellipsis", "...")
