"""Random sums: both formats, three lengths, many sizes, C that is not 0, each interval of promotion.

All outputs of all problems are held against the model; of each kind a few rows are kept as vectors, chosen at
random, but before others such as are not the model's.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from problems import Codes, Problems

from moespec.formats import FORMATS, encode

M, N = 64, 8  # of one instruction
LENGTHS = {32: (0, 32), 128: (0, 32, 64, 128), 512: (0, 32, 64, 128, 256)}  # K, and the intervals of promotion
SPREADS = (0, 3, 8)  # numbers are normal ones times 2^-spread … 2^spread
KEPT = 16  # rows of one problem


def numbers(rng: np.random.Generator, fmt: str, spread: int, shape: tuple[int, ...]) -> Codes:
    """Codes of random numbers."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread + 1, shape))
    return encode(x.astype(np.float32), FORMATS[fmt], "saturate").view(np.uint8)


def campaign(n: int, seed: int = 1) -> Iterator[Problems]:
    """n problems of each kind."""
    rng = np.random.default_rng(seed)
    for fmt in ("e4m3", "e5m2"):
        for K, intervals in LENGTHS.items():
            for spread in SPREADS:
                for promote in intervals:
                    a, b = numbers(rng, fmt, spread, (n, M, K)), numbers(rng, fmt, spread, (n, N, K))
                    c = rng.standard_normal((n, M, N)) * np.exp2(rng.integers(-6 - spread, 7 + spread, (n, M, N)))
                    name = f"random-{fmt}-K{K}-spread{spread}-promote{promote}"
                    yield Problems(name, fmt, promote, a, b, c.astype(np.float32))


def kept(name: str, agrees: npt.NDArray[np.bool]) -> tuple[int, npt.NDArray[np.intp]]:
    """Which problem of a kind, and which of its rows, are kept: such as are not the model's (n, M, N) before others."""
    i = int((~agrees).any(axis=(1, 2)).argmax())
    rows = np.random.default_rng(list(name.encode())).permutation(M)
    odd = (~agrees[i]).any(axis=1)[rows]
    return i, np.sort(np.concatenate([rows[odd], rows[~odd]])[:KEPT])


def integers(fmt: str, K: int, promote: int) -> Problems:
    """Small whole numbers, whose sums every unit has exactly: to see that each number is where it should be."""
    rng = np.random.default_rng([K, promote])
    a, b = (rng.integers(-2, 3, (4, rows, K)).astype(np.float32) for rows in (M, N))
    c = rng.integers(-99, 100, (4, M, N)).astype(np.float32)
    want = (a.astype(np.float64) @ b.astype(np.float64).swapaxes(1, 2) + c).astype(np.float32)
    codes = [encode(x, FORMATS[fmt], "nan").view(np.uint8) for x in (a, b)]
    return Problems(f"integers-{fmt}-K{K}-promote{promote}", fmt, promote, codes[0], codes[1], c, want=want)
