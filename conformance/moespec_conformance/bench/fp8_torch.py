"""What torch takes for the same codes: asked only where it is installed."""

# the library leaves much untyped
# pyright: basic, reportMissingImports=false

import torch

from moespec.formats import FORMATS
from moespec_conformance.bench.timing import Call


def quantizing(x: object, rows: int, columns: int) -> Call:
    """QNT-1 … QNT-5 by torch, eagerly and on one thread: codes and scales of x [M, N] float32, by blocks."""
    torch.set_num_threads(1)
    tiles = torch.as_tensor(x)
    tiles = tiles.view(tiles.shape[0] // rows, rows, tiles.shape[1] // columns, columns)

    def call() -> object:
        scale = tiles.abs().amax((1, 3), keepdim=True).clamp(min=1e-4) / FORMATS["e4m3"].largest
        return (tiles / scale).to(torch.float8_e4m3fn), scale

    return call
