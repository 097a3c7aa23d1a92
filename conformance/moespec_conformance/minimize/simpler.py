"""Numbers as simple as the failure allows: 0, 1, a power of two, or few bits."""

from collections.abc import Callable
from functools import partial

import numpy as np

from moespec.signatures import OPS, expected
from moespec_conformance.minimize.search import Search, halve, varied
from moespec_conformance.protocol import Array, Case

HOLDS = ("float", "router", "float32")
# ops that choose by numbers they are given: simpler ones would be equal, and of equals the choice may be free
CHOOSING = ("capacity", "capacity_backward", "balance_loss", "balance_loss_backward")


def short(x: Array, digits: int) -> Array:
    """Each number rounded to so many binary digits; with one, to a power of two."""
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.round(fraction * 2.0**digits), exponent - digits))


WAYS: tuple[Callable[[Array], Array], ...] = (
    np.zeros_like,
    np.ones_like,
    partial(short, digits=1),
    partial(short, digits=3),
    partial(short, digits=8),
)


def numbers(search: Search) -> None:
    """Every number of every tensor, the simplest first; codes and scales stay as they are."""
    if search.case.op in CHOOSING:
        return
    for name, tensor in expected(OPS[search.case.op].inputs, search.case.cfg).items():
        if tensor.holds in HOLDS and name in search.case.inputs:
            for rank in range(len(WAYS)):
                simplify(search, name, rank)


def simplify(search: Search, name: str, rank: int) -> None:
    """What is not simple yet in one tensor, in one way."""
    flat = search.case.inputs[name].reshape(-1).astype(np.float64)
    simple = np.any([flat == way(flat) for way in WAYS[: rank + 1]], axis=0)

    def changing(chunk: Array) -> Case:
        held = search.case.inputs[name].copy()
        held.reshape(-1)[chunk] = WAYS[rank](flat)[chunk].astype(held.dtype)
        return varied(search.case, {**search.case.config}, {**search.case.inputs, name: held})

    halve(search, np.flatnonzero(~simple & np.isfinite(flat)), changing)
