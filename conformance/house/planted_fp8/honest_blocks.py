"""The honest implementation's blocks: each block's largest number, its scale, its codes; and the way back."""

from typing import Any, NamedTuple

import numpy as np
from planted.arith import Array

from .honest_formats import Blocked, Config, Formats, tables

TINY = 2.0**-126
SMALLEST = 2.0**-149


class Recipe(NamedTuple):
    """A line of SPEC.md's table."""

    floor: float
    floor_e2m1: float
    scale: str  # "a/t": amax / top; "1/(t/a)"
    number: str  # "x/s", "x*(1/s)", "x*(t/a)"
    zeros: float | None = None
    odd: float = np.nan
    nan_counts: bool = True  # toward amax
    ocp: bool = False  # OCP's powers of two
    sent: str | None = None  # scale format of what is sent
    by_codes: bool = True  # the weight gradient's operands are made of codes


RECIPES = {
    "deepseek-v3": Recipe(1e-4, 6 * TINY, "a/t", "x/s", sent="ue8m0"),
    "deepseek-v3.1": Recipe(1e-4, 6 * TINY, "a/t", "x/s"),
    "deepgemm": Recipe(1e-4, 1e-4, "a/t", "x*(1/s)"),
    "tilekernels": Recipe(1e-4, 6 * TINY, "a/t", "x*(t/a)"),
    "transformer-engine": Recipe(SMALLEST, SMALLEST, "1/(t/a)", "x*(t/a)", 1.0, 1.0, nan_counts=False, by_codes=False),
    "torchao": Recipe(1e-12, 1e-12, "1/(t/a)", "x*(t/a)", by_codes=False),
    "mx-floor": Recipe(SMALLEST, SMALLEST, "a/t", "x/s", ocp=True, by_codes=False),
    "mx-rceil": Recipe(SMALLEST, SMALLEST, "a/t", "x/s", by_codes=False),
    "deepseek-v4-fp4": Recipe(1e-4, 6 * TINY, "a/t", "x/s"),
}


class How(NamedTuple):
    """How a matrix is to be quantised."""

    recipe: str
    format: str
    block: tuple[int, int]
    scales: str
    overflow: str = "saturate"

    @classmethod
    def of(cls, config: Config, letter: str = "") -> "How":
        """As a config says for a, for b, or for neither."""
        block: Any = config[f"{letter}block"]
        scales, overflow = config["scale_format"], config["overflow"]
        return cls(config["recipe"], config[f"{letter}format"], tuple(block), scales, overflow)


class Blocks(Formats):
    """Every step of quantising and back."""

    def _blocks(self, size: int, width: int) -> int:
        return (size + width - 1) // width

    def _by_element(self, scale: Array, block: tuple[int, int], shape: tuple[int, ...]) -> Array:
        """Its block's scale at each element."""
        row, column = (np.arange(n) // width for n, width in zip(shape[-2:], block, strict=True))
        return scale[..., row[:, None], column]

    def _amax(self, x: Array, block: tuple[int, int]) -> Array:
        i, j = (self._blocks(n, width) for n, width in zip(x.shape, block, strict=True))
        if not i * j:
            return np.zeros((i, j), np.float32)
        size = np.maximum.reduceat(np.abs(x), np.arange(i) * block[0], axis=0)
        return np.maximum.reduceat(size, np.arange(j) * block[1], axis=1)

    def _floor(self, how: How) -> np.float32:
        rule = RECIPES[how.recipe]
        return np.float32(rule.floor_e2m1 if how.format == "e2m1" else rule.floor)

    def _largest(self, how: How) -> np.float32:
        """The largest number of the format."""
        return np.float32(tables(type(self), how.format)[1][-2])

    def _floored(self, amax: Array, how: How) -> Array:
        return np.maximum(amax, self._floor(how))

    def _power(self, amax: Array, how: How) -> Array:
        """k of the scale 2^k."""
        size, top = amax.astype(np.float64), float(self._largest(how))
        if RECIPES[how.recipe].ocp:
            return np.maximum(np.floor(np.log2(size)) - np.floor(np.log2(top)), -127)
        k = np.floor(np.log2(size / top)) - 1
        for _ in range(3):
            k = k + (size > top * 2.0**k)
        return np.maximum(k, -127)

    def _block_scale(self, amax: Array, how: How) -> Array:
        if how.scales == "ue8m0":
            return (2.0 ** self._power(amax, how)).astype(np.float32)
        if RECIPES[how.recipe].scale == "a/t":
            return amax / self._largest(how)
        return 1 / self._inverse(amax, how)

    def _inverse(self, amax: Array, how: How) -> Array:
        return np.minimum(self._largest(how) / amax, np.finfo(np.float32).max)

    def _special(self, a: Array, amax: Array, how: How) -> Array:
        """Scales of blocks of zeros, and of those with NaN or infinity."""
        rule = RECIPES[how.recipe]
        a = a if rule.zeros is None else np.where(amax == 0, np.float32(rule.zeros), a)
        return np.where(np.isfinite(amax), a, np.float32(rule.odd))

    def _numbers(self, x: Array, amax: Array, scale: Array, how: How) -> Array:
        """What is to be rounded: x in units of its block's scale."""
        rule, each = RECIPES[how.recipe], self._by_element(scale, how.block, x.shape)
        if how.scales == "ue8m0":
            return x.astype(np.float64) / each
        if rule.number == "x/s":
            return x / each
        factor = 1 / scale if rule.number == "x*(1/s)" else self._inverse(self._floored(amax, how), how)
        return x * self._by_element(self._special(factor, amax, how), how.block, x.shape)

    def _stored_scale(self, scale: Array, how: How) -> Array:  # noqa: ARG002 - for overriding
        """The scale that is handed out, given the one that was used."""
        return scale

    def _without_nan(self, x: Array) -> Array:
        return np.where(np.isnan(x), np.float32(0), x)

    def _quantize(self, x: Array, how: How) -> Blocked:
        counted = x if RECIPES[how.recipe].nan_counts else self._without_nan(x)
        amax = self._amax(counted, how.block)
        scale = self._special(self._block_scale(self._floored(amax, how), how), amax, how)
        codes = self._encode(self._numbers(x, amax, scale, how), how.format, how.overflow)
        return Blocked(codes, self._stored_scale(scale, how), how.format, how.block)

    def _back(self, number: Array, scale: Array) -> Array:
        return number * scale

    def _dequantize(self, q: Blocked) -> Array:
        return self._back(self._decode(q.codes, q.format), self._by_element(q.scale, q.block, q.codes.shape))

    def _requantize(self, q: Blocked, how: How) -> Blocked:
        return self._quantize(self._dequantize(q), how)

    def _lift_scale(self, q: Blocked, number: Array, block: tuple[int, int]) -> Array:
        """The new scales: the largest of a block's parts that are not 0, over 2^6."""
        most = self._amax(np.where(number == 0, 0, self._by_element(q.scale, q.block, number.shape)), block)
        return np.maximum(most / 64, np.float32(2.0**-127))

    def _lift(self, q: Blocked, how: How) -> Blocked:
        number = self._decode(q.codes, q.format)
        scale = self._lift_scale(q, number, how.block)
        each = number * (self._by_element(q.scale, q.block, number.shape).astype(np.float64))
        each = each / self._by_element(scale, how.block, number.shape)
        return Blocked(self._encode(each, how.format, how.overflow), scale, how.format, how.block)
