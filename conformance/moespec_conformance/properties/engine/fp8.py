"""Questions about FP8: formats, recipes and blocks that an implementation says it knows, on small matrices."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from moespec.formats import FORMATS, decode
from moespec.storage import outside, scale_inside
from moespec_conformance.cases.grids import grid_of, powers, scales, stored, whole_codes
from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.cases.recipes import WORDS as RECIPES
from moespec_conformance.properties.engine.configs import Profiles
from moespec_conformance.properties.engine.drawing import HANDS, Config, Hand, edited, picked
from moespec_conformance.properties.engine.property import Trial, question
from moespec_conformance.protocol import Array, Case, Tensors

FORMAT = st.sampled_from(("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e5m6"))
SIDE, PAIRS = st.integers(1, 5), st.integers(1, 4)
POWER = st.integers(-6, 6)
BLOCK = st.sampled_from(((1, 128), (1, 2), (2, 2), (128, 128)))
SCALES, OVERFLOW = st.sampled_from(("float32", "ue8m0")), st.sampled_from(("saturate", "nan"))


def recipes(profiles: Profiles) -> tuple[str, ...]:
    """The recipes that an implementation of these profiles quantises by; DeepSeek-V3's if it names none."""
    return tuple(name for name in RECIPES if f"recipe-{name}" in profiles) or ("deepseek-v3",)


def matrix(draw: st.DrawFn, hand: Hand, rows: int, columns: int, name: str = "x") -> Array:
    """Float32 of any size: each row has a power of two of its own, and one number may be 0, 1 or 16."""
    power = np.array([draw(POWER) for _ in range(rows)]).reshape(-1, 1)
    x = np.asarray(hand.numbers(name, rows, columns) * np.exp2(power), np.float32)
    return edited(x, picked(draw, ("unit", "zero", "large", "twin")), draw(SIDE)) if draw(st.booleans()) else x


@st.composite
def casts(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Numbers to be rounded to a format."""
    del profiles
    config = fp8_config(format=draw(FORMAT), overflow=draw(OVERFLOW))
    return Trial(question("cast", config, {"x": matrix(draw, draw(HANDS), draw(SIDE), 2 * draw(PAIRS))}), {})


def quantising(draw: st.DrawFn, profiles: Profiles, **fixed: Any) -> Config:  # noqa: ANN401 - config values
    """How blocks are quantised: a recipe, a format, a block, a kind of scale."""
    recipe = picked(draw, recipes(profiles))
    said: Config = {"format": draw(FORMAT), "block": list(draw(BLOCK)), "overflow": "saturate"}
    if not recipe.startswith("mx"):
        said["scale_format"] = draw(SCALES)
    return fp8_config(recipe=recipe, **{**said, **fixed})


@st.composite
def blocks(draw: st.DrawFn, profiles: Profiles, fixed: Config) -> Trial:
    """A matrix to be quantised."""
    config = quantising(draw, profiles, **fixed)
    return Trial(question("quantize", config, {"x": matrix(draw, draw(HANDS), draw(SIDE), 2 * draw(PAIRS))}), {})


@st.composite
def coded(draw: st.DrawFn, profiles: Profiles, op: str, fixed: Config | None = None) -> Trial:
    """A matrix that was quantised: any codes of about one size, any scales of its kind."""
    other = {} if op == "dequantize" else {"b_format": draw(FORMAT), "b_block": list(draw(BLOCK))}
    config = quantising(draw, profiles, **other, **(fixed or {}))
    rows, columns = draw(SIDE), 2 * draw(PAIRS)
    return Trial(question(op, config, quantised(draw(HANDS), config, rows, columns, "a")), {})


@st.composite
def lifts(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """A matrix in E2M1, on its way to E4M3 in larger blocks."""
    del profiles
    wide = list(draw(st.sampled_from(((1, 4), (2, 4), (128, 128)))))
    config = fp8_config(a_format="e2m1", a_block=[1, 2], b_format="e4m3", b_block=wide, scale_format="ue8m0")
    return Trial(question("lift_fp4", config, quantised(draw(HANDS), config, draw(SIDE), 2 * draw(PAIRS), "a")), {})


def quantised(hand: Hand, config: Config, rows: int, columns: int, operand: str) -> Tensors:
    """Codes and scales (rows, columns) of an operand, as an op takes them."""
    name, block = config[f"{operand}_format"], config[f"{operand}_block"]
    codes, grid = whole_codes(hand.draw(f"{operand}/codes"), name, rows, columns), grid_of((rows, columns), block)
    make = powers if config["scale_format"] == "ue8m0" else scales
    return {"codes": stored(codes, name), "scale": make(hand.draw(f"{operand}/scale"), grid, -3, 3)}


def values_of(codes: Array, name: str) -> Array:
    """What codes stand for, in float64."""
    return np.asarray(decode(codes, FORMATS[name]).astype(np.float64))


def passed_on(out: Tensors, name: str) -> Tensors:
    """Codes and scales that an op gave, as an op takes them."""
    return {"codes": outside(out["codes"], FORMATS[name]), "scale": np.asarray(out["scale"], np.float32)}


def tile(case: Case, size: int, count: int, side: int) -> Array:
    """The number of each element's block along a side."""
    return np.minimum(np.arange(size) // case.cfg.block[side], max(count - 1, 0))


def spread_over(case: Case, scale: Array, shape: tuple[int, ...]) -> Array:
    """Each element's scale (M, C)."""
    rows, columns = (tile(case, shape[side], scale.shape[side], side) for side in (0, 1))
    each: Array = np.asarray(scale_inside(scale), np.float64)[np.ix_(rows, columns)]
    return each
