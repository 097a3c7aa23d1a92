"""What passes between the suite and an implementation: cases, adapters, results."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import ml_dtypes
import numpy as np
import numpy.typing as npt

from moespec.config import MoEConfig

Array: TypeAlias = npt.NDArray[Any]
Tensors: TypeAlias = dict[str, Array]

# what became of a case: as it should be, or not; not_supported is neither
GOOD = ("pass", "quality_warning", "rejected_ok", "xpass", "xfail", "waived")
BAD = ("fail", "error", "timeout")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ARITHMETIC = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
DEFAULT = "deepseek-v3"  # the profile of an adapter that names none


class NotSupported(Exception):  # noqa: N818 - the protocol's word
    """An implementation says that it does not offer this op, config or input. Never counts as a pass."""


class Broken(Exception):  # noqa: N818 - not always the implementation's mistake
    """A program of which no answer can be had: `happened` is the word of Reply for it."""

    def __init__(self, happened: str, message: str) -> None:
        """Keep the word."""
        super().__init__(message)
        self.happened = happened


@runtime_checkable
class Adapter(Protocol):
    """An implementation behind the protocol: a name, a version, and one method per op it offers.

    A method takes the config (a dict) and the op's tensors by name (read-only arrays), and returns a dict of
    arrays. `arithmetic` lists what it computes in: names, or {"compute": name}; float32 if it says nothing.
    `profiles` lists what it is checked for unless the caller says otherwise; deepseek-v3 if it says nothing.
    """

    name: str
    version: str


@dataclass(frozen=True, eq=False)
class Case:
    """One question to an implementation. `build` makes the inputs, always the same ones.

    kind says how the answer is judged: exact, bounded, spread (bounded, and the whole tensor's spread), selection
    (bounded, and of equal choices the lower index), reject, relation; manner how the op is called: plain, strided
    (inputs not contiguous), again (a second call), or the name of a relation. good is what a reject case spoils.
    """

    id: str
    op: str
    config: Mapping[str, Any]
    build: Callable[[], Tensors] = field(repr=False)
    clauses: tuple[str, ...]
    kind: str = "bounded"
    arithmetic: str = "float32"
    profiles: tuple[str, ...] = ("deepseek-v3",)
    quick: bool = True
    manner: str = "plain"
    note: str = ""
    good: "Case | None" = None

    @cached_property
    def inputs(self) -> Tensors:
        """The named tensors, read-only."""
        tensors = self.build()
        for tensor in tensors.values():
            tensor.flags.writeable = False
        return tensors

    @cached_property
    def cfg(self) -> MoEConfig:
        """The config, checked."""
        return MoEConfig.from_dict(self.config)


@dataclass(frozen=True)
class Result:
    """The verdict on one case: one line of results.jsonl.

    margin: how many times beyond the limit that decided a failure: error / bound, or noise / its legal spread; None
    where the check is exact. trace: of a failure, where it was asked for, every step on the way and what it showed.
    """

    case: str
    op: str
    clauses: tuple[str, ...]
    status: str
    kind: str
    error_over_bound: float | None = None
    margin: float | None = None
    stage: str | None = None
    message: str = ""
    suspects: tuple[dict[str, str], ...] = ()
    trace: tuple[dict[str, Any], ...] = ()
    arithmetic: str = "float32"
    seconds: float = 0.0


def arithmetics(adapter: object) -> tuple[str, ...]:
    """The arithmetics an adapter says it computes in."""
    declared: Any = getattr(adapter, "arithmetic", "float32")
    if hasattr(declared, "get"):
        declared = declared.get("compute", "float32")
    return (declared,) if isinstance(declared, str) else tuple(declared)


def profiles(adapter: object) -> tuple[str, ...]:
    """The profiles an adapter says it is made for."""
    declared: Any = getattr(adapter, "profiles", None) or DEFAULT
    return (declared,) if isinstance(declared, str) else tuple(declared)


def by_name(outputs: object) -> TypeGuard[dict[str, Any]]:
    """Whether an adapter returned what it should: a dict."""
    return isinstance(outputs, dict)


def to_numpy(array: Any) -> Array:  # noqa: ANN401 - any array library's
    """Any array as NumPy's, on the host: torch (detached, small floats by their bits), DLPack, or `__array__`."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        name = str(array.dtype).removeprefix("torch.")
        if name == "bfloat16":
            return np.asarray(array.float().numpy()).astype(BFLOAT16)  # exact: float32 holds every bfloat16
        if name.startswith("float8"):
            return np.asarray(array.view(sys.modules["torch"].uint8).numpy()).view(getattr(ml_dtypes, name))
        return np.asarray(array.numpy())
    if hasattr(array, "get") and hasattr(array, "device"):
        return np.asarray(array.get())  # CuPy copies to the host only on request
    if hasattr(array, "__array__") or not hasattr(array, "__dlpack__"):
        return np.asarray(array)
    return np.from_dlpack(array)
