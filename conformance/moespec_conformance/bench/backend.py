"""What the reference runs on while it is timed: NumPy, or a GPU by CuPy."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from moespec_conformance.adapters import on_device
from moespec_conformance.bench.rates import machine


class Backend(NamedTuple):
    """Where arrays are sent, and a clock in seconds that waits for what was asked for; NumPy's is this thread's CPU."""

    device: str
    send: Callable[[Any], Any]
    clock: Callable[[], float]


def numpy() -> Backend:
    """One thread of the machine that this runs on."""
    return Backend(machine()["device"], np.asarray, time.thread_time)


def cupy() -> Backend:
    """CuPy's first GPU; a RuntimeError in one sentence where there is none."""
    device = on_device.cupy()
    wait = import_module("cupy").cuda.Stream.null.synchronize

    def clock() -> float:
        wait()
        return time.perf_counter()

    def send(array: Any) -> Any:  # noqa: ANN401 - NumPy's, and CuPy's
        return device.send(on_device.plain(np.asarray(array)))

    return Backend(device.name, send, clock)


BACKENDS = {"numpy": numpy, "cupy": cupy}
