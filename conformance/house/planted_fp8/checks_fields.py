"""Which FP8 configs the honest implementation refuses."""

import math
from typing import Any

from planted.checks_config import check_config, need
from planted.taking import Config

from .honest_blocks import RECIPES
from .honest_formats import FORMATS

WORDS = {
    "recipe": tuple(RECIPES),
    **dict.fromkeys(("format", "a_format", "b_format"), tuple(FORMATS)),
    "scale_format": ("float32", "ue8m0"),
    "overflow": ("saturate", "nan"),
    "accumulate": ("exact", "float32", "promoted", "hopper", "ada", "blackwell"),
    "moment_format": ("float32", "bfloat16"),
}
BLOCKS = ("block", "a_block", "b_block")
NUMBERS = ("adam_beta1", "adam_beta2", "adam_epsilon", "learning_rate", "weight_decay")
NEEDED = {*WORDS, *BLOCKS, *NUMBERS, "promote_every"}
MULTIPLIES = dict.fromkeys(("hopper", "ada"), ("e4m3", "e5m2")) | {"blackwell": ("e4m3", "e5m2", "e2m1")}


def whole(n: Any, least: int) -> bool:
    """A whole number, and not true."""
    return type(n) is int and n >= least


def check_fields(c: Config) -> None:
    """Known words, blocks with sides, promotion that fits them, decay that bfloat16 can hold."""
    check_config({name: value for name, value in c.items() if name not in NEEDED})
    need(set(c) >= NEEDED, f"fields {sorted(NEEDED - set(c))}")
    for name, legal in WORDS.items():
        need(c[name] in legal, name)
    for name in BLOCKS:
        block = c[name]
        need(isinstance(block, list | tuple) and len(block) == 2 and all(whole(n, 1) for n in block), name)
    need(not c["recipe"].startswith("mx-") or c["scale_format"] == "ue8m0", "MX scales are powers of two")
    check_sums(c)
    check_moments(c)


def check_sums(c: Config) -> None:
    """How products are added."""
    every, rule = c["promote_every"], c["accumulate"]
    need(whole(every, 0) and (every or rule != "promoted"), "promote_every")
    widths = [n for n in (every, c["a_block"][1], c["b_block"][1]) if n]
    need(all(n % min(widths) == 0 for n in widths), "widths of blocks and of promotion")
    known = MULTIPLIES.get(rule, tuple(FORMATS))
    need(c["a_format"] in known and c["b_format"] in known, f"{rule} does not multiply these formats")


def check_moments(c: Config) -> None:
    """The optimiser's numbers."""
    for name in NUMBERS:
        need(type(c[name]) in (int, float) and math.isfinite(c[name]) and c[name] >= 0, name)
    most = 1 - 2**-8 if c["moment_format"] == "bfloat16" else 1
    for beta in (c["adam_beta1"], c["adam_beta2"]):
        need(beta < 1 and beta <= most, "a moment that would never decay")
