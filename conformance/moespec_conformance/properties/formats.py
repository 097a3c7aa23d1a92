"""Small formats: what rounding to one does, whatever its bits."""

import numpy as np

from moespec.formats import FORMATS
from moespec_conformance.properties.engine.comparing import near
from moespec_conformance.properties.engine.fp8 import casts, values_of
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial, given
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Array, Case


def cast(ask: Ask, case: Case, x: Array) -> Array:
    """The numbers that an implementation's codes of x stand for."""
    return values_of(ask(given(case, x=np.asarray(x, np.float32)))["codes"], case.cfg.format)


def rounded_twice_is_once(ask: Ask, trial: Trial) -> None:
    """FMT-1: a number of the format becomes itself."""
    case = trial.case
    once = cast(ask, case, case.inputs["x"])
    finite = np.where(np.isfinite(once), once, 0)
    near("what rounded numbers round to", cast(ask, case, finite), finite)


def nearest(ask: Ask, trial: Trial) -> None:
    """FMT-1, FMT-4: within half a step of the grid, up to the largest number."""
    case, fmt, x = trial.case, FORMATS[trial.case.cfg.format], trial.case.inputs["x"].astype(np.float64)
    within = np.abs(x) <= fmt.largest
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent - 1, fmt.emin) - fmt.mantissa)
    near("the number of x's code", cast(ask, case, x)[within], x[within], step[within] / 2)


def mirrored(ask: Ask, trial: Trial) -> None:
    """FMT-1: of -x it is what it is of x, with the other sign."""
    case, x = trial.case, trial.case.inputs["x"]
    pairs = (cast(ask, case, -x), -cast(ask, case, x))
    finite = np.isfinite(pairs[1])
    near("the number of -x's code", pairs[0][finite], pairs[1][finite])


def in_order(ask: Ask, trial: Trial) -> None:
    """FMT-1: a larger number never becomes a smaller one."""
    case = trial.case
    x = np.sort(case.inputs["x"], axis=-1)
    got = cast(ask, case, x)
    falls = np.argwhere(np.diff(got, axis=-1) < 0)
    if len(falls):
        row, column = falls[0]
        pair = slice(column, column + 2)
        raise Broken(f"{x[row, pair].tolist()} become {got[row, pair].tolist()}")


def doubled(ask: Ask, trial: Trial) -> None:
    """FMT-1: among normal numbers, twice x becomes twice what x does."""
    case, fmt, x = trial.case, FORMATS[trial.case.cfg.format], trial.case.inputs["x"]
    normal = (np.abs(x) >= 2.0**fmt.emin) & (np.abs(x) <= fmt.largest / 2)
    near("the number of 2 x's code", cast(ask, case, 2 * x)[normal], 2 * cast(ask, case, x)[normal])


FOUND = (
    any_order("cast", "M", casts, ("FMT-1",)),
    Property("cast-twice-is-once", ("FMT-1",), ("cast",), casts, rounded_twice_is_once),
    Property("cast-is-nearest", ("FMT-1", "FMT-4"), ("cast",), casts, nearest),
    Property("cast-is-mirrored", ("FMT-1",), ("cast",), casts, mirrored),
    Property("cast-keeps-order", ("FMT-1",), ("cast",), casts, in_order),
    Property("cast-of-twice-is-twice", ("FMT-1",), ("cast",), casts, doubled),
)
