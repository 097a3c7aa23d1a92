"""Planted bugs: products within bounds, but not of the bits that exact sums have."""

import numpy as np
from planted.arith import Array

from .honest import Fp8
from .honest_formats import Blocked, Config

PROFILES = ("fp8-exact",)
OPS = ("matmul_fp8",)
CLAUSES = ("LIN-1",)


class FusedAdd(Fp8):
    """Multiplication and addition of the outer sum are one rounding: within bounds, but not these bits."""

    profiles = ("fp8-exact", "hopper")

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        wide = total.astype(np.float64) + part.astype(np.float64) * factor
        return wide.astype(np.float32)


class ScalesOneByOne(Fp8):
    """(sum * scale_a) * scale_b: within bounds, but not these bits."""

    profiles = ("fp8-exact",)

    def _factor(self, a: Blocked, b: Blocked, column: int) -> Array:  # noqa: ARG002
        return np.float32(column)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        self._now = a, b
        return super()._gemm(name, a, b, config, c)

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        a, b = (self._rows_scale(q, int(factor)) for q in self._now)
        return total + part * a[:, None] * b


class LastStretchFirst(Fp8):
    """Stretches are added from the last to the first: within bounds, but not these bits."""

    profiles = ("fp8-exact",)

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        if not config["promote_every"] or config["accumulate"] == "float32":
            return super()._gemm(name, a, b, config, c)
        total = np.zeros((len(a.codes), len(b.codes)), np.float32) if c is None else c
        width = self._width(a, b, config)
        for start in reversed(range(0, a.codes.shape[1], width)):
            part = self._stretch(a, b, slice(start, start + width), config, np.zeros_like(total))
            total = self._outer(total, part, self._factor(a, b, start))
        return total


class ExactInFloat32(Fp8):
    """Exact sums are made in float32."""

    profiles = ("fp8-exact",)
    clauses = ("ACC-1",)

    def _exactly(self, x: Array, y: Array, c: Array) -> Array:
        total = np.zeros_like(c)
        for k in range(x.shape[1]):
            total = total + x[:, k, None] * y[:, k]
        return total + c


class CAfterRounding(Fp8):
    """Without promotion c is added after the exact sum was rounded."""

    profiles = ("fp8-exact",)
    clauses = ("ACC-1", "LIN-3")

    def _exactly(self, x: Array, y: Array, c: Array) -> Array:
        return super()._exactly(x, y, np.zeros_like(c)) + c
