"""A program in any language behind the protocol: one long-lived process that speaks lines of JSON (SPEC section 24).

A question is a folder with prompt.json and in.safetensors; the program writes out.safetensors beside them and says
so in one line. A program that dies, hangs or writes other things to stdout is told apart from one that answers wrongly.
"""

import json
import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

from moespec_conformance.address import Usage
from moespec_conformance.answering import outputs_in, question_bytes
from moespec_conformance.asking import Question, Reply, ask
from moespec_conformance.foreign import object_in
from moespec_conformance.golden import FORMAT
from moespec_conformance.protocol import DEFAULT, Array, Broken, Tensors
from moespec_conformance.runner import Child

PREFIX = "cmd:"
LONGEST = 2**16  # bytes of a reply
FAREWELL = 2.0  # seconds to end by itself


def started(address: str, limit: float = 60.0) -> "Started":
    """What an address names, started: a program, or a Python adapter in a child of ours."""
    return Program(address, limit) if address.startswith(PREFIX) else Child(address, limit)


class Program:
    """A program that answers: the runner of an address `cmd:PROGRAM ARGUMENTS`."""

    def __init__(self, address: str, limit: float = 60.0) -> None:
        """Start it and let it introduce itself; `limit` is seconds a question."""
        self.address, self.limit = address, limit
        self.command = shlex.split(address.removeprefix(PREFIX))
        if not self.command:
            raise Usage(f"{PREFIX} names no program")
        self.place = tempfile.TemporaryDirectory(prefix="moespec-")
        self.asked = 0
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.introduce(self.start())
        except Broken as error:
            self.close()
            raise RuntimeError(f"{address}: {error}") from error

    def start(self) -> dict[str, Any]:
        """Start the process: what it says of itself."""
        try:
            self.process = subprocess.Popen(  # noqa: S603 - the user's own program
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
            )
        except OSError as error:
            self.close()
            raise Usage(f"{self.address}: {error}") from error
        self.pending = b""
        return self.tell({"start": FORMAT}, max(self.limit, 60.0))

    def introduce(self, said: dict[str, Any]) -> None:
        """Its name, version, arithmetics and profiles."""
        self.name, self.version = str(said.get("name", self.command[0])), str(said.get("version", "?"))
        self.arithmetic = names(said.get("arithmetic", "float32"))
        self.profiles = names(said.get("profiles", DEFAULT))

    def ask(self, question: Question) -> Reply:
        """Ask one question, in its manner; one that broke is started anew."""
        if self.process is None:
            try:
                self.start()
            except Broken as error:
                return Reply(error.happened, message=str(error))
        return ask(Methods(self), question)

    def answer(self, op: str, config: dict[str, Any], inputs: Tensors) -> Tensors:
        """One call: a folder for the question, a line for it, a line that says what came of it."""
        if self.process is None:  # it broke in an earlier call of the same question
            self.start()
        self.asked += 1
        name = f"{op}-{self.asked}"
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.place.name) as place:
            folder = Path(place)
            for file, content in question_bytes(name, op, config, inputs).items():
                (folder / file).write_bytes(content)
            said = self.tell({"run": name, "dir": place}, self.limit)
            if said.get("case") != name:
                raise self.broken("unreadable", f"asked {name}, it answered {said.get('case')!r}")
            return outputs_in(folder, said)

    def tell(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """Send one line and wait for one."""
        process = self.process
        if process is None or process.stdin is None or process.stdout is None:
            raise Broken("crashed", "the program does not run")
        if self.pending:
            raise self.broken("unreadable", "it wrote to stdout without being asked")
        with suppress(BrokenPipeError):  # then it has ended, and reading says how
            process.stdin.write(json.dumps(request).encode() + b"\n")
        line = self.line(process.stdout.fileno(), time.monotonic() + limit)
        try:
            return object_in(line)
        except ValueError:
            says = f"stdout must carry one JSON object a line; it wrote {line[:80]!r}"
            raise self.broken("unreadable", says) from None

    def line(self, stdout: int, until: float) -> bytes:
        """The next line of stdout."""
        while b"\n" not in self.pending:
            left = until - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise self.broken("timeout", "no answer within the time limit")
            more = os.read(stdout, LONGEST)
            if not more:
                raise self.broken("crashed", "the program ended")
            self.pending += more
            if len(self.pending) > LONGEST:
                raise self.broken("unreadable", f"a line of more than {LONGEST} bytes on stdout")
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def broken(self, happened: str, message: str) -> Broken:
        """What went wrong, with how the program ended if it did; nothing of it goes on running."""
        how = ""
        if self.process is not None and happened == "crashed":
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(FAREWELL)
                how = f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
        self.end()
        return Broken(happened, message + how)

    def end(self) -> None:
        """End the process and all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    with suppress(OSError):
                        pipe.close()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """Say goodbye, wait a little, and end it."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                self.process.stdin.write(b'{"stop": true}\n')
                self.process.stdin.close()
                self.process.wait(FAREWELL)
        self.end()
        self.place.cleanup()


class Methods:
    """A program as an adapter: a method for every op, since only the program knows which it has."""

    def __init__(self, program: Program) -> None:
        """Keep the program."""
        self.program = program

    def __getattr__(self, op: str) -> Any:  # noqa: ANN401 - a method
        """The method of an op."""

        def method(config: dict[str, Any], **inputs: Array) -> Tensors:
            return self.program.answer(op, config, inputs)

        return method


def names(said: object) -> tuple[str, ...]:
    """One name or several."""
    return tuple(map(str, cast("list[object]", said))) if isinstance(said, list) else (str(said),)


Started: TypeAlias = Child | Program
