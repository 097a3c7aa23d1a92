"""Planted bugs: the accumulators of tensor cores, and when they are promoted."""

from typing import ClassVar

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_formats import FORMATS, Blocked, Config
from .honest_products import UNITS, Unit

PROFILES = ("hopper", "ada")
OPS = ("matmul_fp8",)
CLAUSES = ("ACC-3",)


class _OtherUnit(Fp8):
    change: ClassVar[dict[str, int]] = {}

    def _by_unit(self, numbers: tuple[Array, Array], powers: tuple[Array, Array], c: Array, unit: Unit) -> Array:
        return super()._by_unit(numbers, powers, c, unit._replace(**self.change))


class StepsOf16(_OtherUnit):
    """Sixteen products are added at a time, as Ada does."""

    profiles, change = ("hopper",), {"step": 16}


class StepsOf64(_OtherUnit):
    """Sixty-four products are added at a time."""

    profiles, change = ("hopper",), {"step": 64}


class StepsOf32(_OtherUnit):
    """Thirty-two products are added at a time, as Hopper does."""

    profiles, change = ("ada",), {"step": 32}


class StepsOf16OnBlackwell(_OtherUnit):
    """Sixteen products are added at a time, on Blackwell."""

    profiles, change, clauses = ("blackwell",), {"step": 16}, ("ACC-4",)


class Terms12(_OtherUnit):
    """Terms keep 12 fraction bits."""

    change = {"terms": 12}  # noqa: RUF012


class Terms14(_OtherUnit):
    """Terms keep 14 fraction bits."""

    change = {"terms": 14}  # noqa: RUF012


class Sums12(_OtherUnit):
    """Sums keep 12 fraction bits."""

    change = {"sums": 12}  # noqa: RUF012


class Sums14(_OtherUnit):
    """Sums keep 14 fraction bits."""

    change = {"sums": 14}  # noqa: RUF012


class Sums23(_OtherUnit):
    """Sums keep all of float32's digits."""

    change = {"sums": 23}  # noqa: RUF012


class Terms24OnBlackwell(_OtherUnit):
    """Terms keep 24 fraction bits, on Blackwell."""

    profiles, change, clauses = ("blackwell",), {"terms": 24}, ("ACC-4",)


class Sums22OnBlackwell(_OtherUnit):
    """Sums keep 22 fraction bits, on Blackwell."""

    profiles, change, clauses = ("blackwell",), {"sums": 22}, ("ACC-4",)


class HopperOnBlackwell(_OtherUnit):
    """Blackwell adds as Hopper does."""

    profiles, clauses = ("blackwell",), ("ACC-4",)
    change = UNITS["hopper"]._asdict()


class AccumulatorInside(_OtherUnit):
    """Blackwell's accumulator is one more term."""

    profiles, clauses = ("blackwell",), ("ACC-4",)
    change = {"alone": False}  # noqa: RUF012


class AccumulatorOutside(_OtherUnit):
    """The accumulator is added in float32, apart from the products."""

    change = {"alone": True}  # noqa: RUF012


class SumsToNearest(Fp8):
    """Sums are rounded to nearest."""

    def _shortened(self, exact: Array, unit: Unit) -> Array:
        last = 2.0 ** (np.maximum(self._own_power(exact), -126) - unit.sums)
        return np.rint(exact / last) * last


class TermsToNearest(Fp8):
    """Terms are rounded to nearest."""

    def _cut(self, a: Array) -> Array:
        return np.rint(a) if a.ndim == 3 else np.trunc(a)


class TermsFloored(Fp8):
    """Terms are cut downward, as a two's complement shift does."""

    def _cut(self, a: Array) -> Array:
        return np.floor(a) if a.ndim == 3 else np.trunc(a)


class SumsFloored(Fp8):
    """Sums are cut downward."""

    def _cut(self, a: Array) -> Array:
        return np.trunc(a) if a.ndim == 3 else np.floor(a)


class ProductsNormalised(Fp8):
    """A product's exponent is that of its value, carry included."""

    def _unit_step(self, terms: Array, powers: Array, total: Array, unit: Unit) -> Array:
        del powers
        return super()._unit_step(terms, self._own_power(terms), total, unit)


