"""FP8 against yardsticks: a copy of the float32 array, ml_dtypes, torch, and NumPy's float32 product of that shape."""

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import ml_dtypes
import numpy as np

from moespec.accumulate import UNITS, fused
from moespec.formats import FORMATS, decode, encode
from moespec.linear import Adding, Operand, matmul
from moespec.quant import Scheme, quantize
from moespec_conformance.bench.timing import Call

E4M3 = FORMATS["e4m3"]
SHAPE = (4096, 2048)
PRODUCTS = ((8, 2048, 7168), (48, 2048, 2048), (64, 2048, 7168), (256, 512, 2048), (512, 1408, 2048))  # M, N, C
FEW = 64  # rows up to which a product reads weights rather than multiplies
UNIT_SHAPES = ((50, 50, 32), (64, 128, 512))  # M, N, C
NANOSECONDS = "10 ns a multiply-add"
Case = tuple[str, Callable[[], dict[str, Call]], dict[str, float]]


def scheme(*block: int) -> Scheme:
    """DeepSeek-V3's way to quantise, in these blocks."""
    return Scheme("deepseek-v3", "e4m3", (block[0], block[1]), "float32", "saturate")


def draw(*shape: int, seed: int = 0) -> Any:  # noqa: ANN401 - float32
    """Gaussian float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def copying(x: Any) -> Call:  # noqa: ANN401 - float32
    """The copy of an array into one that exists."""
    y = np.empty_like(x)
    return lambda: np.copyto(y, x)


def encoding() -> dict[str, Call]:
    """FMT-1 of a whole matrix."""
    x = draw(*SHAPE)
    return {
        "ours": lambda: encode(x, E4M3, "saturate"),
        "memcpy": copying(x),
        "ml_dtypes": lambda: x.astype(ml_dtypes.float8_e4m3fn),
    }


def decoding(height: int, width: int) -> dict[str, Call]:
    """FMT-2, as a product does it: piece by piece, so that memory is used again; the copy goes where it went before."""
    x = draw(*SHAPE)
    codes = encode(x, E4M3, "saturate")
    corners = [(i, j) for i in range(0, SHAPE[0], height) for j in range(0, SHAPE[1], width)]
    pieces = [codes[i : i + height, j : j + width] for i, j in corners]

    def ours() -> None:
        for piece in pieces:
            decode(piece, E4M3)

    return {
        "ours": ours,
        "memcpy": copying(x),
        "ml_dtypes": lambda: codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32),
    }


def quantizing(*block: int) -> dict[str, Call]:
    """QNT-1 … QNT-5 of a whole matrix; torch, if it is here, does the same in six operations."""
    x = draw(*SHAPE)
    calls = {"ours": lambda: quantize(x, scheme(*block)), "memcpy": copying(x)}
    if find_spec("torch"):
        calls["torch"] = import_module(f"{__package__}.fp8_torch").quantizing(x, *block)
    return calls


def multiplying(m: int, n: int, c: int) -> dict[str, Call]:
    """LIN-1 with exact sums, promoted every 128 products, blocks of 1x128 and 128x128."""
    x, w, y = draw(m, c), draw(n, c, seed=1), np.empty((m, n), np.float32)
    a, b = (Operand(quantize(t, s), s) for t, s in ((x, scheme(1, 128)), (w, scheme(128, 128))))
    return {"ours": lambda: matmul(a, b, Adding("exact", 128)), "sgemm": lambda: np.matmul(x, w.T, out=y)}


def stepping(m: int, n: int, c: int) -> dict[str, Call]:
    """ACC-3: Hopper's tensor core; its yardstick is time itself."""
    a, b = (decode(quantize(draw(rows, c, seed=rows), scheme(1, c)).codes, E4M3) for rows in (m, n))
    start = np.zeros((m, n), np.float32)
    return {
        "ours": lambda: fused(a, b, start, (E4M3, E4M3), UNITS["hopper"]),
        NANOSECONDS: lambda: pass_time(m * n * c * 10e-9),
    }


def pass_time(seconds: float) -> None:
    """A yardstick that is a time: of this thread's CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


CASES: tuple[Case, ...] = (
    ("encode e4m3", encoding, {"memcpy": 6.0, "ml_dtypes": 1 / 2}),
    ("decode e4m3, 16 rows", lambda: decoding(16, SHAPE[1]), {"memcpy": 2.0, "ml_dtypes": 1 / 5}),
    ("decode e4m3, 128x128", lambda: decoding(128, 128), {}),
    ("quantize 1x128", lambda: quantizing(1, 128), {"memcpy": 8.0, "torch": 1.0}),
    ("quantize 128x128", lambda: quantizing(128, 128), {}),
    *(
        (f"matmul exact {m}x{n}x{c}", partial(multiplying, m, n, c), {"sgemm": 3.5 if m <= FEW else 4.5})
        for m, n, c in PRODUCTS
    ),
    *((f"hopper {m}x{n}x{c}", partial(stepping, m, n, c), {NANOSECONDS: 1.0}) for m, n, c in UNIT_SHAPES),
)
