"""What bounds a layer whose experts come one at a time: how fast this machine reads; and what memory a process took."""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from moespec_conformance.bench.rates import rate

WORDS = 1 << 24  # of 8 bytes: 128 MiB, more than most caches hold


def peak_bytes() -> int:
    """The most memory that this process ever had at once.

    From Linux's own books where they are: what getrusage says begins with the peak of the process that started us.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peaks[0] if peaks else used * (1 if sys.platform == "darwin" else 1024)


def read_rate() -> float:
    """Bytes a second of a sum. It takes memory itself, so a peak must have been read before."""
    words = np.ones(WORDS, np.uint64)
    return rate(words.nbytes, words.sum, time.thread_time)
