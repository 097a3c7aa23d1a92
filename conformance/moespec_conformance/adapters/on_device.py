"""The reference on another array library: inputs sent to its device once, the same lines there, outputs fetched once.

On a device codes are unsigned integers and scales float32 (FMT-5, FMT-6); here, before and after, they look as others
store them. What is refused is refused before anything is sent.
"""

import importlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from moespec import ops
from moespec.checks import check
from moespec.config import MoEConfig
from moespec.formats import FORMATS
from moespec.storage import scale_inside, scale_outside
from moespec_conformance.protocol import Array, Tensors

REGISTERED = 2  # NumPy's word for a dtype that it does not have itself


class Device(NamedTuple):
    """An array library: how a NumPy array gets there and back, and what it is called."""

    send: Callable[[Array], Any]
    fetch: Callable[[Any], Array]
    name: str


def computed(device: Device, op: str, config: dict[str, Any], **tensors: Array) -> Tensors:
    """Check config and tensors, and run the op on the device."""
    cfg = MoEConfig.from_dict(config)
    check(op, cfg, tensors)
    sent = {name: device.send(plain(array)) for name, array in tensors.items()}
    made = ops.run(op, cfg, **sent)
    return {name: stored(name, device.fetch(array), op, cfg) for name, array in made.items()}


def plain(array: Array) -> Array:
    """Codes as unsigned integers, scales as float32; all else as it is."""
    if array.dtype == ml_dtypes.float8_e8m0fnu:
        return np.asarray(scale_inside(array))
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.isbuiltin == REGISTERED else array


def stored(name: str, array: Array, op: str, cfg: MoEConfig) -> Array:
    """What came back, as others store it: of ml_dtypes' types, and E8M0 scales as bytes."""
    if name == "scale":
        return np.asarray(scale_outside(array, cfg.scale_format))
    if name == "codes":
        return array.view(FORMATS[cfg.b_format if op in {"requantize", "lift_fp4"} else cfg.format].storage)
    return array


def cupy() -> Device:
    """CuPy's first GPU; a RuntimeError in one sentence where there is none."""
    try:
        library = importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError("CuPy is not installed here: pip install 'moespec[cupy]'") from error
    try:
        properties = library.cuda.runtime.getDeviceProperties(0)
    except library.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"CuPy {library.__version__} finds no GPU here: {error}") from error
    keep_subnormals(importlib.import_module("cupy.cuda.compiler"))
    name = f"CuPy {library.__version__} on {properties['name'].decode()}"
    return Device(library.asarray, library.asnumpy, name)


def keep_subnormals(compiler: Any) -> None:  # noqa: ANN401 - the module cupy.cuda.compiler
    """Have kernels compiled to compute with float32's subnormal numbers, as FMT-1 and QNT-2 … QNT-6 want it.

    CuPy gives the compiler the option -ftz=true, which makes zeros of them, and has no setting for it. Such kernels
    stay in memory: on the disk CuPy, and whoever else uses it, would take them for its usual ones.
    """
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
    for name in ("_compile_using_nvrtc_no_warning", "compile_using_nvrtc"):
        if hasattr(compiler, name):
            setattr(compiler, name, partial(without_flushing, getattr(compiler, name)))


def without_flushing(compile_: Callable[..., Any], source: str, options: Any = (), *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - CuPy's
    """Compile without that option."""
    return compile_(source, tuple(o for o in options if o != "-ftz=true"), *args, **kwargs)
