"""What the FP8 adapters share: codes and scales between NumPy and torch, bit by bit."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false

from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

try:
    import torch
except ImportError as error:
    raise ImportError("this adapter needs torch: pip install 'moespec[peers]'") from error

from moespec_conformance.protocol import NotSupported, to_numpy

Array: TypeAlias = npt.NDArray[Any]
Config: TypeAlias = Mapping[str, Any]

TORCH = {
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "e4m3fnuz": torch.float8_e4m3fnuz,
    "e5m2fnuz": torch.float8_e5m2fnuz,
    "bfloat16": torch.bfloat16,
}


def tensor(array: Array) -> torch.Tensor:
    """Copy an array that torch knows."""
    return torch.tensor(np.ascontiguousarray(array))


def dtype_of(fmt: str, *offered: str) -> torch.dtype:
    """torch's type of a format, if it is offered."""
    if fmt not in offered:
        raise NotSupported(f"formats are {', '.join(offered)}, not {fmt}")
    return TORCH[fmt]


def entered(codes: Array, fmt: str, *offered: str) -> torch.Tensor:
    """Codes, their bits as they are, in torch's type."""
    dtype = dtype_of(fmt, *offered)
    bits = np.ascontiguousarray(codes).view(np.int16 if fmt == "bfloat16" else np.uint8)
    return torch.tensor(bits).view(dtype)


def left(codes: torch.Tensor) -> Array:
    """Codes as others store them: bfloat16 as it is, eight bits as bytes."""
    if codes.dtype == torch.bfloat16:
        return to_numpy(codes.view(torch.int16)).view(ml_dtypes.bfloat16)
    return to_numpy(codes.contiguous().view(torch.uint8))


def scale_entered(scale: Array) -> torch.Tensor:
    """Scales: float32, or UE8M0 in torch's type."""
    if scale.dtype == ml_dtypes.float8_e8m0fnu:
        return torch.tensor(np.ascontiguousarray(scale).view(np.uint8)).view(torch.float8_e8m0fnu)
    return tensor(scale)


def scale_left(scale: torch.Tensor) -> Array:
    """Scales as others store them."""
    if scale.dtype == torch.float8_e8m0fnu:
        return to_numpy(scale.contiguous().view(torch.uint8)).view(ml_dtypes.float8_e8m0fnu)
    return to_numpy(scale)


def fixed(config: Config, **fields: Any) -> None:  # noqa: ANN401 - config values
    """Refuse a config that says something else than is done; a tuple names several values."""
    for name, value in fields.items():
        legal = value if isinstance(value, tuple) else (value,)
        if config[name] not in legal:
            raise NotSupported(f"{name} is always {' or '.join(map(str, legal))}")


def whole(shape: tuple[int, ...], block: list[int]) -> None:
    """Refuse a ragged edge."""
    if any(size % part for size, part in zip(shape, block, strict=True)):
        raise NotSupported(f"{shape[0]}x{shape[1]} is no multiple of blocks of {block[0]}x{block[1]}")
