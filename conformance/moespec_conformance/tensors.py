"""Tensors in files: safetensors, with every dtype as raw bytes and nothing that differs from run to run."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import (
    TensorSpec,
    deserialize,  # pyright: ignore[reportUnknownVariableType] - untyped
    serialize,  # pyright: ignore[reportUnknownVariableType] - untyped
)

from moespec_conformance.protocol import Array, Tensors

# the file's names of dtypes; how ml_dtypes names a type of 8 bits, the file's library reads it too
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def write(path: Path, tensors: Tensors) -> None:
    """Write tensors, C-contiguous and without metadata, so that equal tensors make equal bytes."""
    held = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # alive until they are written
    specs = {
        name: TensorSpec(dtype=t.dtype.name, shape=t.shape, data_ptr=t.ctypes.data, data_len=t.nbytes)
        for name, t in held.items()
    }
    path.write_bytes(bytes(serialize(specs)))


def read(path: Path) -> Tensors:
    """Read tensors, read-only."""
    return {name: _array(raw) for name, raw in deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]


def _array(raw: dict[str, Any]) -> Array:
    return np.frombuffer(bytes(raw["data"]), DTYPES[raw["dtype"]]).reshape(raw["shape"])
