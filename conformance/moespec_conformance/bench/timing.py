"""How everything is timed: one BLAS thread and its CPU time, rounds of all that is compared, ratios inside a round.

A round runs ours and every yardstick once each, in rotated order, so that a neighbour's load meets them all; a ratio is
taken inside a round, and what counts is the median of the rounds.
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple

Call = Callable[[], object]
Clock = Callable[[], float]
ROUNDS = 9  # at least, and more where a round is short
SECONDS = 4.0  # of CPU, at least, for all rounds together
OPENBLAS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads")


class Measured(NamedTuple):
    """Seconds of ours (their median), and in each round its ratio to each yardstick."""

    seconds: float
    rounds: dict[str, list[float]]

    def ratio(self, yardstick: str) -> float:
        """The figure that counts."""
        return median(self.rounds[yardstick])


def one_thread() -> None:
    """Hold OpenBLAS and torch to one thread, also those that are loaded already."""
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    for name in OPENBLAS:
        if hasattr(library, name):
            getattr(library, name)(1)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def interleave(
    calls: Sequence[Call], rounds: int = ROUNDS, seconds: float = SECONDS, clock: Clock = time.thread_time
) -> list[list[float]]:
    """Seconds of all calls, round by round, in rotated order; a first round is not counted."""
    one_thread()
    spent: list[list[float]] = []
    process, thread = time.process_time(), time.thread_time()
    while len(spent) <= rounds or sum(map(sum, spent)) < seconds:
        spent.append([0.0] * len(calls))
        for j in range(len(calls)):
            i = (len(spent) + j) % len(calls)
            start = clock()
            calls[i]()
            spent[-1][i] = clock() - start
    process, thread = time.process_time() - process, time.thread_time() - thread
    if clock is time.thread_time and process > 1.1 * thread + 0.1:
        raise RuntimeError("BLAS runs more than one thread: set OPENBLAS_NUM_THREADS=1 before Python starts")
    return spent[1:]


def compare(
    calls: dict[str, Call], rounds: int = ROUNDS, seconds: float = SECONDS, clock: Clock = time.thread_time
) -> Measured:
    """The first of the calls against each of the others."""
    times = interleave(list(calls.values()), rounds, seconds, clock)
    others = enumerate(list(calls)[1:], 1)
    return Measured(median(each[0] for each in times), {n: [each[0] / each[i] for each in times] for i, n in others})
