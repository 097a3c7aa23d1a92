"""Arrays with more than one plane: the base of every reading.

A reading is an array class that the reference's own lines accept, because NumPy hands its functions over to the
array it is given (NEP 13, NEP 18). All that only moves numbers about (index, reshape, where, take, put …) treats
every plane alike and stands here, once. What computes is in each reading's own rules, one per NumPy function;
a function without a rule is refused, never guessed.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

Array = Any  # an array of any library or reading


class Planes(NDArrayOperatorsMixin):
    """Planes of one shape; the first holds the values."""

    RULES: ClassVar[dict[Any, Callable[..., Any]]] = {}
    planes: tuple[Array, ...]

    def __init__(self, *planes: Array) -> None:
        """Take the planes as they are: no copy, no conversion."""
        self.planes = planes

    @classmethod
    def exact(cls, values: Array) -> tuple[Array, ...]:
        """Return the planes of values that are exact."""
        return (values,)

    @classmethod
    def lift(cls, x: Array) -> Self:
        """Return x itself if it is of this reading, else x as exact numbers."""
        return x if isinstance(x, cls) else cls(*cls.exact(np.asarray(x, np.float64)))

    def like(self, planes: Sequence[Array], *_others: Self) -> Self:
        """Return an array of the same reading with other planes, made of self and others."""
        return type(self)(*planes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every plane."""
        shape: tuple[int, ...] = self.planes[0].shape
        return shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:  # noqa: ANN401 - NumPy's
        """The dtype of the values."""
        return self.planes[0].dtype

    @property
    def T(self) -> Self:  # noqa: N802 - NumPy's name
        """The transpose."""
        return self.each(lambda p: p.T)

    def each(self, function: Callable[[Array], Array]) -> Self:
        """Apply a function that only moves numbers to every plane."""
        return self.like([function(p) for p in self.planes])

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        """Refuse to become a plain array: a reading that is silently dropped would prove nothing."""
        raise TypeError(f"{type(self).__name__} does not turn into a plain array by itself")

    def __getitem__(self, index: Any) -> Self:  # noqa: ANN401 - NumPy's
        """Index every plane; a basic index is a view."""
        return self.each(lambda p: p[index])

    def __setitem__(self, index: Any, value: Array) -> None:  # noqa: ANN401 - NumPy's
        """Write every plane."""
        for plane, new in zip(self.planes, self.lift(value).planes, strict=True):
            plane[index] = new

    def reshape(self, *shape: int) -> Self:
        """Reshape every plane."""
        return self.each(lambda p: p.reshape(*shape))

    def astype(self, _dtype: Any) -> Self:  # noqa: ANN401 - NumPy's
        """Stay what it is: a reading has its own dtype, and says itself what is rounded."""
        return self

    def copy(self) -> Self:
        """Copy every plane."""
        return self.each(lambda p: p.copy())

    def repeat(self, repeats: int, axis: int) -> Self:
        """Repeat along an axis in every plane."""
        return self.each(lambda p: p.repeat(repeats, axis=axis))

    def sum(self, axis: int, *, keepdims: bool = False) -> Self:
        """Add along an axis, by the reading's rule for np.sum."""
        total: Self = np.sum(self, axis=axis, keepdims=keepdims)
        return total

    def max(self, axis: int, *, keepdims: bool = False) -> Self:
        """The largest along an axis, by the reading's rule for np.max."""
        best: Self = np.max(self, axis=axis, keepdims=keepdims)
        return best

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Array, out: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 13: the reading's rule; `a += b` and `np.matmul(a, b, out=c)` write into what they name."""
        rule = self.RULES.get(ufunc)
        if method != "__call__" or rule is None or kwargs:
            raise TypeError(f"{type(self).__name__} has no rule for {ufunc.__name__}.{method}{sorted(kwargs) or ''}")
        result = rule(*map(self.lift, args))
        if out is None:
            return result
        out[0][...] = result
        return out[0]

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """NEP 18: moving functions are the same for all readings, the others have the reading's rule."""
        rule = self.RULES.get(func)
        if rule is not None:
            return rule(*args, **kwargs)
        if func in MOVES:
            return MOVES[func](type(self), *args, **kwargs)
        raise TypeError(f"{type(self).__name__} has no rule for {func.__name__}")


def _where(cls: type[Planes], condition: Array, a: Array, b: Array) -> Planes:
    x, y = cls.lift(a), cls.lift(b)
    return x.like([np.where(condition, p, q) for p, q in zip(x.planes, y.planes, strict=True)], y)


def _take(_cls: type[Planes], a: Planes, indices: Array, axis: int) -> Planes:
    return a.each(lambda p: np.take_along_axis(p, indices, axis=axis))


def _put(cls: type[Planes], a: Array, indices: Array, values: Array, axis: int) -> None:
    if not isinstance(a, Planes):
        np.put_along_axis(a, indices, values, axis)
        return
    for plane, new in zip(a.planes, cls.lift(values).planes, strict=True):
        np.put_along_axis(plane, indices, new, axis=axis)


def _concatenate(cls: type[Planes], arrays: Sequence[Array], axis: int = 0) -> Planes:
    first, *others = map(cls.lift, arrays)
    planes = zip(first.planes, *(o.planes for o in others), strict=True)
    return first.like([np.concatenate(same, axis=axis) for same in planes])


def _repeat(_cls: type[Planes], a: Planes, repeats: int, axis: int) -> Planes:
    return a.repeat(repeats, axis)


def _full_like(cls: type[Planes], a: Planes, fill_value: float, shape: Any = None) -> Planes:  # noqa: ANN401
    return a.like(cls.exact(np.full_like(a.planes[0], fill_value, shape=a.shape if shape is None else shape)))


def _zeros_like(cls: type[Planes], a: Planes, dtype: Any = None, shape: Any = None) -> Array:  # noqa: ANN401
    if dtype is not None:
        return np.zeros(a.shape, dtype)  # a mask or ids: no numbers of this reading
    return _full_like(cls, a, 0.0, shape)


def _ones_like(cls: type[Planes], a: Planes, shape: Any = None) -> Planes:  # noqa: ANN401
    return _full_like(cls, a, 1.0, shape)


MOVES: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.take_along_axis: _take,
    np.put_along_axis: _put,
    np.concatenate: _concatenate,
    np.repeat: _repeat,
    np.full_like: _full_like,
    np.zeros_like: _zeros_like,
    np.ones_like: _ones_like,
}
