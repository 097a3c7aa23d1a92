"""Blocks of a matrix, each with one scale: quantise, dequantise, and the same numbers in other blocks (SPEC: QNT).

A block's numbers are divided by its scale so that the largest of them is near the largest number of the format; what is
stored is codes and the scale, which is the multiplier that brings the numbers back. Everything here is float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from moespec.arrays import Float
from moespec.formats import FORMATS, Format, decode, encode, rounded
from moespec.recipes import RECIPES, Recipe

Block = tuple[int, int]
LIFTED = (128, 128)  # MFP-8: blocks of what was E2M1
BAND = 1 << 17  # numbers that are quantised at a time: what a cache holds with all that is made of them


class Scheme(NamedTuple):
    """How a matrix is quantised: what the config says of one operand."""

    recipe: str
    format: str
    block: Block
    scale_format: str
    overflow: str

    @property
    def fmt(self) -> Format:
        """The format's grid."""
        return FORMATS[self.format]

    @property
    def rule(self) -> Recipe:
        """The recipe's arithmetic."""
        return RECIPES[self.recipe]


class Quantized(NamedTuple):
    """A matrix (M, N) in blocks, or a stack: codes, or the numbers they stand for; each block's scale (I, J)."""

    codes: Any
    scale: Float


def within(block: Block, shape: tuple[int, ...]) -> Block:
    """QNT-1: a block that is larger than its matrix ends where that does."""
    return min(block[0], max(shape[0], 1)), min(block[1], max(shape[1], 1))


