"""Numbers that need no file: word i of a stream is a function of its seed and of i alone (SplitMix64).

golden/README.md has the same in ten lines for other languages: prompts name a seed and a shift instead of large inputs.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from moespec_conformance.protocol import Array

GOLDEN, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Generated(NamedTuple):
    """A float32 tensor: sixteen bits of each word, as a number from -1 up to 1, times 2**-shift."""

    shape: tuple[int, ...]
    seed: int
    shift: int

    def told(self) -> dict[str, Any]:
        """What a prompt says of it."""
        return {"shape": list(self.shape), "seed": self.seed, "shift": self.shift}


def named(name: str, *shape: int) -> Generated:
    """The tensor of this name and shape: its seed follows from both, its size from the contraction."""
    text = f"{name} {'x'.join(map(str, shape))}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")  # any language's numbers hold 48 bits
    return Generated(shape, seed, shape[-1].bit_length() // 2)


def words(seed: int, count: int) -> Array:
    """The first words of a stream, 64 bits each; they wrap."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    return z ^ (z >> np.uint64(31))


def generate(one: Generated) -> Array:
    """Its numbers, in C order."""
    high = (words(one.seed, int(np.prod(one.shape))) >> np.uint64(48)).astype(np.float64)
    return np.asarray((high - 2**15) * 2.0 ** (-15 - one.shift), np.float32).reshape(one.shape)
