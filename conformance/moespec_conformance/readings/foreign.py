"""Foreign: a second array library on the CPU, with NumPy's numbers behind CuPy's two doors.

Like `cupy.ndarray` it takes part only through NEP 13 and NEP 18, refuses to turn into a host array, refuses to meet
one, and refuses a function that CuPy lacks or a parameter that CuPy does not take (`cupy_has`). Code that runs on it
moves to a GPU unchanged.

It notes each time the host must wait for a number of the device: where Python asks for one, and where CuPy itself
does, because a result's shape depends on values (a mask as an index, bincount, unique).
"""

import inspect
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from moespec_conformance.readings.cupy_has import refuse
from moespec_conformance.readings.planes import Array, Planes

NESTED: tuple[type[Any], ...] = (tuple, list)
NUMBERS: tuple[type[Any], ...] = (np.ndarray, np.generic)
SENT = (np.asarray, np.array)  # with like=: copied to the device, on purpose
SPLITS = (np.split, np.array_split)
SHAPED_BY_VALUES = ("argwhere", "bincount", "flatnonzero", "nonzero", "unique")


class Trip(NamedTuple):
    """One wait for the device: by what, and in which function of the reference."""

    by: str
    place: str


class Foreign(Planes):
    """One plane of any dtype; ids and masks are foreign too."""

    asked: ClassVar[set[str]] = set()
    trips: ClassVar[list[Trip]] = []

    def view(self, dtype: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """The same bits as another dtype."""
        return self.called("view", dtype)

    def astype(self, _dtype: Any, **kwargs: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """The same numbers in another dtype."""
        return self.called("astype", _dtype, **kwargs)

    def copy(self) -> Self:
        """Copy on the device."""
        return self.called("copy")

    def repeat(self, repeats: int, axis: int) -> Self:
        """Repeat along an axis."""
        return self.called("repeat", repeats, axis=axis)

    def reshape(self, *shape: int) -> Self:
        """The same numbers in another shape."""
        return self.called("reshape", *shape)

    def sum(self, axis: Any = None, *, keepdims: bool = False) -> Self:  # noqa: ANN401 - NumPy's
        """Add, all or along an axis."""
        return self.called("sum", axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, *, keepdims: bool = False) -> Self:  # noqa: ANN401 - NumPy's
        """The largest, of all or along an axis."""
        return self.called("max", axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, *, keepdims: bool = False) -> Self:  # noqa: ANN401 - NumPy's
        """The smallest, of all or along an axis."""
        return self.called("min", axis=axis, keepdims=keepdims)

    def called(self, method: str, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - NumPy's
        """A method that CuPy's arrays have, too."""
        self.asked.add(f"ndarray.{method}")
        refuse(f"ndarray.{method}", args, kwargs)
        made: Self = foreign(getattr(self.planes[0], method)(*map(host, args), **kwargs))
        return made

    def tolist(self) -> Any:  # noqa: ANN401 - nested lists
        """Copy to the host, on purpose."""
        self.asked.add("ndarray.tolist")
        waited("tolist")
        return self.planes[0].tolist()

    def __int__(self) -> int:
        """Copy one number to the host."""
        waited("int")
        return int(self.planes[0])

    def __float__(self) -> float:
        """Copy one number to the host."""
        waited("float")
        return float(self.planes[0])

    def __bool__(self) -> bool:
        """Copy one truth to the host."""
        waited("bool")
        return bool(self.planes[0])

    def __str__(self) -> str:
        """Copy all to the host, to be read."""
        waited("str")
        return str(self.planes[0])

    def __getitem__(self, index: Any) -> "Foreign":  # noqa: ANN401 - NumPy's
        """Index; an index array must be foreign as well."""
        return Foreign(np.asarray(self.planes[0][indices(index)]))

    def __setitem__(self, index: Any, value: Array) -> None:  # noqa: ANN401 - NumPy's
        """Write; a value must be foreign or a number."""
        self.planes[0][indices(index)] = number(value)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Array, **kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 13."""
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        self.asked.add(name)
        refuse(name, args, kwargs)
        result = ufunc(*map(number, args), **{k: host(v) for k, v in kwargs.items()})
        return kwargs["out"][0] if "out" in kwargs else foreign(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 18."""
        self.asked.add(func.__name__)
        refuse(func.__name__, args, kwargs)
        if func in SENT:
            return Foreign(func(*args, **kwargs))
        if func in SPLITS and isinstance(args[1], Foreign):
            raise TypeError("CuPy splits only where the host says")
        if func.__name__ in SHAPED_BY_VALUES or (func is np.repeat and isinstance(args[1], Foreign)):
            waited(func.__name__)
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


def number(x: Any) -> Any:  # noqa: ANN401 - an argument of any kind
    """The same of what must be an array or a number."""
    if isinstance(x, NESTED):
        raise TypeError("a list met a foreign array: CuPy would refuse this")
    return host(x)


def indices(index: Any) -> Any:  # noqa: ANN401 - NumPy's
    """An index; a mask among it makes the host wait for how much it lets through."""
    parts: Any = index if isinstance(index, NESTED) else (index,)
    if any(isinstance(part, Foreign) and part.dtype == np.bool for part in parts):
        waited("mask")
    return host(index)


def foreign(x: Any) -> Any:  # noqa: ANN401 - a result of any kind
    """A result, behind the doors again."""
    if isinstance(x, NESTED):
        return type(x)(map(foreign, x))
    return Foreign(np.asarray(x)) if isinstance(x, NUMBERS) else x


def waited(by: str) -> None:
    """Note a wait, and in which function of the reference it was."""
    frame = inspect.currentframe()
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("moespec."):
        frame = frame.f_back
    place = "" if frame is None else f"{frame.f_globals['__name__'].removeprefix('moespec.')}.{frame.f_code.co_name}"
    Foreign.trips.append(Trip(by, place))
