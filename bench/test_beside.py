"""The goals beside torch, in float32: as the README says them. Needs the extra `peers`."""

import time
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moespec_conformance.bench import beside
from moespec_conformance.bench.layers import PREFILL, SHAPES, Shape

pytestmark = pytest.mark.peers
LOOP, AUTOGRAD = ("transformers",), ("torch loop", "torch grouped")
GOAL = {"prefill": 1.25, "decode": 1.7, "forward and backward": 1.15}  # of the fastest, ours at most


def fastest(row: dict[str, Any], names: tuple[str, ...]) -> float:
    """Our ratio to the fastest of these, the median of the rounds; none of them may be absent."""
    assert not set(names) & row["absent"].keys(), row["absent"]
    return max(median(row["ratios"][name]) for name in names)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.benchmark(timer=time.thread_time)
def test_beside_torch(benchmark: BenchmarkFixture, shape: Shape) -> None:
    """Forward beside the loop of transformers; with the backward beside autograd, where there are many tokens."""
    names = {*LOOP, *AUTOGRAD}
    few = {name: contender for name, contender in beside.CONTENDERS.items() if name in names}
    rows = beside.rows([shape], contenders=few)
    ratios = {"decode" if shape.T < PREFILL else "prefill": fastest(next(rows), LOOP)}
    if shape.T >= PREFILL:
        ratios["forward and backward"] = fastest(next(rows), AUTOGRAD)
    benchmark.extra_info.update(ratios, **beside.versions())
    benchmark.pedantic(beside.ours(beside.task(shape).layer)["forward"], rounds=3)  # type: ignore[no-untyped-call]
    missed = {name: ratio for name, ratio in ratios.items() if ratio > GOAL[name]}
    assert not missed, f"{shape}: {missed}; the goals are {GOAL}"
