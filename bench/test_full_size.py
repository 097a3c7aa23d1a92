"""DeepSeek-V3's layer at its full size: 256 tokens within 35 s of CPU and 256 MiB, backward too within 512 MiB.

Each run is a process of its own, `moespec layer`, so that its peak memory is its own.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moespec_conformance.bench.full_size_report import GOAL_BYTES, GOAL_SECONDS, GOAL_TOKENS
from moespec_conformance.bench.rates import machine


def run(folder: Path, *options: str) -> dict[str, Any]:
    """The command's figures."""
    kept = folder / "layer.json"
    program = "import sys; from moespec_conformance.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "layer", "--tokens", str(GOAL_TOKENS), "--json", str(kept), *options]
    subprocess.run(command, check=True)  # noqa: S603 - our own command
    made: dict[str, Any] = json.loads(kept.read_text())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_layer_of_full_size_on_one_core(benchmark: BenchmarkFixture, tmp_path: Path, *, backward: bool) -> None:
    """CPU seconds forward, peak memory of the whole process both ways."""
    options = ["--backward"] * backward
    made = benchmark.pedantic(lambda: run(tmp_path, *options), rounds=1)  # type: ignore[no-untyped-call]
    (one,) = made["ranks"]
    benchmark.extra_info.update(made, **machine())
    assert one["peak_bytes"] <= GOAL_BYTES[backward]
    assert backward or one["cpu_seconds"] <= GOAL_SECONDS
