"""Judging in several processes at once: each asks a child of its own, and results come in the cases' order."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import wait
from typing import Any

from moespec_conformance.cases import all_cases
from moespec_conformance.checking import one_by_one
from moespec_conformance.judging import judged
from moespec_conformance.program import Started, started
from moespec_conformance.protocol import Case, Result

USUAL = min(4, os.cpu_count() or 1)
WORTH = 100  # cases a process must have to do: starting it takes as long as some dozens of them


class Judge:
    """A process that judges one case after another."""

    def __init__(self, address: str, limit: float, *, trace: bool = False) -> None:
        """Start it; address and limit are its child's."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(address, limit, theirs, trace))
        self.process.start()
        theirs.close()

    def give(self, case: Case) -> None:
        """Hand over a case; if nobody is there to take it, receive says so."""
        with suppress(BrokenPipeError):
            self.pipe.send(case.id)

    def receive(self) -> Result:
        """The result of the case given last; what went wrong there is raised here."""
        try:
            got: Any = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RuntimeError(f"a judging process ended with exit code {self.process.exitcode}") from None
        if isinstance(got, Exception):
            raise got
        result: Result = got
        return result

    def close(self) -> None:
        """End it, and with it its child."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def side_by_side(cases: Sequence[Case], child: Started, jobs: int, *, trace: bool = False) -> Generator[Result]:
    """Judge in up to `jobs` processes, fewer if it is not worth it. The child ends, if others take its place."""
    jobs = min(jobs, len(cases) // WORTH)
    if jobs < 2:  # noqa: PLR2004 - alone
        yield from one_by_one(cases, child, trace=trace)
        return
    child.close()
    judges = [Judge(child.address, child.limit, trace=trace) for _ in range(jobs)]
    try:
        yield from in_order(cases, judges)
    finally:
        for judge in judges:
            judge.close()


def in_order(cases: Sequence[Case], judges: Sequence[Judge]) -> Generator[Result]:
    """Whoever is free gets the next case; a result waits until those before it are there."""
    waiting, done, busy = iter(cases), dict[str, Result](), dict[Any, Judge]()

    def hand(judge: Judge) -> None:
        case = next(waiting, None)
        if case is not None:
            judge.give(case)
            busy[judge.pipe] = judge

    for judge in judges:
        hand(judge)
    for case in cases:
        while case.id not in done:
            for pipe in wait(list(busy)):
                judge = busy.pop(pipe)
                result = judge.receive()
                done[result.case] = result
                hand(judge)
        yield done.pop(case.id)


def serve(address: str, limit: float, pipe: Any, trace: bool) -> None:  # noqa: ANN401, FBT001 - a process's arguments
    """Judge the cases that are named, until the pipe closes. An interrupt is for whoever started us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, ended)
    try:
        with closing(started(address, limit)) as child:
            while True:
                pipe.send(judged(all_cases()[pipe.recv()], child, trace=trace))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - raised again where it was asked for
        error.add_note(traceback.format_exc())
        pipe.send(error)


def ended(*_: object) -> None:
    """Leave as one does, so that the child is ended too."""
    sys.exit(1)
