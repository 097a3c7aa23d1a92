"""Matrices that quantisers get wrong: blocks of their own sizes, at the ends of scales, of zeros, of nothing, of NaN.

Each family makes the values of a matrix (M, C), given how it is cut into blocks.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moespec_conformance.cases.grids import GRIDS, LARGEST, Grid, beside, grid_of, midpoints, powers, scales
from moespec_conformance.cases.inputs import F32, Draw, Tensor


class Frame(NamedTuple):
    """What a family must know: size, blocks, and the format."""

    rows: int
    columns: int
    block: tuple[int, int]
    format: str

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def blocks(self) -> tuple[int, int]:
        """How many blocks."""
        return grid_of(self.size, list(self.block))

    @property
    def grid(self) -> Grid:
        """The format's grid."""
        return GRIDS[self.format]

    @property
    def which(self) -> Tensor:
        """Which block, counted along rows, each element lies in (M, C)."""
        rows, columns = (np.arange(size) // side for size, side in zip(self.size, self.block, strict=True))
        return rows[:, None] * self.blocks[1] + columns

    def each(self, values: Tensor) -> Tensor:
        """Its block's value at each element (M, C); values in a row, and again from the start where they end."""
        return np.resize(values, max(self.blocks[0] * self.blocks[1], 1))[self.which]


Make = Callable[[Draw, Frame], F32]


def signs(draw: Draw, *shape: int) -> F32:
    """1 or -1."""
    return np.asarray(1 - 2 * draw.integers(*shape, bits=1), np.float32)


def peaked(draw: Draw, x: F32, frame: Frame, amax: Tensor) -> F32:
    """The same matrix, with a block's largest magnitude at one element of each, anywhere and of any sign."""
    down, right = (draw.integers(*frame.blocks, bits=20) for _ in range(2))
    i, j = np.indices(frame.blocks)
    (m, c), (bm, bn) = frame.size, frame.block
    row, column = i * bm + down % np.minimum(bm, m - i * bm), j * bn + right % np.minimum(bn, c - j * bn)
    x[row, column] = np.resize(amax, frame.blocks) * signs(draw, *frame.blocks)
    return x


def below(draw: Draw, frame: Frame, amax: Tensor) -> F32:
    """Blocks with these largest magnitudes, and any 24 digits up to half of them elsewhere."""
    shares = (draw.integers(*frame.size, bits=24) - 2**23) * 2.0**-24
    return peaked(draw, shares.astype(np.float32) * frame.each(np.asarray(amax, np.float32)), frame, amax)


def ordinary(draw: Draw, frame: Frame) -> F32:
    """Bell-shaped numbers."""
    return draw.normal(*frame.size)


def one_sign(draw: Draw, frame: Frame) -> F32:
    """Each block's largest magnitudes are negative: the largest number is not the largest magnitude."""
    x = np.abs(draw.normal(*frame.size)) + np.float32(2**-10)
    return np.where(draw.integers(*frame.size, bits=1) > 0, -x, x / 64)


def equal(draw: Draw, frame: Frame) -> F32:
    """All of a block has one magnitude: every code is the largest."""
    return frame.each(scales(draw, frame.blocks, -6, 6).ravel()) * signs(draw, *frame.size)


def bfloat16_values(draw: Draw, frame: Frame) -> F32:
    """Numbers of eight digits, as bfloat16 has: with powers of two many are exactly halfway."""
    digits = (128 + draw.integers(*frame.size, bits=7)) * 2.0**-7
    sizes = np.exp2(-(draw.integers(*frame.size, bits=20) % 8))
    return np.asarray(digits * sizes * signs(draw, *frame.size), np.float32)


def rows_apart(draw: Draw, frame: Frame) -> F32:
    """Every row, and then every column, has a size of its own, 2**-20 … 2**20 and more."""
    across = powers(draw, (1, frame.columns), -2, 2)
    return draw.normal(*frame.size) * powers(draw, (frame.rows, 1), -20, 20) * across


def blocks_apart(draw: Draw, frame: Frame) -> F32:
    """Every block has a size of its own: the scale of any other is wrong, and so is an amax that looks across."""
    return draw.normal(*frame.size) * frame.each(powers(draw, frame.blocks, -12, 20).ravel())


def ends_of_scales(draw: Draw, frame: Frame) -> F32:
    """amax is the format's largest number times 2**k, and what stands beside that: up to nine places above."""
    places = (0, 1, -1, 2, -2, 3, 4, 5, 6, 7, 8, 9)
    each = np.arange(17 * len(places))  # every k comes with every place
    exact = frame.grid.top * np.exp2(7.0 * (each % 17) - 20)
    return below(draw, frame, beside(exact, *places)[each, each % len(places)])


def ties(draw: Draw, frame: Frame) -> F32:
    """With amax the largest number times 2**k the scale is 2**k, and numbers are halfway, or beside that."""
    codes = draw.integers(*frame.size, bits=24) % (frame.grid.finite - 1)
    place = draw.integers(*frame.size, bits=20) % 3
    halfway = np.take_along_axis(beside(midpoints(frame.grid, codes), -1, 0, 1), place[..., None], axis=-1)[..., 0]
    power = np.exp2(np.resize(np.arange(-8.0, 9.0), frame.blocks))
    x = halfway * frame.each(power.ravel()).astype(np.float32) * signs(draw, *frame.size)
    return peaked(draw, x.astype(np.float32), frame, frame.grid.top * power)


def near_ties(draw: Draw, frame: Frame) -> F32:
    """With any amax: numbers that are halfway in units of amax / top, or up to four float32 places beside that.

    Here it shows whether a number was divided, or multiplied with one quotient or another.
    """
    amax = scales(draw, frame.blocks, -4, 4)
    codes = draw.integers(*frame.size, bits=24) % (frame.grid.finite - 1)
    unit = frame.each((amax / np.float32(frame.grid.top)).ravel())
    place = draw.integers(*frame.size, bits=20) % 9
    around = beside(midpoints(frame.grid, codes).astype(np.float32) * unit, *range(-4, 5))
    x = np.take_along_axis(around, place[..., None], axis=-1)[..., 0]
    return peaked(draw, x * signs(draw, *frame.size), frame, amax)


def zeros(draw: Draw, frame: Frame) -> F32:
    """Two blocks of three are zeros, one of them negative ones."""
    factor = np.asarray([0, 1, -0.0], np.float32)[frame.which % 3]
    return np.asarray(draw.normal(*frame.size) * factor)


# floors of recipes, and sizes between and below
LEAST = (1e-4, 1e-12, 6 * 2.0**-126, 2.0**-126)
SIZES = (0, 3e-6, 1e-9, 5e-13, 1e-37, 2.0**-149, 9e-5, 1e-20, 1e-30, 2.0**-127, 2.0**-135, 2.0**-140, 2.0**-148)


def tiny(draw: Draw, frame: Frame) -> F32:
    """amax at the floors of recipes, below them, and down to the least number of float32."""
    floors = beside(np.asarray(LEAST), -1, 0, 1).ravel()
    return below(draw, frame, np.concatenate([floors[:3], np.asarray(SIZES, np.float32), floors[3:]]))


def huge(draw: Draw, frame: Frame) -> F32:
    """amax up to the largest number of float32."""
    sizes = [LARGEST, LARGEST * (1 - 2.0**-10), 1.75 * 2.0**127, 1.5 * 2.0**127, 2.0**127, 2.0**120, 1e38, 1e36]
    return below(draw, frame, np.asarray(sizes, np.float32))


def outlier(draw: Draw, frame: Frame) -> F32:
    """One number a block is far larger than the others, from 2**4 times to 2**24 times."""
    return peaked(draw, draw.normal(*frame.size), frame, np.exp2([4.0, 8.0, 12.0, 16.0, 20.0, 24.0]))


def odd(draw: Draw, frame: Frame) -> F32:
    """Every second block holds NaN or an infinity of either sign, and every sixth both."""
    x = draw.normal(*frame.size)
    for step, worst in ((2, (np.nan, np.inf, np.inf, -np.nan)), (6, (np.inf, np.inf))):
        marked = peaked(draw, x.copy(), frame, np.repeat(np.asarray(worst, np.float32), 2))
        x = np.where(frame.which % step == 1, marked, x)
    return x
