"""The targets of fuzz_targets.py, driven by coverage: `python fuzz_atheris.py --runs N [--target NAME …]`.

N is the sum over the targets. Needs the package atheris, which the tests do not. Exit 1: a target found something; the
bytes that show it are printed, to be given to the target again.
"""

# ruff: noqa: T201 - a script

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzzing import memory

NAMES = ("answers", "corpora", "manifests", "folders", "exported", "lines", "known_failures", "runs")
LIMIT = 10  # seconds for one run: more is a hang
MEMORY = 4096  # MB for one process: more is a bomb
LONGEST = 256  # bytes that describe one run
READERS = ["moespec_conformance", "json", "safetensors"]


def drive(name: str, options: list[str]) -> None:
    """Run one target in this process, which the fuzzer ends."""
    import atheris  # noqa: PLC0415 - not a dependency of the tests

    with atheris.instrument_imports(include=READERS, enable_loader_override=False):
        from fuzz_targets import TARGETS  # noqa: PLC0415

    target = TARGETS[name]
    target(b"")  # whatever is made once is made before the clock runs

    def run(data: bytes) -> None:
        target(data)

    atheris.Setup([name, *options], run)
    atheris.Fuzz()


def fuzzed(name: str, runs: int, seed: int) -> bool:
    """Run one target in a process of its own: whether nothing was found."""
    with tempfile.TemporaryDirectory(prefix="moespec-fuzz-", dir=memory()) as place:
        options = [f"-runs={runs}", f"-seed={seed}", f"-timeout={LIMIT}", f"-rss_limit_mb={MEMORY}"]
        options += [f"-max_len={LONGEST}", f"-artifact_prefix={place}/", "-len_control=0"]
        environment = {**os.environ, "TMPDIR": place}
        command = [sys.executable, __file__, "--drive", name, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        found = [path for path in Path(place).iterdir() if path.is_file()]
        counted = re.search(rf"^Done {runs} runs in (\d+) second", done.stderr, re.MULTILINE)
        if done.returncode == 0 and counted and not found:
            seconds = max(int(counted[1]), 1)
            says = f"{runs} runs, no crash, no hang, no false pass"
            print(f"{name}: {says}; {seconds} s, {runs / seconds:.0f} a second", flush=True)
            return True
        print(f"{name}: FOUND, exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        for path in found:
            print(f"{name}({path.read_bytes()!r})  # {path.name}", flush=True)
        return False


def main() -> None:
    """Share the runs out over the targets."""
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=NAMES, action="append")
    asked = parser.parse_args()
    names = asked.target or NAMES
    shares = [asked.runs // len(names) + (index < asked.runs % len(names)) for index in range(len(names))]
    start = time.perf_counter()
    good = [fuzzed(name, runs, asked.seed) for name, runs in zip(names, shares, strict=True)]
    seconds = time.perf_counter() - start
    print(f"{sum(shares)} runs in all, {seconds:.0f} s: {sum(good)} of {len(good)} targets found nothing")
    sys.exit(int(not all(good)))


if __name__ == "__main__":
    main()
