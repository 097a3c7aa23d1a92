"""CUDA's tools: the source compiled, and its machine code looked at."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("wgmma.cu")
FLAGS = ("-gencode", "arch=compute_90a,code=sm_90a", "-O2", "-shared", "-Xcompiler", "-fPIC")
QGMMA = re.compile(r"QGMMA\.64x8x32\.F32\.(E4M3\.E4M3|E5M2\.E5M2)")


class NoDeviceError(RuntimeError):
    """There is nothing here to ask."""


class FailedError(RuntimeError):
    """There is, but it could not be asked, or gave nonsense."""


def nvcc() -> str | None:
    """The compiler: on the path, or where CUDA is usually installed."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    return shutil.which("nvcc") or next((p for home in homes if home and (p := shutil.which(f"{home}/bin/nvcc"))), None)


def cuobjdump() -> str | None:
    """What shows the machine code: beside nvcc, or in Triton's wheel, if that is installed."""
    beside, triton = nvcc(), find_spec("triton")
    folders = [Path(beside).resolve().parent] if beside else []
    folders += [Path(p) / "backends/nvidia/bin" for p in (triton.submodule_search_locations or [])] if triton else []
    found = [shutil.which("cuobjdump"), *(shutil.which(folder / "cuobjdump") for folder in folders)]
    return next((path for path in found if path), None)


def ran(command: list[str]) -> str:
    """What a command printed; FailedError if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - CUDA's own tools
    if done.returncode:
        raise FailedError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def build(folder: Path) -> Path:
    """The library, compiled into a folder."""
    compiler = nvcc()
    if compiler is None:
        raise NoDeviceError("no nvcc, neither on the path nor in CUDA_HOME, CUDA_PATH or /usr/local/cuda")
    ran([compiler, *FLAGS, "-o", str(folder / "libwgmma.so"), str(SOURCE)])
    return folder / "libwgmma.so"


def instructions(library: Path) -> dict[str, int]:
    """How often the machine code has FP8's instruction, by format; empty where nothing can show it."""
    tool = cuobjdump()
    if tool is None:
        return {}
    found = QGMMA.findall(ran([tool, "-sass", str(library)]))
    if not {"E4M3.E4M3", "E5M2.E5M2"} <= set(found):
        raise FailedError("the machine code has no QGMMA of both formats: its answers would be those of another unit")
    return {fmt: found.count(fmt) for fmt in sorted(set(found))}
