"""Triton's interpreter (TRITON_INTERPRET=1): how it casts float32 to small floats, by a kernel that does only that."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false

import os
from importlib.metadata import version
from typing import Any

from moespec_conformance.adapters.float8 import Array, Config, dtype_of, left, tensor
from moespec_conformance.protocol import NotSupported

os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is made
try:
    import torch
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("this adapter needs torch and triton: pip install 'moespec[peers]'") from error

WIDTH = 256


def each(x: Any, y: Any, size: Any, width: tl.constexpr) -> None:  # noqa: ANN401 - what a kernel is launched with
    """Cast each number to the type of y."""
    at = tl.program_id(0) * width + tl.arange(0, width)
    tl.store(y + at, tl.load(x + at, at < size).to(y.dtype.element_ty), at < size)


cast: Any = triton.jit(each)


class Adapter:
    """One op a method."""

    name = "triton-interpreter"
    version = version("triton")
    arithmetic = ("float32",)
    profiles = ("fp8",)

    def cast(self, config: Config, *, x: Array) -> dict[str, Array]:
        """`Tensor.to` in a kernel."""
        given = tensor(x).contiguous()
        codes = torch.empty(x.shape, dtype=dtype_of(config["format"], "e4m3", "e5m2", "bfloat16"))
        if (given.abs() > torch.finfo(codes.dtype).max).any() and config["overflow"] != "saturate":
            raise NotSupported("overflow is always saturate")
        cast[triton.cdiv(given.numel(), WIDTH),](given, codes, given.numel(), WIDTH)
        return {"codes": left(codes)}
