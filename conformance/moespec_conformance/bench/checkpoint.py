"""Experts from a checkpoint as it lies on disk: safetensors under Hugging Face's names, mapped and never read whole.

Each tensor is mapped when it is asked for and let go with its last use, so that no more of a file stays in this process
than the expert in hand. Nothing in a file is believed: what does not fit is a ValueError that names file and tensor.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moespec.config import MoEConfig
from moespec.expert_fp8 import Fp8Expert, scheme_b
from moespec.linear import Operand
from moespec.quant import Quantized
from moespec.streamed import Experts
from moespec_conformance.protocol import Array
from moespec_conformance.tensors import DTYPES

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LONGEST = 100 << 20  # bytes of a header: what the format allows
PLAIN = ("F32", "BF16", "F16")


class Place(NamedTuple):
    """Where a tensor lies: bytes begin … end of its file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def places(checkpoint: Path, prefix: str) -> dict[str, Place]:
    """Where the tensors lie whose names begin so: in one file, or in a folder of files with their index."""
    listed = index(checkpoint / INDEX) if (checkpoint / INDEX).is_file() else None
    if listed is None:
        paths = {checkpoint / SINGLE if checkpoint.is_dir() else checkpoint}
    else:
        paths = {checkpoint / file for name, file in listed.items() if name.startswith(prefix)}
    found = {name: place for path in sorted(paths) for name, place in header(path)}
    return {name: place for name, place in found.items() if name.startswith(prefix)}


def index(path: Path) -> dict[str, str]:
    """Which file each tensor is in."""
    try:
        told: Any = json.loads(path.read_bytes())["weight_map"]
        listed = {str(name): str(file) for name, file in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name}: it names no files: {error!r}") from error
    strange = next((file for file in listed.values() if Path(file).name != file), None)
    if strange is not None:
        raise ValueError(f"{path.name}: {strange!r} is not a file beside it")
    return listed


def header(path: Path) -> list[tuple[str, Place]]:
    """Names and places of a file's tensors."""
    try:
        whole = path.stat().st_size
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            told: Any = json.loads(file.read(min(size, LONGEST)))
        listed = [(str(name), one) for name, one in told.items() if name != "__metadata__"]
        return [(name, checked(name, placed(path, 8 + size, one), whole)) for name, one in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name}: it cannot be read as safetensors: {error}") from error


def placed(path: Path, start: int, told: dict[str, Any]) -> Place:
    """What a header tells of one tensor; places count from the end of the header."""
    begin, end = (start + int(n) for n in told["data_offsets"])
    return Place(path, str(told["dtype"]), tuple(map(int, told["shape"])), begin, end)


def checked(name: str, place: Place, whole: int) -> Place:
    """A place, if it lies in its file and holds what its shape says."""
    _, dtype, shape, begin, end = place
    if dtype in DTYPES and end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{name} of {dtype} {list(shape)} has {end - begin} bytes")
    if min((*shape, 0)) < 0 or not 0 <= begin <= end <= whole:
        raise ValueError(f"{name} ends at byte {end}, and the file at {whole}: it was cut off")
    return place


def tensor(found: dict[str, Place], name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> Array:
    """One tensor, mapped: read-only, and gone with its last reference."""
    if name not in found:
        raise ValueError(f"the checkpoint has no {name}")
    place = found[name]
    if place.shape != shape:
        raise ValueError(f"{place.path.name}: {name} has shape {list(place.shape)}, not {list(shape)}")
    if place.dtype not in dtypes:
        raise ValueError(f"{place.path.name}: {name} is {place.dtype}, not {' or '.join(dtypes)}")
    try:
        mapped = np.memmap(place.path, np.uint8, "r", place.begin, (place.end - place.begin,))
    except (OSError, ValueError) as error:
        raise ValueError(f"{place.path.name}: {name} cannot be mapped: {error}") from error
    array: Array = np.asarray(mapped).view(DTYPES[place.dtype]).reshape(shape)
    return array


def matrix(found: dict[str, Place], name: str, shape: tuple[int, int], cfg: MoEConfig) -> Operand:
    """Codes and scales of one matrix; what the names call the scale's inverse is the multiplier itself."""
    grid = -(-shape[0] // cfg.b_block[0]), -(-shape[1] // cfg.b_block[1])
    codes = tensor(found, f"{name}.weight", shape, ("F8_E4M3",)).view(np.uint8)
    return Operand(Quantized(codes, tensor(found, f"{name}.weight_scale_inv", grid, ("F32",))), scheme_b(cfg))


def experts(checkpoint: Path, layer: int, cfg: MoEConfig) -> Experts:
    """The experts of one layer, each mapped when it is asked for; E is the shared one."""
    prefix = f"model.layers.{layer}.mlp."
    found = places(checkpoint, prefix)

    def expert(e: int) -> Fp8Expert:
        routed = e < cfg.n_routed_experts
        name = f"{prefix}experts.{e}" if routed else f"{prefix}shared_experts"
        h, f = cfg.hidden_size, cfg.moe_intermediate_size if routed else cfg.shared_width
        gate = matrix(found, f"{name}.gate_proj", (f, h), cfg) if cfg.gated else None
        return Fp8Expert(
            gate, matrix(found, f"{name}.up_proj", (f, h), cfg), matrix(found, f"{name}.down_proj", (h, f), cfg)
        )

    return expert


def router(checkpoint: Path, layer: int, cfg: MoEConfig) -> tuple[Array, Array]:
    """The router's weight (E, H) and its bias (E,), zeros for a model without one, in float32."""
    prefix = f"model.layers.{layer}.mlp.gate."
    found, e = places(checkpoint, prefix), cfg.n_routed_experts
    weight = tensor(found, f"{prefix}weight", (e, cfg.hidden_size), PLAIN).astype(np.float32)
    if not cfg.selection_bias:
        return weight, np.zeros(e, np.float32)
    return weight, tensor(found, f"{prefix}e_score_correction_bias", (e,), PLAIN).astype(np.float32)
