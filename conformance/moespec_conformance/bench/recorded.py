"""The floor of an op: the matrix products of the reference's own run, on the same arrays, and nothing else."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from moespec_conformance.readings.counted import caller

Array = Any  # of NumPy, or of what stands for it


class Product(NamedTuple):
    """One matrix product: which function of the reference asked for it, its factors, and an array for its result."""

    step: str
    a: Array
    b: Array
    out: Array


class Recorded(np.ndarray[Any, Any]):
    """An array of NumPy that keeps every matrix product it takes part in; all else goes on as it would."""

    products: ClassVar[list[Product]] = []

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, out: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 13: NumPy's own answer, of this kind again."""
        if out is not None:
            kwargs["out"] = tuple(map(plain, out))
        made = getattr(ufunc, method)(*map(plain, args), **kwargs)
        if ufunc is np.matmul:
            a, b = map(plain, args)
            Recorded.products.append(Product(caller(), a, b, made))
        return out[0] if out is not None else recorded(made)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - NumPy's
        """NEP 18: likewise, also where NumPy would forget the kind."""
        return recorded(super().__array_function__(func, types, args, kwargs))


def plain(x: Array) -> Array:
    """NumPy's own array."""
    return x.view(np.ndarray) if isinstance(x, Recorded) else x


def recorded(x: Array) -> Array:
    """An array that keeps its products, or several; what is no array of floats stays what it is."""
    if is_several(x):
        return type(x)(map(recorded, x))
    return x.view(Recorded) if is_float_array(x) else x


def is_several(x: object) -> bool:
    """Whether these are several answers of one call."""
    return isinstance(x, tuple | list)


def is_float_array(x: object) -> bool:
    """Whether these are numbers of NumPy's."""
    return isinstance(x, np.ndarray) and bool(cast("Array", x).dtype.kind == "f")


def products_of(call: Callable[[], object]) -> list[Product]:
    """All products of one run on recorded arrays, in order."""
    outer, Recorded.products = Recorded.products, []
    try:
        call()
        return Recorded.products
    finally:
        Recorded.products = outer


def run(products: list[Product]) -> None:
    """The floor: product after product, into arrays that exist."""
    for _, a, b, out in products:
        np.matmul(a, b, out=out)


def by_step(products: list[Product]) -> dict[str, float]:
    """CPU seconds of the floor, by the function that asked."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for step, a, b, out in products:
        start = time.thread_time()
        np.matmul(a, b, out=out)
        seconds[step] += time.thread_time() - start
    return dict(seconds)
