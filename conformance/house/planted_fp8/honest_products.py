"""The honest implementation's block-scaled products: stretches, the accumulators of hardware, and many experts."""

from typing import NamedTuple

import numpy as np
from planted.arith import Array

from .honest_blocks import Blocks
from .honest_formats import FORMATS, Blocked, Config, tables


class Unit(NamedTuple):
    """A tensor core: products a step, fraction bits of terms and of sums; whether products are added without c."""

    step: int
    terms: int
    sums: int
    alone: bool = False


UNITS = {"hopper": Unit(32, 13, 13), "ada": Unit(16, 13, 13), "blackwell": Unit(32, 25, 23, alone=True)}
NEVER = -9999.0  # the exponent of nothing


class Products(Blocks):
    """Every step of a product."""

    def _transposed(self, q: Blocked) -> Blocked:
        return Blocked(q.codes.swapaxes(-1, -2), q.scale.swapaxes(-1, -2), q.format, q.block[::-1])

    def _width(self, a: Blocked, b: Blocked, config: Config) -> int:
        return min(width for width in (a.block[1], b.block[1], config["promote_every"]) if width)

    def _factor(self, a: Blocked, b: Blocked, column: int) -> Array:
        """fl(scale_a * scale_b) of every pair of rows, at a column."""
        return self._rows_scale(a, column)[:, None] * self._rows_scale(b, column)

    def _rows_scale(self, q: Blocked, column: int) -> Array:
        return q.scale[np.arange(q.codes.shape[0]) // q.block[0], column // q.block[1]]

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        return total + part * factor

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:  # noqa: ARG002
        """a (M,C) times the transpose of b (N,C), on top of c."""
        rows, length = a.codes.shape
        total = np.zeros((rows, b.codes.shape[0]), np.float32) if c is None else c
        if config["accumulate"] == "float32":
            return self._dequantized_first(a, b) + total
        if not config["promote_every"]:
            return self._unpromoted(a, b, config, total)
        width = self._width(a, b, config)
        for start in range(0, length, width):
            part = self._stretch(a, b, slice(start, start + width), config, np.zeros_like(total))
            total = self._outer(total, part, self._factor(a, b, start))
        return total

    def _dequantized_first(self, a: Blocked, b: Blocked) -> Array:
        return self._dequantize(a) @ self._dequantize(b).T

    def _unpromoted(self, a: Blocked, b: Blocked, config: Config, c: Array) -> Array:
        y = self._stretch(a, b, slice(0, a.codes.shape[1]), config, c)
        return y * self._factor(a, b, 0) if a.codes.shape[1] else y

    def _stretch(self, a: Blocked, b: Blocked, at: slice, config: Config, c: Array) -> Array:
        """The sum of one stretch's products, and c, by the accumulator's rule, in float32."""
        x, y = self._decode(a.codes[:, at], a.format), self._decode(b.codes[:, at], b.format)
        rule = config["accumulate"]
        if rule in UNITS:
            powers = self._powers(a.format)[a.codes[:, at]], self._powers(b.format)[b.codes[:, at]]
            return self._by_unit((x, y), powers, c, UNITS[rule])
        return self._exactly(x, y, c) if rule == "exact" else self._inner(x, y) + c

    def _inner(self, x: Array, y: Array) -> Array:
        return x @ y.T

    def _exactly(self, x: Array, y: Array, c: Array) -> Array:
        return (x.astype(np.float64) @ y.T.astype(np.float64) + c).astype(np.float32)

    def _powers(self, name: str) -> Array:
        """Of every code, floor(log2) of its number, at least emin; of 0, nothing."""
        f, number = FORMATS[name], np.abs(tables(type(self), name)[0]).astype(np.float64)
        real = np.isfinite(number) & (number > 0)
        own = np.floor(np.log2(np.where(real, number, 1)))
        return np.where(real, np.maximum(own, 1 - f.bias), NEVER)

    def _by_unit(self, numbers: tuple[Array, Array], powers: tuple[Array, Array], c: Array, unit: Unit) -> Array:
        total = c.astype(np.float64)
        for k in range(0, numbers[0].shape[1], unit.step):
            x, y = (a[:, k : k + unit.step].astype(np.float64) for a in numbers)
            p, q = (a[:, k : k + unit.step] for a in powers)
            total = self._unit_step(x[:, None] * y, p[:, None] + q, total, unit)
        return total.astype(np.float32)

    def _unit_step(self, terms: Array, powers: Array, total: Array, unit: Unit) -> Array:
        """One step of the unit: terms (M,N,L), their exponents, and the accumulator (M,N)."""
        inside = np.zeros_like(total) if unit.alone else total
        all_terms = np.concatenate([terms, inside[..., None]], axis=-1)
        exponents = np.concatenate([powers, self._own_power(inside)[..., None]], axis=-1)
        last = 2.0 ** (self._aligned_to(exponents) - unit.terms)[..., None]
        exact = (self._cut(all_terms / last) * last).sum(axis=-1)
        kept = self._shortened(exact, unit)
        return (total.astype(np.float32) + kept.astype(np.float32)).astype(np.float64) if unit.alone else kept

    def _aligned_to(self, exponents: Array) -> Array:
        return np.maximum(exponents.max(axis=-1), -133)

    def _own_power(self, a: Array) -> Array:
        power = np.floor(np.log2(np.where(a == 0, 1, np.abs(a))))
        return np.where(a == 0, NEVER, np.maximum(power, -126))

    def _cut(self, a: Array) -> Array:
        return np.trunc(a)

    def _shortened(self, exact: Array, unit: Unit) -> Array:
        """The sum, with as many fraction bits as the unit keeps."""
        last = 2.0 ** (np.maximum(self._own_power(exact), -126) - unit.sums)
        return self._cut(exact / last) * last

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        """Each row by its expert's matrix."""
        y = np.zeros((len(expert), b.codes.shape[1]), np.float32)
        for e in range(len(b.codes)):
            rows = np.flatnonzero(expert == e)
            y[rows] = self._gemm("grouped", a.at(rows), self._matrix(b, e), config)
        return y

    def _matrix(self, b: Blocked, e: int) -> Blocked:
        return b.at(e)

    def _ends(self, end: Array, rows: int, config: Config) -> Array:
        """Whose each row is, by where experts' rows end."""
        expert, start = np.full(rows, -1), 0
        for e, stop in enumerate(end.tolist()):
            expert[start:stop] = e
            start = -(-stop // config["alignment"]) * config["alignment"]
        return expert

    def _boxes(self, a: Blocked, b: Blocked, count: Array, config: Config) -> Array:
        y = np.zeros((*a.codes.shape[:2], b.codes.shape[1]), np.float32)
        for e, n in enumerate(count.tolist()):
            y[e, :n] = self._gemm("masked", a.at(e).at(slice(n)), self._matrix(b, e), config)
        return y

    def _k_grouped(self, a: Blocked, b: Blocked, size: Array, c: Array, config: Config) -> Array:
        y, start = np.array(c), 0
        for e, n in enumerate(size.tolist()):
            if n:
                x, w = (self._share(q, start, n) for q in (a, b))
                y[e] = self._gemm("k_grouped", x, w, config, self._before(c, e))
            start += n
        return y

    def _before(self, c: Array, e: int) -> Array:
        return c[e]

    def _share(self, q: Blocked, start: int, size: int) -> Blocked:
        first, last = start // q.block[1], (start + size) // q.block[1]
        return q._replace(codes=q.codes[:, start : start + size], scale=q.scale[:, first:last])
