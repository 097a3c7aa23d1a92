"""A trial as Python that can be pasted: the config and every array as literals."""

import sys
from textwrap import fill
from typing import Any

import ml_dtypes
import numpy as np

from moespec_conformance.properties.engine.property import Trial
from moespec_conformance.protocol import Array

WIDTH = 100
SNIPPET = """\
import ml_dtypes
import numpy as np

from moespec_conformance.address import load
from moespec_conformance.properties import replayed
from moespec_conformance.runner import InProcess

config = {config}
inputs = {{
{inputs}
}}
how = {how}
print(replayed("{name}", config, inputs, how, InProcess(load("{address}")), "{arithmetic}").message or "holds")
"""


def literal(array: Array) -> str:
    """An expression that makes this array again, bit for bit."""
    dtype = array.dtype
    if dtype.type.__module__ == "ml_dtypes":
        bits = literal(array.view(np.uint8 if dtype.itemsize == 1 else np.uint16))
        return f"{bits}.view(ml_dtypes.{dtype.name})" if dtype != ml_dtypes.bfloat16 else short(array)
    if not array.size:
        return f"np.zeros({array.shape}, np.{dtype.name})"
    text = np.array2string(
        array, separator=", ", threshold=sys.maxsize, max_line_width=WIDTH, formatter={"float_kind": shortest}
    )
    return f"np.array({text}, np.{dtype.name})"


def shortest(number: np.floating[Any]) -> str:
    """The shortest digits that make this number again."""
    return str(number).replace("nan", "np.nan").replace("inf", "np.inf")


def short(array: Array) -> str:
    """Numbers of bfloat16 as the float32 that they are."""
    return f"{literal(array.astype(np.float32))}.astype(ml_dtypes.bfloat16)"


def snippet(name: str, trial: Trial, address: str) -> str:
    """A script that asks this implementation again."""
    case, how = trial
    inputs = "\n".join(f'    "{key}": {literal(tensor)},' for key, tensor in case.inputs.items())
    config = fill(
        str(dict(case.config)), WIDTH, subsequent_indent=" " * 4, break_long_words=False, break_on_hyphens=False
    )
    fields = {"config": config, "how": how, "name": name, "address": address, "arithmetic": case.arithmetic}
    return SNIPPET.format(inputs=inputs, **fields)
