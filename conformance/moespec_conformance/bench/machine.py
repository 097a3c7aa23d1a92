"""What the machine does at best, in the same run: how fast it reads and multiplies; and the peak of this process."""

import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moespec_conformance.bench.timing import Call

WORDS = 1 << 24  # of 8 bytes: 128 MiB, more than most caches hold
SIDES = 256, 2048, 2048


class Rates(NamedTuple):
    """Bytes read from memory a second, and operations a second of the BLAS in float64 and float32."""

    read: float
    dgemm: float
    sgemm: float


def peak_bytes() -> int:
    """The most memory that this process ever had at once.

    From Linux's own books where they are: what getrusage says begins with the peak of the process that started us.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peaks[0] if peaks else used * (1 if sys.platform == "darwin" else 1024)


def best(call: Call, times: int = 5) -> float:
    """CPU seconds of the fastest of some turns."""
    spent = list[float]()
    for _ in range(times + 1):
        start = time.thread_time()
        call()
        spent.append(time.thread_time() - start)
    return min(spent[1:])


def rates() -> Rates:
    """Measured now; it takes a second, and memory, so the peak must have been read before."""
    words = np.ones(WORDS, np.uint64)
    read = words.nbytes / best(words.sum)
    m, n, c = SIDES
    dgemm, sgemm = (best(partial(np.matmul, np.ones((m, c), t), np.ones((c, n), t))) for t in (np.float64, np.float32))
    return Rates(read, *(2 * m * n * c / seconds for seconds in (dgemm, sgemm)))
