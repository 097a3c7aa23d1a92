"""The reference itself, behind the protocol: `reference` in float32 NumPy, `reference:cupy` the same lines on a GPU."""

from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

from moespec import ops
from moespec.config import MoEConfig
from moespec.signatures import OPS
from moespec_conformance.adapters import on_device
from moespec_conformance.address import Usage
from moespec_conformance.cases import PROFILES
from moespec_conformance.protocol import Tensors

BACKENDS = ("numpy", "cupy")


class Adapter:
    """Every op of moespec.ops."""

    name: str = "reference"
    version: str = metadata.version("moespec")
    arithmetic = ("float32",)
    profiles = tuple(name for name in PROFILES if name != "batch-invariant")  # BLAS is not

    def __init__(self, backend: str = "numpy") -> None:
        """Find the backend's device, if it needs one."""
        if backend not in BACKENDS:
            raise Usage(f"reference:{backend}: the reference runs on {' or '.join(BACKENDS)}")
        self.compute: Callable[..., Tensors] = compute
        if backend == "cupy":
            device = on_device.cupy()
            self.name, self.version = "reference:cupy", f"{self.version}, {device.name}"
            self.compute = partial(on_device.computed, device)

    def __getattr__(self, op: str) -> Callable[..., Tensors]:
        """One method per op."""
        if op not in OPS:
            raise AttributeError(op)
        return partial(self.compute, op)


def compute(op: str, config: dict[str, Any], **tensors: Any) -> Tensors:  # noqa: ANN401 - named tensors
    """Check config and tensors, and run the op."""
    return ops.run(op, MoEConfig.from_dict(config), **tensors)