class SubnormalsNormalised(Fp8):
    """A subnormal factor has the exponent of its value."""

    def _powers(self, name: str) -> Array:
        number = np.abs(self._decode(np.arange(2 * FORMATS[name].sign), name)).astype(np.float64)
        real = np.isfinite(number) & (number > 0)
        return np.where(real, np.floor(np.log2(np.where(real, number, 1))), super()._powers(name))


class ZerosHaveExponents(Fp8):
    """A factor of 0 has the least exponent, times the other's, like a subnormal."""

    def _powers(self, name: str) -> Array:
        return np.maximum(super()._powers(name), 1 - FORMATS[name].bias)


class AccumulatorNotCut(Fp8):
    """The accumulator is not cut with the terms."""

    def _unit_step(self, terms: Array, powers: Array, total: Array, unit: Unit) -> Array:
        if unit.alone:
            return super()._unit_step(terms, powers, total, unit)
        largest = np.maximum(powers.max(axis=-1), self._own_power(total))[..., None]
        last = 2.0 ** (np.maximum(largest, -133) - unit.terms)
        return self._shortened((np.trunc(terms / last) * last).sum(axis=-1) + total, unit)


class AccumulatorNotAligned(Fp8):
    """The accumulator's exponent does not count for where terms are cut."""

    def _aligned_to(self, exponents: Array) -> Array:
        return super()._aligned_to(exponents[..., :-1])


class InFloat32(Fp8):
    """Tensor cores are thought to add in float32."""

    profiles = ("hopper", "ada", "blackwell")
    clauses = ("ACC-3", "ACC-4")

    def _by_unit(self, numbers: tuple[Array, Array], powers: tuple[Array, Array], c: Array, unit: Unit) -> Array:  # noqa: ARG002
        return numbers[0] @ numbers[1].T + c


class Exactly(Fp8):
    """Tensor cores are thought to add exactly."""

    profiles = ("hopper", "ada", "blackwell")
    clauses = ("ACC-3", "ACC-4")

    def _by_unit(self, numbers: tuple[Array, Array], powers: tuple[Array, Array], c: Array, unit: Unit) -> Array:  # noqa: ARG002
        return self._exactly(*numbers, c)


class _Promotion(Fp8):
    profiles: ClassVar[tuple[str, ...]] = ("hopper",)
    clauses: ClassVar[tuple[str, ...]] = ("LIN-2", "ACC-5", "LIN-1", "LIN-3")
    every: ClassVar[int] = 0

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        same = all((q.scale == q.scale[:, :1]).all() for q in (a, b))
        if not config["promote_every"] or not same:
            return super()._gemm(name, a, b, config, c)
        wide = [q._replace(scale=q.scale[:, :1], block=(q.block[0], q.codes.shape[1])) for q in (a, b)]
        return super()._gemm(name, *wide, {**config, "promote_every": self.every}, c)


class NeverPromoted(_Promotion):
    """One accumulator runs through all of C, wherever scales allow it."""


class PromotedEvery256(_Promotion):
    """The accumulator is promoted every 256 products, wherever scales allow it."""

    every = 256


class PromotedEvery64(_Promotion):
    """The accumulator is promoted every 64 products."""

    every = 64


class PromotedEveryBlock(Fp8):
    """The accumulator is promoted only where a block ends."""

    profiles, clauses = ("hopper",), _Promotion.clauses

    def _width(self, a: Blocked, b: Blocked, config: Config) -> int:  # noqa: ARG002
        return min(a.block[1], b.block[1])


class PromotedThoughNever(Fp8):
    """Without promotion the accumulator is promoted all the same, every 128 products."""

    profiles, clauses = ("hopper",), _Promotion.clauses

    def _unpromoted(self, a: Blocked, b: Blocked, config: Config, c: Array) -> Array:
        total = c
        for k in range(0, a.codes.shape[1], 128):
            total = total + self._stretch(a, b, slice(k, k + 128), config, np.zeros_like(c))
        return total * self._factor(a, b, 0)
