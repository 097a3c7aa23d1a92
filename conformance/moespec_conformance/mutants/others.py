"""How the tests that others use compare two tensors: whether one passes for the other."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from moespec_conformance.protocol import Array

CENT = 1e-2


class Pair(NamedTuple):
    """One output and the right answer, both in float64, and whether it is stored in bfloat16."""

    got: Array
    want: Array
    coarse: bool


Oracle: TypeAlias = Callable[[Pair], bool]


def off(pair: Pair) -> Array:
    """How far each element is from the right answer."""
    distance: Array = np.abs(pair.got - pair.want)
    return distance


def close(rtol: float, atol: float, share: float = 1.0) -> Oracle:
    """numpy.allclose; or the same of a share of the elements, if all are finite."""

    def accepts(pair: Pair) -> bool:
        near = off(pair) <= atol + rtol * np.abs(pair.want)
        return bool(np.isfinite(pair.got).all() and near.sum() >= share * near.size)

    return accepts


def default_of_torch(pair: Pair) -> bool:
    """torch.testing.assert_close without tolerances: by dtype."""
    return close(1.6e-2 if pair.coarse else 1.3e-6, 1e-5)(pair)


def calc_diff(most: float) -> Oracle:
    """DeepGEMM's measure of two whole tensors: 1 - 2<x, y> / (<x, x> + <y, y>)."""

    def accepts(pair: Pair) -> bool:
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN, and NaN is not small
            whole = float((pair.got**2 + pair.want**2).sum())
            return whole == 0 or bool(1 - 2 * (pair.got * pair.want).sum() / whole < most)

    return accepts


def matched(share: float) -> Oracle:
    """A share of the elements within 1e-2, absolute or relative, and all finite."""

    def accepts(pair: Pair) -> bool:
        near = (off(pair) <= CENT) | (off(pair) <= CENT * np.abs(pair.want))
        return bool(np.isfinite(pair.got).all() and near.sum() >= share * near.size)

    return accepts


ORACLES: dict[str, Oracle] = {
    "80 % within atol 0.1, rtol 0.85 (FlashInfer's TRT-LLM MoE test)": close(0.85, 0.1, 0.8),
    "calc_diff < 1e-3 (DeepGEMM, FP8)": calc_diff(1e-3),
    "95 % within 1e-2 (flashinfer-bench, MoE)": matched(0.95),
    "99 % within 1e-2 (SOL-ExecBench)": matched(0.99),
    "calc_diff < 1e-5 (DeepGEMM, BF16)": calc_diff(1e-5),
    "allclose, rtol = atol = 1e-2": close(1e-2, 1e-2),
    "torch.testing.assert_close, defaults": default_of_torch,
}
