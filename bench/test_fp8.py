"""FP8's goals: ratios to yardsticks at most as yardsticks.py says, and Hopper's model within 10 ns a multiply-add."""

import time
from statistics import median

import pytest
from floor import machine
from pytest_benchmark.fixture import BenchmarkFixture
from yardsticks import CASES, PER_MULTIPLY_ADD, UNIT_SHAPES, Case, compare, per_multiply_add


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(",", "").replace(" ", "-"))
@pytest.mark.benchmark(timer=time.thread_time)
def test_within_its_goals(benchmark: BenchmarkFixture, case: Case) -> None:
    """One case: its time by itself, and its ratios."""
    measured = compare(case)
    benchmark.pedantic(case.build()["ours"], rounds=3)  # type: ignore[no-untyped-call]
    benchmark.extra_info.update({n: measured.of(n) for n in measured.rounds}, goals=case.goals, **machine())
    missed = {n: goal for n, goal in case.goals.items() if n in measured.rounds and measured.of(n) > goal}
    assert not missed, f"{case.name}: {measured}; the goals are {missed}"


@pytest.mark.parametrize("shape", UNIT_SHAPES, ids=str)
def test_a_tensor_core_in_ten_nanoseconds(shape: tuple[int, int, int]) -> None:
    """Small products too, which cases are made of."""
    times = per_multiply_add(shape)
    assert median(times) <= PER_MULTIPLY_ADD, f"{median(times) * 1e9:.1f} ns a multiply-add"
