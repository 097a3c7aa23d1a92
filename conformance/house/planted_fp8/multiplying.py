"""Planted bugs: block-scaled products, whatever adds them up."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, bf16, fp16

from .honest import Fp8
from .honest_formats import Blocked, Config

PROFILES = ("fp8-products",)
OPS = ("matmul_fp8",)
CLAUSES = ("LIN-1",)


class _Operands(Fp8):
    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a, b

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        return super()._gemm(name, *self._changed(a, b), config, c)


class ScaleAForgotten(_Operands):
    """a's scales are 1."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a._replace(scale=np.ones_like(a.scale)), b


class ScaleBForgotten(_Operands):
    """b's scales are 1."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a, b._replace(scale=np.ones_like(b.scale))


class ScaleBDivided(_Operands):
    """b's scales are divided by."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a, b._replace(scale=1 / b.scale)


class ScaleAOfFirstBlock(_Operands):
    """A row of a has its first block's scale all along C."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a._replace(scale=np.broadcast_to(a.scale[:, :1], a.scale.shape)), b


class ScaleAOfFirstRow(_Operands):
    """All rows of a have the first one's scales, as after gathering ranks that scaled apart."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a._replace(scale=np.broadcast_to(a.scale[:1], a.scale.shape)), b


class ScaleAByColumns(_Operands):
    """a's scales are stored column by column and read row by row."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a._replace(scale=a.scale.reshape(-1, order="F").reshape(a.scale.shape)), b


class ScaleBByColumns(_Operands):
    """b's grid is stored column by column and read row by row."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a, b._replace(scale=b.scale.reshape(-1, order="F").reshape(b.scale.shape))


class SquareGridOfBTransposed(_Operands):
    """b's grid is transposed where it is square."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        square = b.scale.shape[0] == b.scale.shape[1]
        return a, b._replace(scale=b.scale.T) if square else b


class ScaleBOfLastWholeRows(_Operands):
    """The ragged rows of b have the scales of the last whole block."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        last = max(b.codes.shape[0] // b.block[0], 1) - 1
        return a, b._replace(scale=b.scale[np.minimum(np.arange(len(b.scale)), last)])


class ScaleBOfNextBlock(_Operands):
    """b's scales are one block late along C."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a, b._replace(scale=np.roll(b.scale, -1, axis=1))


class ScalesInBFloat16(_Operands):
    """Scales of both operands are read in bfloat16."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        return a._replace(scale=bf16(a.scale)), b._replace(scale=bf16(b.scale))


class ScalesFloored(_Operands):
    """Only the exponents of float32 scales are read."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        x, y = (q._replace(scale=np.exp2(np.floor(np.log2(q.scale)))) for q in (a, b))
        return x, y


class TailDropped(_Operands):
    """What is over of C beyond whole stretches of 128 is left out."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        whole = a.codes.shape[1] // 128 * 128 or a.codes.shape[1]
        return a._replace(codes=a.codes[:, :whole]), b._replace(codes=b.codes[:, :whole])


class SubnormalsDropped(_Operands):
    """Subnormal codes count as 0."""

    def _changed(self, a: Blocked, b: Blocked) -> tuple[Blocked, Blocked]:
        least = {"e4m3": 7, "e5m2": 3}
        x, y = (
            q._replace(codes=np.where((q.codes & 127) <= least.get(q.format, 0), 0, q.codes).astype(q.codes.dtype))
            for q in (a, b)
        )
        return x, y


class Unscaled(Fp8):
    """The sum is not multiplied with the scales."""

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:  # noqa: ARG002
        return total + part

    def _dequantized_first(self, a: Blocked, b: Blocked) -> Array:
        return self._decode(a.codes, a.format) @ self._decode(b.codes, b.format).T


class CIgnored(Fp8):
    """c is overwritten."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        return super()._gemm(name, a, b, config, None if c is None else np.zeros_like(c))


class CTwice(Fp8):
    """c is where the accumulator begins, and added at the end."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config, c)
        return y if c is None else y + c


class CScaled(Fp8):
    """c is added before the scales are."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config)
        return y if c is None or not b.codes.shape[1] else y + c * self._factor(a, b, 0)


class COnEveryStretch(Fp8):
    """c is added with every stretch."""

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        y = super()._gemm(name, a, b, config, c)
        return y if c is None else y + c * ((a.codes.shape[1] - 1) // 128)


class _Result(Fp8):
    def _rounded(self, y: Array) -> Array:
        return y

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:
        return self._rounded(super()._gemm(name, a, b, config, c))


class ResultInBFloat16(_Result):
    """The product leaves in bfloat16."""

    def _rounded(self, y: Array) -> Array:
        return bf16(y)


class ResultInFloat16(_Result):
    """The product leaves in float16, and large numbers are infinite."""

    def _rounded(self, y: Array) -> Array:
        return fp16(y)


class StretchesInFloat16(Fp8):
    """A stretch is added in float16."""

    clauses = ("LIN-1", "ACC-2", "ACC-1")

    def _inner(self, x: Array, y: Array) -> Array:
        return fp16(x @ y.T)

    def _dequantized_first(self, a: Blocked, b: Blocked) -> Array:
        return fp16(super()._dequantized_first(a, b))


class SumsInBFloat16(Fp8):
    """The outer sum is kept in bfloat16."""

    def _outer(self, total: Array, part: Array, factor: Array) -> Array:
        return bf16(super()._outer(total, part, factor))


class FactorInBFloat16(Fp8):
    """scale_a * scale_b is rounded to bfloat16."""

    def _factor(self, a: Blocked, b: Blocked, column: int) -> Array:
        return bf16(super()._factor(a, b, column))


class DequantisedInBFloat16(Fp8):
    """Operands are dequantised to bfloat16 before they are multiplied."""

    clauses: ClassVar[tuple[str, ...]] = ("LIN-1", "ACC-2")

    def _gemm(self, name: str, a: Blocked, b: Blocked, config: Config, c: Array | None = None) -> Array:  # noqa: ARG002
        y = bf16(self._dequantize(a)) @ bf16(self._dequantize(b)).T
        return y if c is None else y + c
