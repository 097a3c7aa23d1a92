"""Ask a Hopper GPU how its FP8 unit adds, and keep its answers: `python bench/hopper/probe.py`.

What it does
    Builds wgmma.cu, sees that sums of small whole numbers are right, asks the designed questions and a random campaign,
    holds every answer against moespec.accumulate, strikes out the hypotheses that they contradict, and writes vectors
    and a manifest to golden/hardware/DEVICE/ (golden/hardware/README.md). It needs a GPU of compute capability 9.0
    (H100, H200, H800, GH200), its driver, and CUDA's nvcc; a minute or two.
    With `--instead NAME` it asks a hypothesis in the GPU's place, and writes nothing.
Exit
    0: every answer is the model's. 1: some are not; they are written all the same. 2: usage. 3: there is no such GPU,
    or no nvcc; nothing is written. 4: the build, a CUDA call or the sums of whole numbers failed; nothing is written.
"""

import argparse
import platform
import re
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from campaign import LENGTHS, campaign, integers, kept
from device import Device, hopper
from findings import Verdict, judged
from hypotheses import HYPOTHESES, answer
from problems import Answer, modelled, same
from questions import designed
from toolchain import FailedError, NoDeviceError, build
from vectors import Recorded, write

HARDWARE = Path(__file__).parents[2] / "golden" / "hardware"


class Asked(NamedTuple):
    """What is kept, and how many answers of each group, kept or not, were not the model's."""

    kept: list[Recorded]
    groups: list[dict[str, Any]]


def plain(ask: Answer) -> None:
    """Sums of small whole numbers, which any unit has exactly: FailedError if one is wrong."""
    for fmt in ("e4m3", "e5m2"):
        for K, intervals in LENGTHS.items():
            for promote in intervals:
                problems = integers(fmt, K, promote)
                wrong = np.argwhere(ask(problems) != problems.want)
                if len(wrong):
                    where = f"{len(wrong)} of {problems.c.size}, first at (problem, row, column) {tuple(wrong[0])}"
                    raise FailedError(
                        f"{problems.name}: sums of whole numbers are wrong: {where}; nothing else was asked"
                    )


def ask_all(ask: Answer, n: int) -> Asked:
    """The designed questions, and n random problems of each kind."""
    recorded, groups = list[Recorded](), list[dict[str, Any]]()
    for problems in [*designed(), *campaign(n)]:
        d = ask(problems)
        agrees = np.ones(d.shape, np.bool) if problems.free else same(modelled(problems), d)
        groups.append({"name": problems.name, "answers": d.size, "other": int((~agrees).sum())})
        if problems.said:
            recorded.append(Recorded(problems, d))
        else:
            i, rows = kept(problems.name, agrees)
            recorded.append(Recorded(problems.part(i, rows), d[i : i + 1, rows]))
    return Asked(recorded, groups)


def answers_to_questions(kept: list[Recorded]) -> list[dict[str, Any]]:
    """Each designed question: the bits that came, and those of the model, if it says anything."""
    found = list[dict[str, Any]]()
    for problems, d in (r for r in kept if r.problems.said):
        want = d if problems.free else modelled(problems)
        bits = (x.reshape(-1).view(np.uint32) for x in (d, want))
        for said, got, model in zip(problems.said, *bits, strict=True):
            told = {"said": said, "fmt": problems.fmt, "promote": problems.promote, "got": f"{got:08x}"}
            found.append(told if problems.free else {**told, "model": f"{model:08x}"})
    return found


def waits(device: Device, n: int) -> dict[str, int]:
    """Chained without a wait, and with one after each instruction: answers, and those that differ."""
    found = {"answers": 0, "other": 0}
    for problems in (p for p in [*designed(), *campaign(n)] if not p.promote and not p.free):
        one, other = device.answer(problems), device.answer(problems, together=32)
        found["answers"] += one.size
        found["other"] += int((~same(one, other)).sum())
    return found


def manifest(device: Device, asked: Asked, verdict: Verdict, n: int) -> dict[str, Any]:
    """All that is known of a run."""
    try:
        ours = version("moespec")
    except PackageNotFoundError:
        ours = "not installed"
    return {
        "device": device.gpu._asdict() | {"system": platform.platform()},
        "built": device.built,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "moespec": ours,
        "questions": answers_to_questions(asked.kept),
        "model": {"groups": asked.groups, "other": sum(g["other"] for g in asked.groups)},
        "waits": waits(device, n),
        "hypotheses": verdict.tally,
        "standing": verdict.standing,
        "points": verdict.points,
    }


def report(name: str, asked: Asked, verdict: Verdict) -> int:
    """Print what came of it: the number of answers that are not the model's."""
    other, answers = (sum(g[key] for g in asked.groups) for key in ("other", "answers"))
    print(f"{name}: {answers} answers, {other} not those of moespec.accumulate")
    for group in asked.groups:
        if group["other"]:
            print(f"  {group['other']} of {group['answers']} in {group['name']}")
    print("\n".join(verdict.lines()))
    return int(other)


def on_the_gpu(n: int, out: Path) -> int:
    """Find, build, ask, report, write: the exit code."""
    gpu = hopper()
    with tempfile.TemporaryDirectory() as folder:
        device = Device(build(Path(folder)), gpu)
        plain(device.answer)
        asked = ask_all(device.answer, n)
        verdict = judged(asked.kept)
        told = manifest(device, asked, verdict, n)
    other = report(gpu.name, asked, verdict)
    folder_of_it = out / re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    write(folder_of_it, told, asked.kept)
    print(f"chained with waits between: {told['waits']['other']} of {told['waits']['answers']} answers are others")
    print(f"written: {folder_of_it}")
    return 1 if other else 0


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16, help="random problems of each kind, 512 sums each (16)")
    parser.add_argument("--out", type=Path, default=HARDWARE, help="where the device's folder is written")
    parser.add_argument("--instead", choices=list(HYPOTHESES), metavar="NAME", help="a hypothesis; nothing is written")
    chosen = parser.parse_args(argv)
    if chosen.problems < 1:
        parser.error("--problems must be at least 1")
    try:
        if chosen.instead:
            ask = partial(answer, HYPOTHESES[chosen.instead])
            plain(ask)
            asked = ask_all(ask, chosen.problems)
            return 1 if report(f"no GPU, but `{chosen.instead}`", asked, judged(asked.kept)) else 0
        return on_the_gpu(chosen.problems, chosen.out)
    except NoDeviceError as error:
        print(f"no Hopper GPU to ask: {error}; nothing was written", file=sys.stderr)
        return 3
    except FailedError as error:
        print(f"failed: {error}; nothing was written", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
