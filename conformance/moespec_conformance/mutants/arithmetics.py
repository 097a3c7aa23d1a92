"""Other ways to do the same arithmetic in float32: orders of sums, fused operations, a tensor core's products.

The specification leaves these free. Each is a function in place of NumPy's own; what is not float32 stays NumPy's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from moespec.accumulate import Unit, fused
from moespec.formats import FORMATS

F32: TypeAlias = npt.NDArray[np.float32]
Product: TypeAlias = Callable[[F32, F32], F32]
Total: TypeAlias = Callable[[F32], F32]
CHUNK = 16  # terms of one part of a split sum
HOPPER_BF16 = Unit(16, 25, 23)
LEAST = 2.0**-40  # exponents are added in 8 bits


def split(a: F32, b: F32) -> F32:
    """Split-K: parts of the contraction by themselves, added up afterwards."""
    parts = [np.matmul(a[:, i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, b.shape[0], CHUNK)]
    return np.asarray(sum(parts, np.zeros((a.shape[0], b.shape[1]), np.float32)))


def forwards(a: F32, b: F32) -> F32:
    """One product after the other, in order."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for c in range(b.shape[0]):
        out += a[:, c, None] * b[None, c]
    return out


def backwards(a: F32, b: F32) -> F32:
    """One product after the other, the last first."""
    return forwards(a[:, ::-1], b[::-1])


def fused_multiply_add(a: F32, b: F32) -> F32:
    """One after the other, each product added without being rounded first: float64 holds it."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for c in range(b.shape[0]):
        out = (a[:, c, None].astype(np.float64) * b[None, c] + out).astype(np.float32)
    return out


def by_tree(a: F32, b: F32) -> F32:
    """Products added in pairs, the pairs in pairs, and so on."""
    return tree_total(np.moveaxis(a[:, :, None] * b[None], 1, 0))


def in_float64(a: F32, b: F32) -> F32:
    """Rounded once, at the end."""
    made: F32 = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    return made


def tensor_core(a: F32, b: F32) -> F32:
    """Hopper's BF16 unit: 16 products a step, 25 fraction bits a term, sums cut toward zero.

    It takes bfloat16 numbers; what is not (the router's), or too small for our model of the unit, is NumPy's.
    """
    if any(((x != bfloat16(x)) | ((x != 0) & (np.abs(x) < LEAST))).any() for x in (a, b)):
        made: F32 = np.matmul(a, b)
        return made
    formats = FORMATS["bfloat16"], FORMATS["bfloat16"]
    zeros = np.zeros((a.shape[0], b.shape[1]), np.float32)
    return fused(a, b.T, zeros, formats, HOPPER_BF16).astype(np.float32)


def bfloat16(x: F32) -> F32:
    """The nearest bfloat16."""
    return x.astype(FORMATS["bfloat16"].storage).astype(np.float32)


def tree_total(x: F32) -> F32:
    """Sum along the first axis in pairs."""
    while len(x) > 1:
        odd = x[len(x) - len(x) % 2 :]
        x = np.concatenate([x[: len(x) - len(odd) : 2] + x[1::2], odd])
    return x[0] if len(x) else np.zeros(x.shape[1:], x.dtype)


def forwards_total(x: F32) -> F32:
    """Sum along the first axis, one after the other."""
    out = np.zeros(x.shape[1:], x.dtype)
    for term in x:
        out = out + term
    return out


def backwards_total(x: F32) -> F32:
    """The last first."""
    return forwards_total(x[::-1])


def matmul(own: Product, a: Any, b: Any, out: Any = None) -> Any:  # noqa: ANN401 - in NumPy's place
    """np.matmul by such a function, for float32 matrices."""
    usual = a.dtype != np.float32 or b.dtype != np.float32 or a.ndim != 2 or b.ndim != 2  # noqa: PLR2004
    made = np.matmul(a, b) if usual else own(a, b)
    if out is None:
        return made
    out[...] = made
    return out


def total(own: Total, x: Any, axis: Any = None, **options: Any) -> Any:  # noqa: ANN401 - in NumPy's place
    """np.sum by such a function, for float32 along one axis."""
    keepdims = options.pop("keepdims", False)
    if getattr(x, "dtype", None) != np.float32 or not isinstance(axis, int) or options:
        return np.sum(x, axis=axis, keepdims=keepdims, **options)
    made = own(np.moveaxis(x, axis, 0))
    return np.expand_dims(made, axis) if keepdims else made


def instead(product: Product | None = None, summed: Total | None = None, **others: Any) -> dict[str, Any]:  # noqa: ANN401
    """What stands in NumPy's place, by NumPy's names."""
    made = {} if product is None else {"matmul": partial(matmul, product)}
    return made | ({} if summed is None else {"sum": partial(total, summed)}) | others
