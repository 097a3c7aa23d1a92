"""Honest variants of block-scaled products. None may be flagged."""

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_formats import Blocked, Config

PRODUCTS = ("fp8-products", "fp8-layer")


class FusedOuterSum(Fp8):
    """Multiplication and addition of the outer sum are one rounding."""

    profiles = PRODUCTS

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        return (total.astype(np.float64) + part.astype(np.float64) * factor).astype(np.float32)


class OneScaleAfterTheOther(Fp8):
    """(sum * scale_a) * scale_b."""

    profiles = PRODUCTS

    def _factor(self, a: Blocked, b: Blocked, column: int) -> Array:
        return np.stack(np.broadcast_arrays(self._rows_scale(a, column)[:, None], self._rows_scale(b, column)))

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        return total + part * factor[0] * factor[1]

    def _unpromoted(self, a: Blocked, b: Blocked, config: Config, c: Array) -> Array:
        y, factor = self._stretch(a, b, slice(0, a.codes.shape[1]), config, c), self._factor(a, b, 0)
        return y * factor[0] * factor[1]


class InnerInFloat64(Fp8):
    """Stretches are added in float64."""

    profiles = ("fp8-products",)

    def _inner(self, x: Array, y: Array) -> Array:
        return (x.astype(np.float64) @ y.T.astype(np.float64)).astype(np.float32)

    def _dequantized_first(self, a: Blocked, b: Blocked) -> Array:
        return self._inner(self._dequantize(a), self._dequantize(b))


class OneProductAtATime(Fp8):
    """Products are added one after another, from the last."""

    profiles = ("fp8-products",)

    def _inner(self, x: Array, y: Array) -> Array:
        total = np.zeros((len(x), len(y)), np.float32)
        for k in reversed(range(x.shape[1])):
            total = total + x[:, k, None] * y[:, k]
        return total

    def _dequantized_first(self, a: Blocked, b: Blocked) -> Array:
        return self._inner(self._dequantize(a), self._dequantize(b))


class InPairs(Fp8):
    """Products are added in pairs, the pairs in pairs, and so on."""

    profiles = PRODUCTS

    def _inner(self, x: Array, y: Array) -> Array:
        terms = np.ascontiguousarray((x[:, None] * y).transpose(2, 0, 1))
        while len(terms) > 1:
            odd = terms[len(terms) // 2 * 2 :]
            terms = np.concatenate([terms[0 : len(terms) - len(odd) : 2] + terms[1::2], odd])
        return terms[0] if len(terms) else np.zeros((len(x), len(y)), np.float32)


class ScaledBeforeAdding(Fp8):
    """With `float32` scales multiply each stretch's sum, not the operands."""

    profiles = ("fp8-products",)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        if config["accumulate"] == "float32":
            config = {**config, "accumulate": "promoted", "promote_every": config["promote_every"] or 128}
        return super()._gemm(name, a, b, config, c)


class EmptyPlacesHoldNan(Fp8):
    """Places without a row hold NaN."""

    profiles = ("fp8-products",)

    def _by_index(self, a: Blocked, b: Blocked, expert: Array, config: Config) -> Array:
        y = super()._by_index(a, b, expert, config)
        return np.where((expert >= 0)[:, None], y, np.nan)

    def _boxes(self, a: Blocked, b: Blocked, count: Array, config: Config) -> Array:
        y = super()._boxes(a, b, count, config)
        return np.where((np.arange(y.shape[1]) < count[:, None])[..., None], y, np.nan)


class EmptyPlacesComputed(Fp8):
    """Empty places before an expert's rows are computed with them."""

    profiles = ("fp8-products",)

    def _ends(self, end: Array, rows: int, config: Config) -> Array:
        return super()._ends(end, rows, {**config, "alignment": 1})


class CAtTheEnd(Fp8):
    """c is added at the end."""

    profiles = ("fp8-products",)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        if not config["promote_every"]:
            return super()._gemm(name, a, b, config, c)
        y = super()._gemm(name, a, b, config)
        return y if c is None else y + c


class ExactByParts(Fp8):
    """Exact sums are made of eight parts, from the last."""

    profiles = ("fp8-exact", "fp8-layer")

    def _exactly(self, x: Array, y: Array, c: Array) -> Array:
        total = np.zeros(c.shape)
        for k in reversed(range(8)):
            total = total + x[:, k::8].astype(np.float64) @ y[:, k::8].T.astype(np.float64)
        return (total + c).astype(np.float32)
