"""What an edit may use beside NumPy: roundings that every reading goes through, bounds included."""

from typing import Any

import numpy as np

from moespec.formats import FORMATS, rounded


def bf16(x: Any) -> Any:  # noqa: ANN401 - of any reading
    """To the nearest bfloat16."""
    return rounded(x, FORMATS["bfloat16"])


def tf32(x: Any) -> Any:  # noqa: ANN401 - of any reading
    """To 10 mantissa bits, as a tensor core's TF32 inputs."""
    return rounded(x, FORMATS["bfloat16"]._replace(mantissa=10))


def poisoned(x: Any, shape: tuple[int, ...] | None = None) -> Any:  # noqa: ANN401 - of any reading
    """Memory that nobody wrote: what np.empty_like gives on a bad day."""
    return np.full_like(x, np.nan, shape=shape)
