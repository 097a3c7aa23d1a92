"""Counted: what the reference's own lines cost, step by step, read off while they run.

One plane of float64. Every NumPy function writes into the open ledger which function of the reference called it, how
many FLOPs that is (two for each multiply-add of a matrix product, one for each element of all else), and how many
numbers it reads and writes. From that follows the least time of a machine whose rates are known: products cannot be
faster than its GEMM, nor than the numbers they read and write can move; what goes on element by element could be fused
into them, and is the distance to that floor.
"""

from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from inspect import currentframe
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from moespec_conformance.readings.planes import Array, Planes
from moespec_conformance.readings.portable import ASKED, EXACT

MOVES = "index"  # what gathers and scatters are called in a ledger
ELEMENTWISE = (*(f for f in EXACT if f is not np.max), np.exp, np.log, np.log1p, np.tanh)


class Work(NamedTuple):
    """One call of a NumPy function: where, and what it costs."""

    step: str  # the reference's file and function
    function: str
    products: int  # FLOPs of matrix products
    others: int  # FLOPs element by element
    read: int  # numbers
    written: int


class Counted(Planes):
    """Values, and a ledger that everybody writes into."""

    RULES: ClassVar[dict[Any, Any]] = {}
    ledger: ClassVar[list[Work]] = []

    def __getitem__(self, index: Any) -> "Counted":  # noqa: ANN401 - NumPy's
        """A view costs nothing, a gather reads and writes what it takes."""
        taken = Counted(np.asarray(self.planes[0][index]))
        if gathers(index):
            note(MOVES, read=taken.planes[0].size, written=taken.planes[0].size)
        return taken

    def __setitem__(self, index: Any, value: Array) -> None:  # noqa: ANN401 - NumPy's
        """Scatter, or write into a view."""
        new = self.lift(value).planes[0]
        self.planes[0][index] = new
        note(MOVES, read=new.size, written=self.planes[0][index].size)


@contextmanager
def counting() -> Generator[list[Work]]:
    """A ledger of its own for what is run inside."""
    outer, Counted.ledger = Counted.ledger, []
    try:
        yield Counted.ledger
    finally:
        Counted.ledger = outer


def note(function: str, products: int = 0, others: int = 0, *, read: int, written: int) -> None:
    """Write one line."""
    Counted.ledger.append(Work(caller(), function, products, others, read, written))


def caller() -> str:
    """The function of the reference that asked."""
    frame = currentframe()
    while frame and not str(frame.f_globals["__name__"]).startswith("moespec."):
        frame = frame.f_back
    return f"{frame.f_globals['__name__'].removeprefix('moespec.')}.{frame.f_code.co_name}" if frame else "elsewhere"


def gathers(index: object) -> bool:
    """Whether an index copies: it holds an array."""
    parts = cast("tuple[object, ...]", index) if isinstance(index, tuple) else (index,)
    return any(isinstance(part, np.ndarray | list) for part in parts)


def plain(x: Array) -> Array:
    """The values."""
    return x.planes[0] if isinstance(x, Counted) else x


def sizes(*arrays: Array) -> int:
    """How many numbers they hold."""
    return sum(np.size(plain(a)) for a in arrays)


def element_by_element(function: Callable[..., Array], *args: Array, **kwargs: Any) -> Any:  # noqa: ANN401 - NumPy's
    """One FLOP for each number that comes out."""
    made = function(*map(plain, args), **kwargs)
    note(function.__name__, others=np.size(made), read=sizes(*args), written=np.size(made))
    return Counted(np.asarray(made))


def asked(function: Callable[..., Array], *args: Array, **kwargs: Any) -> Array:  # noqa: ANN401 - NumPy's
    """A comparison or an order: ids and masks, no numbers of this reading."""
    made: Array = function(*map(plain, args), **kwargs)
    note(function.__name__, others=np.size(made), read=sizes(*args), written=np.size(made))
    return made


def reduced(function: Callable[..., Array], a: Counted, axis: int | None = None, *, keepdims: bool = False) -> Counted:
    """One FLOP for each number that goes in."""
    made = np.asarray(function(plain(a), axis=axis, keepdims=keepdims))
    note(function.__name__, others=sizes(a), read=sizes(a), written=made.size)
    return Counted(made)


def matmul(a: Counted, b: Counted) -> Counted:
    """Two FLOPs for each multiply-add."""
    made = plain(a) @ plain(b)
    note("matmul", products=2 * made.size * a.shape[-1], read=sizes(a, b), written=made.size)
    return Counted(made)


def frexp(a: Counted) -> tuple[Counted, Array]:
    """Mantissas and exponents."""
    mantissa, exponent = np.frexp(plain(a))
    note("frexp", others=mantissa.size, read=mantissa.size, written=2 * mantissa.size)
    return Counted(np.asarray(mantissa)), exponent


def ldexp(a: Counted, exponent: Counted) -> Counted:
    """Exponents come lifted, and are whole numbers again."""
    made = np.ldexp(plain(a), plain(exponent).astype(np.int32))
    note("ldexp", others=made.size, read=2 * made.size, written=made.size)
    return Counted(np.asarray(made))


def by_step(ledger: list[Work]) -> dict[str, Work]:
    """The ledger, added up by the reference's functions, in the order in which they were first called."""
    found: defaultdict[str, list[Work]] = defaultdict(list)
    for work in ledger:
        found[work.step].append(work)
    return {
        step: Work(step, "", *(sum(column) for column in list(zip(*works, strict=True))[2:]))
        for step, works in found.items()
    }


def floor(ledger: list[Work], flops: float, numbers: float) -> float:
    """The least seconds of the products at a machine's rates: FLOPs, and numbers read or written, a second."""
    products = (work for work in ledger if work.products)
    return sum(max(work.products / flops, (work.read + work.written) / numbers) for work in products)


Counted.RULES = {
    **{f: partial(element_by_element, f) for f in ELEMENTWISE},
    **{f: partial(asked, f) for f in ASKED},
    **{f: partial(reduced, f) for f in (np.sum, np.max, np.amax)},
    np.matmul: matmul,
    np.frexp: frexp,
    np.ldexp: ldexp,
}
