"""Every op at a size that is worth timing: its time, the machine's limit, its own products' time, and the rest."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from moespec.config import MoEConfig
from moespec.ops import RUN
from moespec_conformance.bench.backend import Backend
from moespec_conformance.bench.inputs import Tensors, config, inputs, moved
from moespec_conformance.bench.rates import Rates
from moespec_conformance.bench.recorded import Product, by_step, products_of, recorded, run
from moespec_conformance.bench.rows import Row, row
from moespec_conformance.bench.spent import spent
from moespec_conformance.bench.timing import Call, compare
from moespec_conformance.readings.counted import Counted, Work, counting, floor

OWN = "own products"
CODES = ("cast", "quantize", "dequantize", "requantize", "lift_fp4", "adamw")


def rows(names: Iterable[str], rates: Rates, seconds: float, backend: Backend) -> Iterator[Row]:
    """One row for each op."""
    for op in names:
        yield one(op, rates, seconds, backend)


def one(op: str, rates: Rates, seconds: float, backend: Backend) -> Row:
    """Time an op: beside its own matrix products, if it has any, and the limit that the machine sets."""
    cfg = config(op)
    given = inputs(op, cfg)
    ledger, products = count(op, cfg, given), found_in(op, cfg, given, backend)
    outside = moved(given) + moved(RUN[op](cfg, **given))
    call: Call = partial(RUN[op], cfg, **{name: backend.send(tensor) for name, tensor in given.items()})
    calls: dict[str, Call] = {op: call, OWN: partial(run, products)} if products else {op: call}
    return {
        **row(op, compare(calls, 3, seconds, backend.clock)),
        "op": op,
        "flops": sum(work.products for work in ledger),
        "bytes": outside,
        "limit": least(ledger, outside, rates),
        "parts": parts(call, products) if backend.clock is time.thread_time else {},
    }


def found_in(op: str, cfg: MoEConfig, given: Tensors, backend: Backend) -> list[Product]:
    """The products of a run on NumPy, with their arrays where the op is timed."""
    found = products_of(partial(RUN[op], cfg, **{name: recorded(tensor) for name, tensor in given.items()}))
    return [Product(step, *map(backend.send, arrays)) for step, *arrays in found]


def count(op: str, cfg: MoEConfig, given: Tensors) -> list[Work]:
    """The ledger of an op; empty for those that make codes, which hold no products and which no reading sees."""
    if op in CODES:
        return []
    with counting() as ledger:
        RUN[op](cfg, **{name: countable(tensor) for name, tensor in given.items()})
    return ledger


def countable(tensor: Any) -> Any:  # noqa: ANN401 - an array
    """Numbers that write into the ledger; FP8 codes as the numbers that they stand for; ids as they are."""
    array = np.asarray(tensor)
    if array.dtype.kind == "f" or array.dtype == ml_dtypes.float8_e4m3fn:
        return Counted(array.astype(np.float32))
    return tensor


def least(ledger: list[Work], outside: int, rates: Rates, itemsize: int = 4) -> float:
    """Seconds below which no op can be here: its products at the GEMM's rate, or its inputs and outputs at a copy's."""
    return max(floor(ledger, rates.gemm(itemsize), rates.copy / itemsize), outside / rates.copy)


def parts(call: Call, products: list[Product]) -> dict[str, dict[str, float]]:
    """CPU seconds of each function of the reference, and how many of them are its products'."""
    own, times = by_step(products), spent(call)
    return {step: {"seconds": s, "products": own.get(step, 0.0)} for step, s in times.items()}


def rest(found: Row, most: int = 3) -> str:
    """What the time beyond the products goes to, largest first."""
    total = sum(part["seconds"] for part in found["parts"].values()) or 1.0
    beyond = {step: (part["seconds"] - part["products"]) / total for step, part in found["parts"].items()}
    largest = sorted(beyond, key=lambda step: -beyond[step])[:most]
    return ", ".join(f"{step} {beyond[step]:.0%}" for step in largest if beyond[step] >= 0.01)  # noqa: PLR2004
