"""Profiles `recipe-NAME`: each published quantiser bit by bit, in the formats and blocks its authors use it with."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from moespec_conformance.cases.grids import powers, scales
from moespec_conformance.cases.quant import FAMILIES, RAGGED, quantize, requantize
from moespec_conformance.protocol import Case

# of DeepSeek-V3 and its kin
TILE, SQUARE, MX, MX_COLUMN = (1, 128), (128, 128), (1, 32), (32, 1)


class Way(NamedTuple):
    """One way to use a recipe."""

    format: str = "e4m3"
    block: tuple[int, int] = TILE
    scale_format: str = "float32"

    @property
    def slug(self) -> str:
        """A name for ids."""
        return f"{self.format}-{self.block[0]}x{self.block[1]}-{self.scale_format}"


FLOAT32 = (Way(), Way(block=SQUARE))
UE8M0 = (Way(scale_format="ue8m0"), Way(block=SQUARE, scale_format="ue8m0"))
FP4 = Way("e2m1", MX, "ue8m0")
OCP = (Way("e4m3", MX, "ue8m0"), Way("e5m2", MX, "ue8m0"), FP4, Way("e4m3", MX_COLUMN, "ue8m0"))
WAYS = {
    "deepseek-v3": (*FLOAT32, UE8M0[0]),
    "deepseek-v3.1": UE8M0,
    "deepgemm": (*FLOAT32, *UE8M0),  # its E2M1 takes ties toward zero (FMT-1)
    "tilekernels": (*FLOAT32, *UE8M0, FP4),
    "transformer-engine": (*FLOAT32, *UE8M0),
    "torchao": FLOAT32,
    "mx-floor": OCP,
    "mx-rceil": OCP,
    "deepseek-v4-fp4": (FP4, UE8M0[0]),
}
WORDS = {
    "deepseek-v3": "DeepSeek-V3: the quotient of magnitudes as scale, and a division",
    "deepseek-v3.1": "DeepSeek-V3.1: the same with powers of two",
    "deepgemm": "DeepGEMM: one over that scale, and a multiplication",
    "tilekernels": "TileKernels: a multiplication with the other quotient",
    "transformer-engine": "TransformerEngine: no floor, and a scale of 1 for blocks of zeros, NaN or infinity",
    "torchao": "torchao: the scale is one over the factor",
    "mx-floor": "OCP's microscaling formats with the power of two below",
    "mx-rceil": "OCP's microscaling formats with the power of two above",
    "deepseek-v4-fp4": "DeepSeek-V4: E2M1 in blocks of 32",
}
# MFP-6: those whose weight gradients are made from codes, by blocks along the tokens
FROM_CODES = ("deepseek-v3", "deepseek-v3.1", "deepgemm", "tilekernels", "deepseek-v4-fp4")


def profiles() -> tuple[str, ...]:
    """Their profiles."""
    return tuple(f"recipe-{name}" for name in WAYS)


def of(recipe: str) -> Iterator[Case]:
    """The families of one recipe, in all its ways."""
    said: dict[str, Any] = {"recipe": recipe, "kind": "exact", "profiles": (f"recipe-{recipe}",)}
    for way in WAYS[recipe]:
        size = (256, 512) if way.block == SQUARE else (32, 384)
        for slug, (make, clauses) in FAMILIES.items():
            about = tuple(dict.fromkeys((*clauses, "QNT-2", "QNT-4", "CFG-17", "CFG-18")))
            kind = (
                "bounded"
                if slug == "odd" and way.scale_format == "float32" and recipe != "transformer-engine"
                else "exact"
            )
            how: dict[str, Any] = {**said, **way._asdict(), "kind": kind}  # what NaN does, authors leave to hardware
            yield quantize(f"{recipe}-{way.slug}-{slug}", make, about, size, **how)
    first = WAYS[recipe][0]
    for slug, block, size in RAGGED:
        if block == first.block and (first.format != "e2m1" or size[1] % 2 == 0):
            how = {**said, **first._asdict()}
            yield quantize(f"{recipe}-ragged-{slug}", FAMILIES["blocks-apart"][0], ("QNT-1", "QNT-2"), size, **how)
    if recipe in FROM_CODES:
        kind = first.scale_format
        made = scales if kind == "float32" else powers
        yield requantize(f"{recipe}-{kind}", made, -3, 3, scale_format=kind, **said)


def cases() -> Iterator[Case]:
    """All nine recipes."""
    for recipe in WAYS:
        yield from of(recipe)
