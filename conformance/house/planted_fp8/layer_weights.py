"""Planted bugs: the layer's matrices, and how what is sent to experts is scaled."""

from typing import ClassVar

import numpy as np
from planted.arith import Array, Tensors

from .honest import Fp8
from .honest_blocks import How
from .honest_formats import Blocked, Config
from .honest_layer import Matrices

PROFILES = ("fp8-layer",)
OPS = ("moe_fp8",)
CLAUSES = ("MFP-3",)


class _Weights(Fp8):
    clauses: ClassVar[tuple[str, ...]] = ("MFP-3", "LIN-1", "QNT-1")

    def _read_matrix(self, q: Blocked) -> Blocked:
        return q

    def _matrices(self, config: Config, t: Tensors, prefix: str = "") -> Matrices | None:
        m = super()._matrices(config, t, prefix)
        return m and Matrices(*(None if q is None else self._read_matrix(q) for q in m))  # type: ignore[arg-type]


class WeightGridsTransposed(_Weights):
    """The weights' grids are read column by column."""

    def _read_matrix(self, q: Blocked) -> Blocked:
        i, j = q.scale.shape[-2:]
        turned = q.scale.reshape(*q.scale.shape[:-2], j, i).swapaxes(-1, -2)
        return q._replace(scale=turned)


class WeightScalesDivided(_Weights):
    """The weights' scales are divided by."""

    def _read_matrix(self, q: Blocked) -> Blocked:
        return q._replace(scale=1 / q.scale)


class WeightScalesOfNextExpert(_Weights):
    """An expert's matrices have the next one's scales."""

    def _read_matrix(self, q: Blocked) -> Blocked:
        return q._replace(scale=np.roll(q.scale, -1, axis=0)) if q.scale.ndim == 3 else q


class WeightScalesOfFirstExpert(_Weights):
    """All experts have the first one's scales."""

    def _read_matrix(self, q: Blocked) -> Blocked:
        return q._replace(scale=np.broadcast_to(q.scale[:1], q.scale.shape)) if q.scale.ndim == 3 else q


class LiftedToFloat32Scales(Fp8):
    """FP4 weights are dequantised and quantised anew, with float32 scales."""

    clauses = ("MFP-8",)

    def _lift(self, q: Blocked, how: How) -> Blocked:
        return self._requantize(q, how._replace(scales="float32"))


class NibblesOfWeightsSwapped(Fp8):
    """FP4 weights are read high half first."""

    clauses = ("MFP-8", "FMT-5")

    def _unpack(self, packed: Array) -> Array:
        return super()._unpack(packed // 16 + packed % 16 * 16)


class NoPowersOfTwoSent(Fp8):
    """What is sent has float32 scales in every recipe."""

    clauses = ("MFP-2",)

    def _how_sent(self, config: Config) -> How:
        return super()._how_sent(config)._replace(scales="float32")


class AlwaysPowersOfTwoSent(Fp8):
    """What is sent has powers of two as scales in every recipe."""

    clauses = ("MFP-2",)

    def _how_sent(self, config: Config) -> How:
        return super()._how_sent(config)._replace(scales="ue8m0")
