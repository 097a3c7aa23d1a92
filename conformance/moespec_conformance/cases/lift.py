"""E2M1 in small blocks as E4M3 in larger ones, without loss: scales up to 2^14 apart, and parts of zeros (QNT-8)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases.grids import bytes_of, grid_of, stored, told
from moespec_conformance.cases.inputs import F32, Draw, Tensor
from moespec_conformance.cases.quant import FP4
from moespec_conformance.protocol import Case, Tensors

FORMATS: dict[str, Any] = {"a_format": "e2m1", "b_format": "e4m3", "a_block": (1, 32), "b_block": (128, 128)}
Change = Callable[[Draw, Tensor, F32], None]


def apart(most: int, base: int = -7) -> Callable[[Draw, tuple[int, int]], F32]:
    """Scales from 2**base to 2**(base + most), both ends in every block."""

    def scale(draw: Draw, shape: tuple[int, int]) -> F32:
        power = draw.integers(*shape, bits=20) % (most + 1)
        power[::3], power[1::3] = 0, most
        return np.exp2(base + power).astype(np.float32)

    return scale


def zero_parts(draw: Draw, codes: Tensor, scale: F32) -> None:
    """Every fifth part is zeros, with scales far beyond and far below those of the others."""
    zero = draw.integers(*scale.shape, bits=20) % 5 == 0
    zero[2], zero[3] = True, False
    codes[np.repeat(zero, 32, axis=1)[:, : codes.shape[1]]] = 0
    scale[zero] = np.where(draw.integers(*scale.shape, bits=1)[zero] == 0, np.float32(2.0**40), np.float32(2.0**-60))


def zero_blocks(_: Draw, codes: Tensor, __: F32) -> None:
    """The first 128 rows are zeros."""
    codes[:128] = 0


def all_zeros(_: Draw, codes: Tensor, __: F32) -> None:
    """Nothing but zeros."""
    codes[:] = 0


def lift(slug: str, most: int, size: tuple[int, int] = (160, 256), change: Change | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case of lift_fp4; `how` holds config fields, fields of Case, base, and whether scales come as float32."""
    base, floats = how.pop("base", -7), how.pop("floats", False)
    title, (fields, cfg) = f"lift-fp4-{slug}", told(how, **FP4, **FORMATS)

    def build() -> Tensors:
        draw = Draw(title)
        codes = draw.integers(*size, bits=4)
        codes[codes == 8] = 1  # noqa: PLR2004 - a negative zero
        scale = apart(most, base)(draw, grid_of(size, cfg["a_block"]))
        if change:
            change(Draw(title + "/change"), codes, scale)
        return {"codes": stored(codes, "e2m1"), "scale": scale if floats else bytes_of(scale)}

    said: dict[str, Any] = {"clauses": ("QNT-8",), "kind": "exact", "profiles": ("fp8",), **fields}
    return Case(title, "lift_fp4", cfg, build, **said)


def cases() -> Iterator[Case]:
    """Spreads that E4M3 holds, odd sizes, and what counts in a block's scale."""
    for most in (0, 1, 6, 8, 11, 12, 14):
        yield lift(f"apart-{most}", most)
    for slug, size in (("ragged", (130, 190)), ("one-row", (1, 34)), ("tall", (300, 32)), ("shard", (192, 576))):
        yield lift(slug, 9, size)
    yield lift("no-row", 9, (0, 64))
    yield lift("float32", 11, floats=True, scale_format="float32")
    yield lift("float32-in", 11, floats=True)
    yield lift("zero-parts", 11, change=zero_parts)
    yield lift("zero-parts-14", 14, (160, 256), zero_parts)
    yield lift("zero-blocks", 9, change=zero_blocks)
    yield lift("zero-blocks-float32", 9, change=zero_blocks, scale_format="float32")
    yield lift("all-zeros", 3, change=all_zeros)
    yield lift("rows", 14, b_block=(1, 128))
    yield lift("squares-of-32", 14, b_block=(32, 32))
    yield lift("same-blocks", 14, b_block=(1, 32))
    yield lift("from-1x16", 14, a_block=(1, 16))
    yield lift("large-scales", 14, base=113)
    yield lift("small-scales", 6, base=-127, note="the new scale is the least that E8M0 has")
    yield lift("least-scales", 3, base=-127, note="so it is here, though 2^-6 of the largest is less")
    yield lift("strided", 11, clauses=("MOE-8",), manner="strided")
    yield lift("again", 11, clauses=("MOE-8",), manner="again")
