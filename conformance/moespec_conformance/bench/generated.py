"""Experts that need no file: any of them is made again by its number alone, and faster than it could be read.

An expert's codes are a table of random words, again and again, each time multiplied by another odd word; bit 0 of
each byte is then cleared, since the codes 0x7F and 0xFF are NaN. Words come from generator.py, which counts, so that
nothing is kept but the table.
"""

from functools import cache, partial

import numpy as np

from moespec.config import MoEConfig
from moespec.expert_fp8 import Fp8Expert, scheme_b
from moespec.linear import Operand
from moespec.quant import Quantized
from moespec.streamed import Experts
from moespec_conformance.generator import words
from moespec_conformance.protocol import Array

TABLE = 1 << 14  # words: with the stretch that is made of them, what a second-level cache holds
NUMBERS = np.uint64(0xFEFEFEFEFEFEFEFE)


@cache
def table() -> Array:
    """The words that all codes are made of."""
    return words(0, TABLE)


def codes(seed: int, rows: int, columns: int) -> Array:
    """Codes (rows, columns) of E4M3 that are numbers, nearly any of them as often; the same for the same seed."""
    made = np.empty(-(-rows * columns // 8), np.uint64)
    keys = words(seed, -(-made.size // TABLE)) | np.uint64(1)
    for i, key in enumerate(keys):
        stretch = made[i * TABLE : (i + 1) * TABLE]
        np.multiply(table()[: stretch.size], key, out=stretch)
        stretch &= NUMBERS
    return made.view(np.uint8)[: rows * columns].reshape(rows, columns)


def matrix(seed: int, rows: int, columns: int, cfg: MoEConfig) -> Operand:
    """A matrix whose products keep the size of what they multiply: one scale a block, between one and two of a kind."""
    height, width = cfg.b_block
    grid = -(-rows // height), -(-columns // width)
    share = 1 + (words(seed + 1, grid[0] * grid[1]) >> np.uint64(40)) * 2.0**-24
    scale = share * (columns**-0.5 / 128)  # codes' root mean square is near 128
    return Operand(Quantized(codes(seed, rows, columns), scale.astype(np.float32).reshape(grid)), scheme_b(cfg))


def expert(cfg: MoEConfig, e: int) -> Fp8Expert:
    """Routed expert e, or the shared one, whose id is E."""
    h, f = cfg.hidden_size, cfg.moe_intermediate_size if e < cfg.n_routed_experts else cfg.shared_width
    gate, up, down = ((e + 1) << 8 | i << 1 for i in range(3))
    first = matrix(gate, f, h, cfg) if cfg.gated else None
    return Fp8Expert(first, matrix(up, f, h, cfg), matrix(down, h, f, cfg))


def experts(cfg: MoEConfig) -> Experts:
    """All of them, each when it is asked for."""
    return partial(expert, cfg)


def router(cfg: MoEConfig) -> tuple[Array, Array]:
    """The router's weight (E, H), Gaussian, and a bias of zeros (E,)."""
    shape = cfg.n_routed_experts, cfg.hidden_size
    weight = np.random.default_rng(0).standard_normal(shape, np.float32)
    weight *= np.float32(cfg.hidden_size**-0.5)
    return weight, np.zeros(shape[0], np.float32)
