"""Foreign: a second array library on the CPU, with NumPy's numbers behind CuPy's two doors.

Like `cupy.ndarray` it takes part only through NEP 13 and NEP 18, refuses to turn into a host array, and refuses to
meet one. It notes every NumPy function it is asked for, so that the list can be held against what CuPy has.
Code that runs on it moves to a GPU unchanged.
"""

from typing import Any, ClassVar

import numpy as np

from moespec_conformance.readings.planes import Array, Planes

NESTED: tuple[type[Any], ...] = (tuple, list)
NUMBERS: tuple[type[Any], ...] = (np.ndarray, np.generic)


class Foreign(Planes):
    """One plane of any dtype; ids and masks are foreign too."""

    asked: ClassVar[set[str]] = set()

    def view(self, dtype: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """The same bits as another dtype."""
        self.asked.add("ndarray.view")
        return Foreign(self.planes[0].view(dtype))

    def astype(self, _dtype: Any, **kwargs: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """The same numbers in another dtype."""
        self.asked.add("ndarray.astype")
        return Foreign(self.planes[0].astype(_dtype, **kwargs))

    def tolist(self) -> Any:  # noqa: ANN401 - nested lists
        """Copy to the host, on purpose."""
        self.asked.add("ndarray.tolist")
        return self.planes[0].tolist()

    def __getitem__(self, index: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """Index; an index array must be foreign as well."""
        return Foreign(self.planes[0][host(index)])

    def __setitem__(self, index: Any, value: Array) -> None:  # noqa: ANN401 - NumPy's
        """Write; a value must be foreign or a number."""
        self.planes[0][host(index)] = host(value)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Array, **kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 13."""
        self.asked.add(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
        out = kwargs.get("out")
        result = getattr(ufunc, method)(*map(host, args), **{k: host(v) for k, v in kwargs.items()})
        return out[0] if out else foreign(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 18."""
        self.asked.add(func.__name__)
        if func is np.asarray:
            return Foreign(func(*args, **kwargs))  # like= a foreign one: copied to the device, on purpose
        return foreign(func(*map(host, args), **{k: host(v) for k, v in kwargs.items()}))


def host(x: Any) -> Any:  # noqa: ANN401 - an argument of any kind
    """What lies behind the doors; a host array beside a foreign one is refused, as CuPy refuses it."""
    if isinstance(x, Foreign):
        return x.planes[0]
    if isinstance(x, NESTED):
        return type(x)(map(host, x))
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array met a foreign one: CuPy would refuse this")
    return x


def foreign(x: Any) -> Any:  # noqa: ANN401 - a result of any kind
    """A result, behind the doors again."""
    if isinstance(x, NESTED):
        return type(x)(map(foreign, x))
    return Foreign(np.asarray(x)) if isinstance(x, NUMBERS) else x
