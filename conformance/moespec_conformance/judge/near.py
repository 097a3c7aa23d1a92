"""Near: within the bound, element by element; and, over a whole tensor, within the usual spread of rounding."""

import math
from typing import NamedTuple

import numpy as np

from moespec_conformance.protocol import Array
from moespec_conformance.readings.bounded import TINY

ENOUGH = 1000  # elements below which a mean says little
RMS, BIAS = 2.0, 0.5  # in standard deviations: honest float32 shows at most 0.8 and 0.2, in any order
ROOM = 1.0  # times every bound and limit: more only where the suite asks what its own strength depends on
USUAL = 1.0  # what independent roundings would show; an rms above it is legal, and worth a look


class Worst(NamedTuple):
    """The element farthest out, and by how much: error / bound."""

    ratio: float
    where: tuple[int, ...]


def worst(got: Array, want: Array, bound: Array) -> Worst:
    """The largest |got - want| / bound; 0 / 0 is 0, and NaN, or beyond a bound of 0, is infinitely far."""
    if not got.size:
        return Worst(0.0, ())
    error = np.abs(got.astype(np.float64) - want)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, np.where(np.isnan(error), np.inf, error / (bound * ROOM)))
    at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return Worst(float(ratio[at]), tuple(int(i) for i in at))


def spread(got: Array, want: Array, variance: Array) -> tuple[float, float]:
    """Rms, and mean along the sign of want, of (got - want) / standard deviation; (0, 0) for small tensors."""
    if got.size < ENOUGH:
        return 0.0, 0.0
    z = (got.astype(np.float64) - want) / np.sqrt(variance + TINY * TINY)
    return math.sqrt(float(np.mean(z * z))) / ROOM, float(np.mean(z * np.sign(want))) / ROOM
