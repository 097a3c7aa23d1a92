"""What this machine can do: the rates of its matrix products and of a copy, measured in the run that uses them."""

import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from moespec_conformance.bench.timing import Clock, interleave

SIZE = 1024  # rows and columns of the products
COPIED = 32 << 20  # bytes: more than a cache holds
TIMES = 7


class Rates(NamedTuple):
    """FLOPs a second of float32 and float64 products, and bytes a second that a copy reads and writes together."""

    sgemm: float
    dgemm: float
    copy: float

    def gemm(self, itemsize: int) -> float:
        """FLOPs a second for numbers of so many bytes."""
        return self.dgemm if itemsize > 4 else self.sgemm  # noqa: PLR2004 - bytes of a float32


def rate(work: float, call: Callable[[], object], clock: Clock) -> float:
    """How much of this work is done in a second: the median of some runs, after one that is not counted."""
    return work / median(seconds for (seconds,) in interleave([call], TIMES, 0.0, clock))


def rates(send: Callable[[Any], Any] = np.asarray, clock: Clock = time.thread_time) -> Rates:
    """Measure them, on one thread of this machine, or where arrays are sent."""
    gemm = list[float]()
    for dtype in (np.float32, np.float64):
        a = send(np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(dtype))
        gemm.append(rate(2 * SIZE**3, partial(np.matmul, a, a, out=np.empty_like(a)), clock))
    source = send(np.ones(COPIED // 4, np.float32))
    sgemm, dgemm = gemm
    return Rates(sgemm, dgemm, rate(2 * COPIED, partial(np.copyto, np.empty_like(source), source), clock))


def machine() -> dict[str, Any]:
    """What the figures depend on besides this code."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "device": models[0] if models else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
    }
