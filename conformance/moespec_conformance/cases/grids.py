"""The numbers of small formats, counted out from three numbers each; codes and scales as stored (FMT-2, FMT-5).

Nothing here asks the reference: what a case puts in must not depend on what it judges.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from moespec_conformance.cases.inputs import F32, Draw, Tensor, fp8_config

LARGEST = float(np.finfo(np.float32).max)


class Grid(NamedTuple):
    """One format: mantissa bits, exponent of the least normal number, how many codes from 0 on are finite, and NaN."""

    mantissa: int
    emin: int
    finite: int
    bits: int = 8
    nan: int | None = None
    storage: Any = np.uint8

    @property
    def top(self) -> float:
        """The largest number."""
        return float(numbers(self, np.asarray(self.finite - 1)))


GRIDS = {
    "e4m3": Grid(3, -6, 127, nan=0x7F, storage=ml_dtypes.float8_e4m3fn),
    "e5m2": Grid(2, -14, 124, nan=0x7E, storage=ml_dtypes.float8_e5m2),
    "e4m3fnuz": Grid(3, -7, 128, nan=0x80, storage=ml_dtypes.float8_e4m3fnuz),
    "e5m2fnuz": Grid(2, -15, 128, nan=0x80, storage=ml_dtypes.float8_e5m2fnuz),
    "e2m1": Grid(1, 0, 8, bits=4),
    "e5m6": Grid(6, -14, 1984, bits=12, nan=0x7E0, storage=np.uint16),
    "bfloat16": Grid(7, -126, 32640, bits=16, nan=0x7FC0, storage=ml_dtypes.bfloat16),
}


def numbers(grid: Grid, codes: Tensor) -> npt.NDArray[np.float64]:
    """What codes without a sign stand for; beyond the last, the grid goes on."""
    field, fraction = codes >> grid.mantissa, codes % (1 << grid.mantissa)
    whole = fraction + np.where(field > 0, 1 << grid.mantissa, 0)
    return np.asarray(whole * np.exp2(np.maximum(field, 1) - 1.0 + grid.emin - grid.mantissa))


def midpoints(grid: Grid, codes: Tensor) -> npt.NDArray[np.float64]:
    """Halfway from codes to the next ones."""
    return (numbers(grid, codes) + numbers(grid, codes + 1)) / 2


def beside(x: Tensor, *ulps: int) -> F32:
    """The float32 numbers that stand so many places beside these, none of which is negative; 0 stays."""
    bits = np.asarray(x, np.float32).view(np.int32)
    moved = np.stack([bits + np.where(bits > 0, places, 0) for places in ulps], axis=-1)
    return moved.astype(np.int32).view(np.float32)


def both_signs(x: Tensor) -> F32:
    """These numbers, and the same ones negative."""
    flat = np.asarray(x, np.float32).ravel()
    return np.concatenate([flat, -flat])


def as_matrix(x: Tensor, columns: int = 32) -> F32:
    """Numbers in rows; what is left of the last row is 1."""
    flat = np.asarray(x, np.float32).ravel()
    return np.concatenate([flat, np.ones(-len(flat) % columns, np.float32)]).reshape(-1, columns)


def stored(codes: Tensor, name: str) -> Tensor:
    """FMT-5: codes (M, C) as they are handed over."""
    grid = GRIDS[name]
    if name == "e2m1":
        return np.asarray(codes[..., ::2] | codes[..., 1::2] << 4, np.uint8)
    return codes.astype(np.uint8 if grid.bits == 8 else np.uint16).view(grid.storage)  # noqa: PLR2004 - a byte


def any_codes(draw: Draw, name: str, *shape: int) -> Tensor:
    """Codes of finite numbers of both signs, all equally often; no zero is negative."""
    grid = GRIDS[name]
    size = draw.integers(*shape, bits=20) % grid.finite
    return size + (draw.integers(*shape, bits=1) * (size > 0) << (grid.bits - 1))


def whole_codes(draw: Draw, name: str, *shape: int) -> Tensor:
    """Codes of numbers from 1/8 of the largest on, of both signs: blocks of much the same size."""
    grid = GRIDS[name]
    size = grid.finite - 1 - draw.integers(*shape, bits=20) % min(3 << grid.mantissa, grid.finite - 1)
    return size + (draw.integers(*shape, bits=1) << (grid.bits - 1))


def powers(draw: Draw, shape: tuple[int, int], low: int, high: int) -> F32:
    """A grid of scales that are powers of two, 2**low … 2**high."""
    return np.exp2(low + draw.integers(*shape) % (high - low + 1)).astype(np.float32)


def scales(draw: Draw, shape: tuple[int, int], low: int, high: int) -> F32:
    """A grid of scales of 24 digits, from 2**low to 2**(high + 1)."""
    digits = (1 + draw.integers(*shape, bits=23) * 2.0**-23).astype(np.float32)
    return powers(draw, shape, low, high) * digits


def bytes_of(scale: Tensor) -> Tensor:
    """FMT-6: powers of two from 2**-127 on as E8M0."""
    _, exponent = np.frexp(scale)
    return (exponent + 126).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


def grid_of(size: tuple[int, ...], block: list[int]) -> tuple[int, int]:
    """QNT-1: how many blocks a matrix has."""
    return -(-size[0] // block[0]), -(-size[1] // block[1])


OF_CASE = ("clauses", "kind", "manner", "note", "profiles")
# where `format` and `block` count alone, these say something else
OPERANDS: dict[str, Any] = {"a_format": "e4m3", "b_format": "e4m3", "a_block": (1, 128), "b_block": (128, 128)}


def told(how: dict[str, Any], **usual: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - config values
    """What is said of a case besides its question, and its config; `how` holds both, and wins over the usual."""
    fields: dict[str, Any] = {name: how[name] for name in OF_CASE if name in how}
    config: dict[str, Any] = {**usual, **{name: value for name, value in how.items() if name not in OF_CASE}}
    return fields, fp8_config(**config)
