"""A program that speaks the protocol of `cmd:`, well or in one of many wrong ways: `python program.py [WAY]`.

With a folder, it answers the questions that lie there (`moespec export`).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

GARBAGE = {
    "prints": "hello",
    "prints-a-number": "17",
    "prints-endlessly": "x" * 2**20,
    "prints-deep": "[" * 5000,
    "prints-nul": "\0",
}
HARM = {
    "no-file": lambda out: out.unlink(),
    "truncates": lambda out: out.write_bytes(out.read_bytes()[:-1]),
    "empty-file": lambda out: out.write_bytes(b""),
    "links": lambda out: (out.unlink(), out.symlink_to("/dev/zero")),
    "pipes": lambda out: (out.unlink(), os.mkfifo(out)),
    "makes-a-folder": lambda out: (out.unlink(), out.mkdir()),
}


def answer(folder: Path) -> None:
    """Compute what is asked. Who only goes wrong need not wait for the imports."""
    from moespec_conformance import tensors  # noqa: PLC0415
    from moespec_conformance.adapters.reference import Adapter  # noqa: PLC0415

    told = json.loads((folder / "prompt.json").read_text())
    outputs = getattr(Adapter(), told["op"])(told["config"], **tensors.read(folder / "in.safetensors"))
    tensors.write(folder / "out.safetensors", outputs)


def reply(way: str, name: str, folder: Path) -> dict[str, Any]:
    """Answer a question in one of the ways."""
    if way == "crashes":
        os.abort()
    if way == "exits":
        sys.exit(3)
    if way == "hangs":
        time.sleep(1000)
    if way in ("not_supported", "refused", "failed", "odd-status"):
        return {"case": name, "status": way, "reason": "because"}
    try:
        answer(folder)
    except ValueError as error:
        return {"case": name, "status": "refused", "reason": str(error)}
    if way in HARM:
        HARM[way](folder / "out.safetensors")
    return {"case": "another" if way == "another" else name, "status": "done"}


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(way: str = "well") -> None:
    """Answer until told to stop; or all questions in a folder."""
    if Path(way).is_dir():
        for path in sorted(Path(way).rglob("prompt.json")):
            said = reply("well", path.parent.name, path.parent)
            if said["status"] != "done":
                (path.parent / "reply.json").write_text(json.dumps(said))
        return
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" in request and way != "stays":
            return
        if "start" in request:
            say(json.dumps({"name": "program", "version": "1", "arithmetic": ["float32"]}))
        if "run" in request:
            if way in GARBAGE:
                say(GARBAGE[way])
            say(json.dumps(reply(way, request["run"], Path(request["dir"]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