def tiles(
    x: Float,  # (M, N)
    block: Block,
) -> Float:
    """QNT-1: the blocks of a matrix (I, bm, J, bn); a ragged edge is filled up with zeros."""
    (m, n), (bm, bn) = x.shape, within(block, x.shape)
    down, right = -m % bm, -n % bn
    if down:
        x = np.concatenate([x, np.zeros_like(x, shape=(down, n))])  # (R, N)
    if right:
        x = np.concatenate([x, np.zeros_like(x, shape=(m + down, right))], axis=1)  # (R, C)
    return x.reshape((m + down) // bm, bm, (n + right) // bn, bn)


def largest_of(
    tiled: Float,  # (I, bm, J, bn)
) -> Float:
    """QNT-2: the largest magnitude of each block (I, J); NaN if it holds one."""
    largest: Float = np.amax(np.amax(np.abs(tiled), axis=3), axis=1)  # (I, J)
    return largest


def largest_float32(
    tiled: Float,  # (I, bm, J, bn)
) -> Float:
    """The same (I, J) of float32: magnitudes stand in the order of their bits, NaN above all, which is faster."""
    bits = np.abs(tiled).view(np.uint32)  # (I, bm, J, bn)
    largest: Float = bits.max(axis=(1, 3)).view(np.float32)  # (I, J)
    return largest


def scales(
    largest: Float,  # (I, J)
    scheme: Scheme,
) -> tuple[Float, Float]:
    """QNT-2, QNT-3: each block's scale, and what its numbers are divided by (`divides`) or multiplied by: (I, J)."""
    rule, top = scheme.rule, scheme.fmt.largest
    floor = np.float32(rule.floor_fp4 if scheme.format == "e2m1" else rule.floor)
    amax = np.maximum(np.where(largest < np.inf, largest, 1), floor)  # (I, J)
    if scheme.scale_format == "ue8m0":
        scale = power_of_two(amax, scheme)  # (I, J)
        factor = 1 / scale  # (I, J)
    else:
        inverse = np.minimum(top / amax, np.finfo(np.float32).max)  # (I, J)
        scale = 1 / inverse if rule.scale_of == "inverse" else amax / top  # (I, J)
        factor = {"divide": scale, "reciprocal": 1 / scale, "inverse": inverse}[rule.apply]  # (I, J)
    return special(scale, largest, rule), special(factor, largest, rule)


def power_of_two(
    amax: Float,  # (I, J)
    scheme: Scheme,
) -> Float:
    """QNT-3: the least 2^k with amax <= 2^k * top (I, J), without a division or a logarithm; k is -127 or more."""
    part, exponent = np.frexp(amax)  # (I, J): amax = part * 2^exponent, and part lies in 1/2 … 1
    top_part, top_exponent = np.frexp(scheme.fmt.largest)
    low: Float = np.ldexp(np.float32(1), np.maximum(exponent - top_exponent, -127))  # (I, J)
    if scheme.rule.scale_of == "floor":
        return low  # OCP: the powers of two at or below amax and top
    high = np.ldexp(np.float32(1), np.maximum(exponent - top_exponent + 1, -127))  # (I, J)
    return np.where(part > top_part, high, low)


def special(
    scale: Float,  # (I, J)
    largest: Float,  # (I, J)
    rule: Recipe,
) -> Float:
    """QNT-5: what a recipe says of blocks that hold NaN or infinity, and of blocks of zeros (I, J)."""
    scale = np.where(largest < np.inf, scale, np.float32(rule.odd_scale))  # (I, J)
    return scale if rule.zero_scale is None else np.where(largest == 0, np.float32(rule.zero_scale), scale)


def scaled(
    x: Float,  # (M, N)
    scheme: Scheme,
    largest: Callable[[Float], Float] = largest_of,
) -> tuple[Float, Float]:
    """QNT-4: x in units of its blocks' scales (M, N), not yet rounded; and the scales (I, J)."""
    tiled = tiles(x, scheme.block)  # (I, bm, J, bn)
    counted = np.where(np.isnan(tiled), 0, tiled) if scheme.rule.skips_nan else tiled  # (I, bm, J, bn)
    scale, factor = scales(largest(counted), scheme)  # (I, J)
    divides = scheme.rule.apply == "divide" and scheme.scale_format == "float32"
    each = factor[:, None, :, None]  # (I, 1, J, 1)
    numbers = tiled / each if divides else tiled * each  # (I, bm, J, bn)
    i, bm, j, bn = tiled.shape
    numbers = numbers.reshape(i * bm, j * bn)[: x.shape[0], : x.shape[1]]  # (M, N)
    return numbers, scale


def quantize(
    x: Float,  # (M, N)
    scheme: Scheme,
) -> Quantized:
    """QNT-1 … QNT-5: codes (M, N) and scales (I, J) of float32 x, some rows of blocks at a time."""
    (m, n), (bm, bn) = x.shape, scheme.block
    codes = np.zeros_like(x, dtype=scheme.fmt.codes)  # (M, N)
    scale = np.zeros_like(x, shape=(-(-m // bm), -(-n // bn)))
    band = max(1, BAND // max(1, bm * n))
    for i in range(0, scale.shape[0], band):
        rows = slice(i * bm, (i + band) * bm)
        numbers, scale[i : i + band] = scaled(x[rows], scheme, largest_float32)
        codes[rows] = encode(numbers, scheme.fmt, scheme.overflow)  # (R, N)
    return Quantized(codes, scale)


def quantized_numbers(
    x: Float,  # (M, N)
    scheme: Scheme,
) -> tuple[Float, Float]:
    """The numbers that `quantize`'s codes stand for (M, N), and its scales (I, J), by FMT-1 itself: any reading's x."""
    numbers, scale = scaled(x, scheme)
    numbers = rounded(numbers, scheme.fmt)  # (M, N)
    return numbers, scale


def spread(scale: Float, block: Block, shape: tuple[int, ...]) -> Float:
    """QNT-1: at each element of a matrix of this shape, the scale of its block; scales are (I, J)."""
    (bm, bn), (m, n) = within(block, shape), shape
    return np.repeat(np.repeat(scale, bm, axis=0)[:m], bn, axis=1)[:, :n]


def dequantize(quantized: Quantized, scheme: Scheme) -> Float:
    """QNT-6: each code's number times its block's scale, rounded once to float32 (M, N)."""
    numbers = decode(quantized.codes, scheme.fmt)
    return numbers * spread(quantized.scale, scheme.block, numbers.shape)


def requantize(quantized: Quantized, scheme: Scheme, target: Scheme) -> Quantized:
    """QNT-7: the same matrix in other blocks or another format: dequantised, and quantised again."""
    return quantize(dequantize(quantized, scheme), target)


def lift(quantized: Quantized, scheme: Scheme, target: Scheme) -> Quantized:
    """QNT-8: E2M1 in small blocks as E4M3 in larger ones, without loss: only exponents change.

    A block's scale is the largest of its parts' over 2^6 (6 * 2^6 = 384 is in E4M3), and 2^-127 or more. Parts of zeros
    do not count.
    """
    numbers = decode(quantized.codes, scheme.fmt)  # (M, N)
    each = np.where(numbers != 0, spread(quantized.scale, scheme.block, numbers.shape), 0)  # (M, N)
    largest = largest_of(tiles(each, target.block))  # (I, J)
    scale = np.maximum(largest, np.float32(2.0**-121)) / 64  # (I, J)
    numbers = numbers * (each / spread(scale, target.block, numbers.shape))  # (M, N)
    return Quantized(encode(numbers, target.fmt, target.overflow), scale)
