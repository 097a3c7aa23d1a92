"""The goals beside torch, in float32. Needs the extra `peers`."""

import time
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moespec_conformance.bench import beside
from moespec_conformance.bench.layers import SHAPES, Shape
from moespec_conformance.bench.rows import missed, told

pytestmark = pytest.mark.peers
TORCH = ("transformers", "torch loop", "torch grouped")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.benchmark(timer=time.thread_time)
def test_beside_torch(benchmark: BenchmarkFixture, kept: list[dict[str, Any]], shape: Shape) -> None:
    """Forward beside the loop of transformers; with the backward beside autograd, where there are many tokens."""
    rows = list(beside.rows([shape], contenders={name: beside.CONTENDERS[name] for name in TORCH}))
    kept += rows
    benchmark.extra_info.update(beside.versions())
    benchmark.pedantic(beside.ours(beside.task(shape).layer)["forward"], rounds=3)  # type: ignore[no-untyped-call]
    for row in rows:
        assert not row["goals"].keys() & row["absent"].keys(), row["absent"]
        assert not missed(row), told(row)
