"""The GPU: whether there is one of Hopper's kind, which libcuda, the driver's library, says; and its answers."""

import ctypes
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from problems import F32, Codes, Problems
from toolchain import FLAGS, SOURCE, FailedError, NoDeviceError, instructions, nvcc, ran

Ints = npt.NDArray[np.intp]
HOPPER = (9, 0)  # the compute capability that has wgmma, and the only one
M, N = 64, 8
TOGETHER = (256, 128, 64, 32)  # products of a stretch, as the source has them
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


class Gpu(NamedTuple):
    """A GPU as the driver names it."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    cuda: str  # the newest CUDA that the driver serves
    driver: str


def hopper() -> Gpu:
    """The first Hopper GPU; NoDeviceError says what is there in its place."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoDeviceError("no NVIDIA driver (libcuda.so.1)") from error
    found = list(gpus(cuda))
    for gpu in found:
        if gpu.capability == HOPPER:
            return gpu
    others = ", ".join(f"{gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}" for gpu in found)
    raise NoDeviceError(f"no GPU of compute capability 9.0{': ' if others else ''}{others}")


def gpus(cuda: Any) -> Iterator[Gpu]:  # noqa: ANN401 - a library's functions
    """All that the driver shows."""

    def asked(function: str, *args: Any) -> None:  # noqa: ANN401 - whatever C takes
        code = getattr(cuda, function)(*args)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(text))
            raise NoDeviceError(f"{function}: {(text.value or b'unknown error').decode()} ({code})")

    count, version, device, number = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    asked("cuInit", 0)
    asked("cuDriverGetVersion", ctypes.byref(version))
    asked("cuDeviceGetCount", ctypes.byref(count))
    for index in range(count.value):
        name, capability = ctypes.create_string_buffer(256), list[int]()
        asked("cuDeviceGet", ctypes.byref(device), index)
        asked("cuDeviceGetName", name, len(name), device)
        for attribute in (MAJOR, MINOR):
            asked("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
            capability.append(number.value)
        yield Gpu(index, name.value.decode(), (capability[0], capability[1]), dotted(version.value), driver())


def dotted(version: int) -> str:
    """CUDA's 13000 is 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"


def driver() -> str:
    """The driver's own version, as the kernel module says it."""
    said = Path("/proc/driver/nvidia/version")
    found = re.search(r"\b\d{3}\.\d[\d.]*", said.read_text(encoding="utf-8")) if said.exists() else None
    return found[0] if found else "unknown"


class Device:
    """A built library at work on one GPU."""

    def __init__(self, library: Path, gpu: Gpu) -> None:
        """Load it; what it was made of and with is kept for the record."""
        self.gpu, self.library = gpu, opened(library)
        version = ctypes.c_int()
        self.check(self.library.wgmma_use(gpu.ordinal))
        self.check(self.library.wgmma_runtime(ctypes.byref(version)))
        self.built = {
            "source": hashlib.sha256(SOURCE.read_bytes()).hexdigest(),
            "nvcc": ran([nvcc() or "nvcc", "--version"]).strip().splitlines()[-1],
            "flags": " ".join(FLAGS),
            "runtime": dotted(version.value),
            "instructions": instructions(library),
        }

    def check(self, code: int) -> None:
        """A return code that is not 0 is an error, with the library's words."""
        if code:
            raise FailedError(self.library.wgmma_said().decode())

    def answer(self, problems: Problems, together: int | None = None) -> F32:
        """d (n, M, N); at most `together` products without a wait, if they are not promoted."""
        n, K = len(problems.c), problems.a.shape[-1]
        length = problems.promote or next(t for t in TOGETHER if K % t == 0 and t <= (together or K))
        a, b, c, rows, columns = widened(problems)
        d = np.zeros((n, M, N), np.float32)
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c, d)]
        e5m2, promoted = int(problems.fmt == "e5m2"), int(problems.promote > 0)
        self.check(self.library.wgmma_run(e5m2, promoted, length, n, K, *pointers))
        return np.asarray(d[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]], np.float32)


def opened(library: Path) -> Any:  # noqa: ANN401 - a library's functions
    """The library, with the types of what it gives."""
    found = ctypes.CDLL(str(library))
    found.wgmma_said.restype = ctypes.c_char_p
    found.wgmma_descriptor.restype = ctypes.c_uint64
    return found


class Widened(NamedTuple):
    """Problems as the instruction takes them."""

    a: Codes  # (n, 64, K)
    b: Codes  # (n, 8, K)
    c: F32  # (n, 64, 8)
    rows: Ints  # (n, M): where rows of a are
    columns: Ints  # (n, N): where rows of b are


def widened(problems: Problems) -> Widened:
    """a, b and c in the instruction's 64 rows and 8 columns, zeros elsewhere; and where their own rows and columns are.

    A smaller problem is put elsewhere each time, so that a question meets other lanes than its neighbours do.
    """
    (n, m, K), k = problems.a.shape, problems.b.shape[1]
    each: Ints = np.array(range(n), np.intp).reshape(n, 1)
    rows: Ints = (each * (13 if m < M else 0) + np.array(range(m), np.intp)) % M  # (n, m)
    columns: Ints = (each * (1 if k < N else 0) + np.array(range(k), np.intp)) % N  # (n, k)
    a, b, c = np.zeros((n, M, K), np.uint8), np.zeros((n, N, K), np.uint8), np.zeros((n, M, N), np.float32)
    a[each, rows], b[each, columns] = problems.a, problems.b
    c[each[:, :, None], rows[:, :, None], columns[:, None, :]] = problems.c
    return Widened(a, b, c, rows, columns)
