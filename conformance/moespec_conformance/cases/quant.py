"""Quantisers: scales and codes of blocks, near; and the same matrix in other blocks or another format (QNT)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases import matrices
from moespec_conformance.cases.grids import (
    GRIDS,
    OPERANDS,
    any_codes,
    bytes_of,
    grid_of,
    powers,
    scales,
    stored,
    told,
    whole_codes,
)
from moespec_conformance.cases.inputs import Draw, Tensor
from moespec_conformance.cases.matrices import Frame, Make
from moespec_conformance.protocol import Case, Tensors

WIDE = (32, 384)
SCALE, NUMBER = ("QNT-1", "QNT-2"), ("QNT-2", "QNT-4")
# what quantisers are asked, by slug
FAMILIES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "ordinary": (matrices.ordinary, (*SCALE, "QNT-4")),
    "one-sign": (matrices.one_sign, ("QNT-2",)),
    "equal": (matrices.equal, NUMBER),
    "bfloat16-values": (matrices.bfloat16_values, ("FMT-1", "QNT-4")),
    "rows-apart": (matrices.rows_apart, SCALE),
    "blocks-apart": (matrices.blocks_apart, SCALE),
    "ends-of-scales": (matrices.ends_of_scales, ("QNT-2", "QNT-3")),
    "ties": (matrices.ties, ("FMT-1", "QNT-4")),
    "near-ties": (matrices.near_ties, ("FMT-1", "QNT-4")),
    "zeros": (matrices.zeros, ("QNT-2", "QNT-3")),
    "tiny": (matrices.tiny, ("QNT-2", "QNT-3")),
    "huge": (matrices.huge, ("QNT-2", "QNT-4")),
    "outlier": (matrices.outlier, ("FMT-1", "QNT-4")),
    "odd": (matrices.odd, ("QNT-5",)),
}
RAGGED: tuple[tuple[str, tuple[int, int], tuple[int, int]], ...] = (
    ("rows", (1, 128), (7, 130)),
    ("rows-of-one", (1, 128), (5, 1)),
    ("one-less", (1, 128), (9, 127)),
    ("one-more", (1, 128), (9, 129)),
    ("squares", (128, 128), (192, 576)),
    ("squares-both", (128, 128), (130, 129)),
    ("one-number", (128, 128), (1, 1)),
    ("columns", (128, 1), (130, 6)),
    ("columns-of-one", (128, 1), (1, 9)),
    ("small-rows", (1, 32), (5, 33)),
    ("small-columns", (32, 1), (65, 3)),
    ("numbers", (1, 1), (6, 7)),
    ("oblong", (2, 3), (7, 11)),
    ("no-row", (1, 128), (0, 256)),
)


def quantize(slug: str, make: Make, clauses: tuple[str, ...], size: tuple[int, int] = WIDE, **how: Any) -> Case:  # noqa: ANN401
    """One case of quantize; `how` holds config fields and fields of Case."""
    title, (fields, cfg) = f"quantize-{slug}", told(how, **OPERANDS)

    def build() -> Tensors:
        return {"x": make(Draw(title), Frame(*size, tuple(cfg["block"]), cfg["format"]))}

    said: dict[str, Any] = {"profiles": ("fp8",), **fields}
    return Case(title, "quantize", cfg, build, clauses, **said)


def quantized() -> Iterator[Case]:
    """All families in E4M3 with both kinds of scales, most in other formats, and blocks of every shape."""
    for kind in ("float32", "ue8m0"):
        rounding = ("QNT-3",) if kind == "ue8m0" else ()
        for slug, (make, clauses) in FAMILIES.items():
            both = tuple(dict.fromkeys((*clauses, *rounding)))
            yield quantize(f"{kind}-{slug}", make, both, scale_format=kind)
            yield quantize(f"{kind}-squares-{slug}", make, both, (256, 512), scale_format=kind, block=(128, 128))
        for name in ("e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e5m6"):
            about = ("QNT-9",) if name == "e5m6" else ("FMT-2",)
            for slug in ("blocks-apart", "ends-of-scales", "ties", "tiny", "odd"):
                make, clauses = FAMILIES[slug]
                block = (1, 32) if name == "e2m1" else (1, 128)
                yield quantize(
                    f"{name}-{kind}-{slug}", make, (*clauses, *about), scale_format=kind, format=name, block=block
                )
        for slug, block, size in RAGGED:
            yield quantize(
                f"{kind}-ragged-{slug}", matrices.blocks_apart, ("QNT-1",), size, scale_format=kind, block=block
            )
    yield quantize("strided", matrices.blocks_apart, ("MOE-8",), (40, 200), manner="strided")
    yield quantize("again", matrices.blocks_apart, ("MOE-8",), (40, 200), manner="again")
    yield quantize("e2m1-strided", matrices.blocks_apart, ("MOE-8",), (40, 200), manner="strided", **FP4)
    yield quantize("e2m1-again", matrices.blocks_apart, ("MOE-8",), (40, 200), manner="again", **FP4)


FP4: dict[str, Any] = {"format": "e2m1", "block": (1, 32), "scale_format": "ue8m0"}
POWERS: dict[str, Any] = {"scale_format": "ue8m0"}
SQUARE: dict[str, Any] = {"a_block": (128, 128), "b_block": (128, 128)}
ROWS: dict[str, Any] = {"a_block": (1, 128), "b_block": (1, 128)}
Spoil = Callable[[Draw, Tensors, dict[str, Any]], None]
Scale = Callable[[Draw, tuple[int, int], int, int], Tensor]


def nan_codes(draw: Draw, t: Tensors, cfg: dict[str, Any]) -> None:
    """Some codes are NaN, and some scales."""
    codes = t["codes"].view(np.uint8)
    codes[draw.integers(*codes.shape, bits=10) == 0] = GRIDS[cfg["a_format"]].nan or 0
    t["scale"] = np.where(draw.integers(*t["scale"].shape, bits=5) == 0, np.float32(np.nan), t["scale"])


def zero_blocks(draw: Draw, t: Tensors, _: dict[str, Any]) -> None:
    """Half of all rows are zeros, and so are the first columns."""
    t["codes"].view(np.uint8)[draw.integers(len(t["codes"]), bits=1) == 0] = 0
    t["codes"].view(np.uint8)[:, :40] = 0


def in_bytes(_: Draw, t: Tensors, __: dict[str, Any]) -> None:
    """Scales come in as E8M0."""
    t["scale"] = bytes_of(t["scale"])


def requantize(slug: str, scale: Scale, low: int, high: int, **how: Any) -> Case:  # noqa: ANN401
    """One case of requantize: codes near the largest, and scales of a kind from 2**low to 2**high.

    `how` holds size, config fields, fields of Case, and what to spoil.
    """
    size, spoil = how.pop("size", (160, 200)), how.pop("spoil", None)
    title, (fields, cfg) = f"requantize-{slug}", told(how, a_block=(1, 128), b_block=(128, 1))
    make = whole_codes if spoil is None else any_codes

    def build() -> Tensors:
        draw, name = Draw(title), cfg["a_format"]
        t = {"codes": stored(make(draw, name, *size), name)}
        t["scale"] = scale(draw, grid_of(size, cfg["a_block"]), low, high)
        if spoil:
            spoil(Draw(title + "/spoil"), t, cfg)
        return t

    said: dict[str, Any] = {"clauses": ("QNT-7",), "profiles": ("fp8",), **fields}
    return Case(title, "requantize", cfg, build, **said)


def along_tokens() -> Iterator[Case]:
    """From blocks of 1x128 to blocks along the tokens, as the gradient of weights asks."""
    yield requantize("powers", powers, -3, 3, **POWERS)
    yield requantize("powers-far-apart", powers, -14, 14, **POWERS, note="numbers leave the format's range")
    yield requantize("powers-as-bytes", powers, -3, 3, spoil=in_bytes, **POWERS)
    yield requantize("float32", scales, -3, 3)
    yield requantize("float32-far-apart", scales, -14, 14)
    yield requantize("bytes-to-float32", powers, -3, 3, spoil=in_bytes)
    yield requantize("float32-to-powers", scales, -3, 3, **POWERS, clauses=("QNT-3", "QNT-7"))
    yield requantize("nan", scales, -3, 3, spoil=nan_codes, clauses=("QNT-5", "QNT-7"))
    yield requantize("nan-powers", powers, -3, 3, spoil=nan_codes, **POWERS, clauses=("QNT-5", "QNT-7"))
    yield requantize("zero-blocks", scales, -3, 3, spoil=zero_blocks)
    yield requantize("zero-blocks-powers", powers, -3, 3, spoil=zero_blocks, **POWERS)
    yield requantize("one-row", scales, -3, 3, size=(1, 130))
    yield requantize("tiny", scales, -45, -25, note="every amax is below its floor, or near it")
    yield requantize("strided", powers, -3, 3, **POWERS, clauses=("MOE-8",), manner="strided")
    yield requantize("again", powers, -3, 3, **POWERS, clauses=("MOE-8",), manner="again")
    yield requantize("small-blocks", powers, -3, 3, **POWERS, a_block=(1, 32), b_block=(32, 1))


def between_formats() -> Iterator[Case]:
    """From one format to another, and a checkpoint's weights with scales that are rounded up."""
    yield requantize("checkpoint", scales, -12, -4, size=(320, 256), **SQUARE, **POWERS, clauses=("QNT-3", "QNT-7"))
    yield requantize("checkpoint-ragged", scales, -12, -4, size=(192, 130), **SQUARE, **POWERS)
    yield requantize("same-blocks", scales, -12, -4, size=(192, 130), **SQUARE)
    fnuz: dict[str, Any] = {"a_format": "e4m3", "b_format": "e4m3fnuz"}
    yield requantize("to-fnuz", scales, -12, -4, size=(192, 130), **SQUARE, **fnuz, clauses=("FMT-2", "QNT-7"))
    for kind, made in (("powers", powers), ("float32", scales)):
        how: dict[str, Any] = {"scale_format": "ue8m0" if kind == "powers" else "float32"}
        wide: dict[str, Any] = {"a_format": "e4m3", "b_format": "e5m6", "clauses": ("QNT-7", "QNT-9")}
        yield requantize(f"e4m3-to-e5m6-{kind}", made, -3, 3, **ROWS, **how, **wide)
        wide["a_format"] = "e5m6"
        yield requantize(f"e5m6-{kind}", made, -3, 3, **how, **wide)
        for a, b in (("e5m2", "e4m3"), ("e4m3", "e5m2"), ("e2m1", "e4m3"), ("e4m3", "e2m1")):
            blocks: dict[str, Any] = {
                "a_block": (1, 32 if a == "e2m1" else 128),
                "b_block": (1, 32 if b == "e2m1" else 128),
            }
            yield requantize(f"{a}-to-{b}-{kind}", made, -3, 3, a_format=a, b_format=b, **blocks, **how)


def cases() -> Iterator[Case]:
    """What becomes codes and scales, and what becomes of them."""
    yield from quantized()
    yield from along_tokens()
    yield from between_formats()
