"""Shapes in letters, and whether an array has one: T, H, and for FP8 also C:a and M/a0 (SPEC: sections 1 and 3)."""

from moespec.config import MoEConfig


def per_byte(token: str, cfg: MoEConfig) -> int:
    """How many codes of `C:a` an element of the array holds: 2 in E2M1 (FMT-5), else 1."""
    operand = token.partition(":")[2]
    named = {"a": cfg.a_format, "b": cfg.b_format, "q": cfg.format}.get(operand)
    return 2 if named == "e2m1" else 1


def width(token: str, cfg: MoEConfig) -> int:
    """`M/a0`: how long a block is along M."""
    side = token.partition("/")[2]  # a0 … q1
    return {"a": cfg.a_block, "b": cfg.b_block, "q": cfg.block}[side[0]][int(side[1])]


def blocks(token: str, size: int, cfg: MoEConfig) -> int:
    """`M/a0`: how many blocks a side of this size has, a ragged one counted."""
    return -(-size // width(token, cfg))


def misfit(dims: tuple[str, ...], shape: tuple[int, ...], letters: dict[str, int], cfg: MoEConfig) -> str | None:
    """Why this shape is not that of these letters, if so; letters without a size yet are bound."""
    if len(shape) != len(dims):
        return f"not ({', '.join(dims)})"
    for token, size in zip(dims, shape, strict=True):
        letter = token.split(":")[0].split("/")[0]
        if "/" in token:
            wanted = blocks(token, letters[letter], cfg)
            if size != wanted:
                return f"not ({', '.join(dims)}) with {wanted} blocks along {letter} = {letters[letter]}"
        elif letters.setdefault(letter, size * per_byte(token, cfg)) != size * per_byte(token, cfg):
            return f"not ({', '.join(dims)}) with {letter} = {letters[letter]}"
    return None
