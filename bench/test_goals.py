"""What is promised of the speed: each case within its goals, as ratios to yardsticks of the same rounds.

With `--benchmark-json FILE` pytest-benchmark keeps its own account; `--moespec-bench FILE` keeps what `moespec bench
--json` keeps, so that `moespec bench --compare` reads it.
"""

import time
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moespec_conformance.bench.goals import Goal, goals
from moespec_conformance.bench.rows import missed, row, told
from moespec_conformance.bench.timing import ROUNDS, compare


@pytest.mark.parametrize("goal", list(goals()), ids=lambda goal: goal.name.replace(",", "").replace(" ", "-"))
@pytest.mark.benchmark(timer=time.thread_time)
def test_within_its_goals(benchmark: BenchmarkFixture, kept: list[dict[str, Any]], goal: Goal) -> None:
    """One case: its time by itself, and its ratios."""
    calls = goal.build()
    found = row(goal.name, compare(calls, ROUNDS), goal.most)
    kept.append(found)
    benchmark.pedantic(next(iter(calls.values())), rounds=3)  # type: ignore[no-untyped-call]
    benchmark.extra_info.update(ratios={n: r["ratio"] for n, r in found["ratios"].items()}, goals=goal.most)
    assert not missed(found), "; ".join([goal.name, *told(found)])
