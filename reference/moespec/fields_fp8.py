"""The config fields of FP8 and FP4, and of the optimiser: neutral values, legal values, agreement (SPEC: CFG)."""

from collections.abc import Mapping
from typing import Any

from moespec.formats import FORMATS
from moespec.recipes import RECIPES

# CFG-9: DeepSeek-V3's, so that only what differs from it need be said
FP8_NEUTRAL: dict[str, Any] = {
    "recipe": "deepseek-v3",
    "format": "e4m3",
    "a_format": "e4m3",
    "b_format": "e4m3",
    "block": (1, 128),
    "a_block": (1, 128),
    "b_block": (128, 128),
    "scale_format": "float32",
    "overflow": "saturate",
    "accumulate": "promoted",
    "promote_every": 128,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "learning_rate": 2.2e-4,
    "weight_decay": 0.1,
    "moment_format": "bfloat16",
}
FORMAT_WORDS = tuple(FORMATS)
FP8_WORDS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "recipe": ("CFG-17", tuple(RECIPES)),
    "format": ("CFG-17", FORMAT_WORDS),
    "a_format": ("CFG-17", FORMAT_WORDS),
    "b_format": ("CFG-17", FORMAT_WORDS),
    "scale_format": ("CFG-17", ("float32", "ue8m0")),
    "overflow": ("CFG-17", ("saturate", "nan")),
    "accumulate": ("CFG-19", ("exact", "float32", "promoted", "hopper", "ada", "blackwell")),
    "moment_format": ("CFG-20", ("float32", "bfloat16")),
}
UNITS = ("hopper", "ada", "blackwell")  # kinds of tensor core
UNIT_FORMATS = ("e4m3", "e5m2")
BLOCKS = ("block", "a_block", "b_block")
LIST: tuple[type[Any], ...] = (list,)  # what JSON makes of a block
PAIR: tuple[type[Any], ...] = (tuple,)
SHORT = {"format": ("a_format", "b_format"), "block": ("a_block", "b_block")}
OF_RECIPE = (*SHORT, "a_format", "b_format", "a_block", "b_block", "scale_format")


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """CFG-18: what a config leaves out: first what its short forms say, then its recipe, then the neutral values."""
    said = {name: tuple(value) if isinstance(value, LIST) else value for name, value in given.items()}
    for short, both in SHORT.items():
        if short in said:
            said = {**dict.fromkeys(both, said[short]), **said}
    recipe = RECIPES.get(str(said.get("recipe", FP8_NEUTRAL["recipe"])))
    named = {name: getattr(recipe, name) for name in OF_RECIPE} if recipe else {}
    return {**FP8_NEUTRAL, **named, **said}


def abridged(full: Mapping[str, Any]) -> dict[str, Any]:
    """CFG-18: a whole config without what `completed` would give back to it."""
    said = dict(full)
    for name in OF_RECIPE:
        without = {key: value for key, value in said.items() if key != name}
        said = without if completed(without) == full else said
    return said


def wrong_block(block: Any) -> bool:  # noqa: ANN401 - whatever a mapping holds
    """CFG-18: a block is two whole numbers of at least 1, rows and columns."""
    return not isinstance(block, PAIR) or [type(size) for size in block] != [int, int] or min(block) < 1


def misfits(cfg: Mapping[str, Any]) -> str:
    """CFG-19: why these fields do not go together, if so: units, scales, promotion, and widths of blocks."""
    rule, every = cfg["accumulate"], cfg["promote_every"]
    known = (*UNIT_FORMATS, "e2m1") if rule == "blackwell" else UNIT_FORMATS
    strange = [cfg[name] for name in ("a_format", "b_format") if cfg[name] not in known]
    if rule in UNITS and strange:
        return f"CFG-19: a {rule} unit multiplies {', '.join(known)}, not {strange[0]}"
    if cfg["recipe"] in {"mx-floor", "mx-rceil"} and cfg["scale_format"] != "ue8m0":
        return f"CFG-19: the scales of {cfg['recipe']} are ue8m0"
    if rule == "promoted" and not every:
        return "CFG-19: promoted without promote_every"
    widths = [width for width in (every, cfg["a_block"][1], cfg["b_block"][1]) if width]
    if any(width % min(widths) for width in widths):
        return f"CFG-19: widths {widths} of blocks and promotion are not multiples of the least of them"
    return ""
