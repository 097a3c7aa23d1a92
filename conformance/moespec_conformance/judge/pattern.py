"""What a wrong tensor looks like, in words: the first clue to why."""

import numpy as np

from moespec_conformance.protocol import Array

MOST = 8  # places listed by number; more are only counted


def listed(hit: Array) -> str:
    """Places by number: "3, 7, 9", or "128 … 255" if none between is missing."""
    if len(hit) > 2 and hit[-1] - hit[0] == len(hit) - 1:  # noqa: PLR2004
        return f"{hit[0]} … {hit[-1]}"
    return ", ".join(str(i) for i in hit[:MOST]) + (", …" if len(hit) > MOST else "")


def places(axis: str, bad: Array) -> str | None:
    """Say "only tokens 3, 7" if the wrong ones lie in few of many slices along the first axis."""
    hit = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    if len(hit) == len(bad) or len(bad) < 2:  # noqa: PLR2004
        return None
    return f"only {axis} {listed(hit)} ({len(hit)} of {len(bad)})"


def factor(got: Array, want: Array) -> str | None:
    """Say "everything times 2.5000" if one factor explains every element."""
    big = np.abs(want) > np.abs(want).max(initial=0) / 16
    if not big.any():
        return None
    ratio = got[big] / want[big]
    middle = float(np.median(ratio))
    if abs(middle - 1) < 1e-3 or np.abs(got - middle * want).max() > 1e-3 * np.abs(want).max():  # noqa: PLR2004
        return None
    return "everything has the wrong sign" if abs(middle + 1) < 1e-3 else f"everything times {middle:.4f}"  # noqa: PLR2004


def shifted(got: Array, want: Array) -> str | None:
    """Say "rows moved by +1" if rows are right but in their neighbours' places."""
    if want.ndim < 2 or len(want) < 3:  # noqa: PLR2004
        return None
    for by in (1, -1):
        if np.allclose(got, np.roll(want, by, axis=0), rtol=1e-3, atol=1e-6 * np.abs(want).max()):
            return f"rows moved by {by:+d}"
    return None


def describe(axis: str, got: Array, want: Array, bound: Array) -> str:
    """All that can be said at a glance."""
    got = got.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN and infinity may be right, too
        bad = ~((np.abs(got - want) <= bound) | (got == want) | (np.isnan(got) & np.isnan(want)))
    finite = bool(np.isfinite(got).all() and np.isfinite(want).all())
    said = [factor(got, want), shifted(got, want)] if finite else []
    said.append(places(axis, bad) if bad.ndim else None)
    if bad.ndim > 1 and not bad.all():
        columns = np.flatnonzero(bad.reshape(-1, bad.shape[-1]).any(axis=0))
        if len(columns) < bad.shape[-1]:
            said.append(f"only columns {listed(columns)} ({len(columns)} of {bad.shape[-1]})")
    if not got.any() and want.any():
        said = ["all zeros"]
    return "; ".join([f"{bad.sum()} of {bad.size} elements", *(s for s in said if s)])
