"""Tensors in files: safetensors, with every dtype as raw bytes and nothing that differs from run to run."""

import stat
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import (
    SafetensorError,
    TensorSpec,
    deserialize,  # pyright: ignore[reportUnknownVariableType] - untyped
    serialize,  # pyright: ignore[reportUnknownVariableType] - untyped
)

from moespec_conformance.protocol import Array, Tensors

TOO_LONG = 2**30  # bytes of a file
# the file's names of dtypes; how ml_dtypes names a type of 8 bits, the file's library reads it too
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.bool,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def write(path: Path, tensors: Tensors) -> None:
    """Write tensors into a file."""
    path.write_bytes(packed(tensors))


def packed(tensors: Tensors) -> bytes:
    """Tensors as a file's bytes, C-contiguous and without metadata, so that equal tensors make equal bytes."""
    held = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # alive until they are written
    specs = {
        name: TensorSpec(dtype=t.dtype.name, shape=t.shape, data_ptr=t.ctypes.data, data_len=t.nbytes)
        for name, t in held.items()
    }
    return bytes(serialize(specs))


def read(path: Path) -> Tensors:
    """Read tensors, read-only; a ValueError for whatever is no file of them, and for dtypes that no op knows."""
    try:
        return {name: _array(raw) for name, raw in deserialize(bytes_of(path))}  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def bytes_of(path: Path, most: int = TOO_LONG) -> bytes:
    """What a regular file of moderate length holds: no link, no pipe, no device."""
    held = path.lstat()
    if not stat.S_ISREG(held.st_mode):
        raise ValueError("it is no regular file")
    if held.st_size > most:
        raise ValueError(f"{held.st_size} bytes are too many")
    return path.read_bytes()


def _array(raw: dict[str, Any]) -> Array:
    if raw["dtype"] not in DTYPES:
        raise ValueError(f"dtype {raw['dtype']} is none that an op knows")
    return np.frombuffer(bytes(raw["data"]), DTYPES[raw["dtype"]]).reshape(raw["shape"])
