"""Judging in several processes: the same results in the same order, and a clean end whatever happens."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moespec_conformance import jobs
from moespec_conformance.address import Usage
from moespec_conformance.checking import one_by_one, selected
from moespec_conformance.protocol import Case, Result
from moespec_conformance.runner import Child

ODD = Path(__file__).parent / "odd_adapters.py"


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "WORTH", 1)


@contextmanager
def child_of(address: str, limit: float = 60.0) -> Generator[Child]:
    """An adapter's child."""
    child = Child(address, limit)
    try:
        yield child
    finally:
        child.close()


def experts(pattern: str = "expert-*") -> list[Case]:
    """Cases of one op."""
    return selected(["deepseek-v3"], ["float32"], ["expert"], pattern, quick=True)


def timeless(results: Iterator[Result]) -> list[Result]:
    """All of a result but how long it took."""
    return [replace(result, seconds=0.0) for result in results]


def test_the_same_results_in_the_same_order() -> None:
    """However many judge, and whatever they find."""
    with child_of(f"{ODD}:NaN") as child:
        alone = timeless(one_by_one(experts(), child))
        assert timeless(jobs.side_by_side(experts(), child, 2)) == alone
    assert [result.case for result in alone] == [case.id for case in experts()]
    assert {result.status for result in alone} == {"pass", "fail"}


def test_nobody_is_left_when_it_is_over() -> None:
    """Nor when who asked stops listening."""
    before = set(multiprocessing.active_children())
    with child_of(f"{ODD}:Honest") as child:
        results = jobs.side_by_side(experts(), child, 2)
        next(results)
        assert len(set(multiprocessing.active_children()) - before) == 2
        results.close()
        assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize(("name", "status", "limit"), [("Crashes", "error", 60.0), ("Hangs", "timeout", 0.5)])
def test_what_a_crash_or_a_hang_costs(name: str, status: str, limit: float) -> None:
    """The cases where it happened, and no other."""
    with child_of(f"{ODD}:{name}", limit) as child:
        found = {result.case: result.status for result in jobs.side_by_side(experts("expert-*row*"), child, 2)}
    assert {case for case, is_ in found.items() if is_ == status} == {"expert-one-row"}
    assert list(found) == [case.id for case in experts("expert-*row*")]


def test_a_judging_process_that_dies_is_said() -> None:
    """It is the suite's own trouble, not a result."""
    judge = jobs.Judge(f"{ODD}:Honest", 60.0)
    assert judge.process.pid
    os.kill(judge.process.pid, signal.SIGKILL)
    judge.give(experts()[0])
    with pytest.raises(RuntimeError, match="exit code -9"):
        judge.receive()
    judge.close()


def test_what_goes_wrong_in_a_judging_process_is_raised_here() -> None:
    """With its own message."""
    judge = jobs.Judge("no-such-adapter", 60.0)
    judge.give(experts()[0])
    with pytest.raises(Usage, match="no adapter 'no-such-adapter'"):
        judge.receive()
    judge.close()


def test_few_cases_are_judged_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than a handful of cases."""
    monkeypatch.setattr(jobs, "WORTH", 100)
    before = set(multiprocessing.active_children())
    with child_of(f"{ODD}:Honest") as child:
        next(jobs.side_by_side(experts(), child, 4))
        assert len(set(multiprocessing.active_children()) - before) == 1


def test_an_interrupt_ends_everyone(tmp_path: Path) -> None:
    """Ctrl-C reaches the command alone here, and soon nobody of its group is left."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's `&` had it ignored
    command = [
        sys.executable,
        "-c",
        f"{heard}; from moespec_conformance.cli import main; main()",
        "check",
        "--jobs",
        "2",
        "--report",
        str(tmp_path),
    ]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as run:
        written = tmp_path / "results.jsonl"
        while not (written.exists() and written.read_text().count("\n") > 1):
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.wait(30) != 0
    late = time.monotonic() + 30
    while is_group(run.pid):
        assert time.monotonic() < late
        time.sleep(0.05)


def is_group(pid: int) -> bool:
    """Whether anybody of that process group is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
