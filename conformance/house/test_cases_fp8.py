"""Cases of small formats, quantisers and moments: recipes are told apart, and inputs are what they are said to be."""

import itertools
from typing import Any

import numpy as np
import pytest

from moespec.config import MoEConfig
from moespec.formats import FORMATS, TABLES, rounded
from moespec.ops import run
from moespec.recipes import RECIPES
from moespec_conformance import check
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.adapters.reference import compute
from moespec_conformance.cases import all_cases, grids, matrices, recipes
from moespec_conformance.cases.inputs import Draw, fp8_config
from moespec_conformance.judging import judged
from moespec_conformance.runner import InProcess

# What follows from QNT-2 and QNT-3 with equal formats, blocks and kind of scales. The three DeepSeek recipes are one
# arithmetic, used with other scales, formats and blocks. With powers of two, numbers are exact however they are made,
# and what remains of DeepGEMM and TileKernels are floors: the same 1e-4, but of E2M1, which V3.1 is not asked.
DEEPSEEK = {"deepseek-v3", "deepseek-v3.1", "deepseek-v4-fp4"}
SAME = {
    "deepseek-v3": DEEPSEEK,
    "deepseek-v3.1": DEEPSEEK | {"deepgemm", "tilekernels"},
    "deepseek-v4-fp4": DEEPSEEK | {"tilekernels"},
}
# the scales that its authors use, too: what is left are two that differ by format and block alone
SAME_IN_USE = {"deepseek-v3.1": {"deepseek-v4-fp4"}, "deepseek-v4-fp4": {"deepseek-v3.1"}}


class Other:
    """The reference, with another recipe than it is asked for, and perhaps the scales that go with it."""

    name, version = "other recipe", "1"

    def __init__(self, recipe: str, *, in_use: bool) -> None:
        """Choose the recipe."""
        self.said = {"recipe": recipe} | ({"scale_format": RECIPES[recipe].scale_format} if in_use else {})

    def quantize(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Quantise by the other recipe."""
        return compute("quantize", {**config, **self.said}, **t)

    def requantize(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Requantise by the other recipe."""
        return compute("requantize", {**config, **self.said}, **t)


def conforms(adapter: object, profile: str) -> bool:
    """Whether no case of a profile fails; the first that does is enough."""
    runner = InProcess(adapter)
    asked = [case for case in all_cases().values() if profile in case.profiles]
    return all(judged(case, runner).status == "pass" for case in asked)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_passes_for_another(recipe: str) -> None:
    """Of all quantisers, a recipe's profile passes its own and those that are equal by definition."""
    passed = {other for other in RECIPES if conforms(Other(other, in_use=False), f"recipe-{recipe}")}
    assert passed == SAME.get(recipe, set()) | {recipe}


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_in_use_passes_for_another(recipe: str) -> None:
    """With the scales that authors use, only formats and blocks hold some apart."""
    passed = {other for other in RECIPES if conforms(Other(other, in_use=True), f"recipe-{recipe}")}
    own: set[str] = set() if len({way.scale_format for way in recipes.WAYS[recipe]}) > 1 else {recipe}
    assert passed == SAME_IN_USE.get(recipe, set()) | own


@pytest.mark.parametrize("profile", ["fp8", "moments", *recipes.profiles()])
def test_the_reference_conforms(profile: str) -> None:
    """Every case, with nothing left out."""
    report = check(Reference(), profile)
    assert [(r.case, r.message) for r in report.results if r.status != "pass"] == []
    assert report.claimed


def test_every_recipe_has_cases() -> None:
    """Nine of them."""
    assert set(recipes.WAYS) == set(recipes.WORDS) == set(RECIPES)
    assert set(recipes.FROM_CODES) == {name for name, rule in RECIPES.items() if rule.wgrad_from == "codes"}
    used = {name: {(w.format, w.block, w.scale_format) for w in ways} for name, ways in recipes.WAYS.items()}
    assert all((rule.format, rule.block, rule.scale_format) in used[name] for name, rule in RECIPES.items())


@pytest.mark.parametrize("name", FORMATS)
def test_grids_agree_with_the_reference(name: str) -> None:
    """The suite counts the same numbers out, from three numbers a format."""
    grid, fmt = grids.GRIDS[name], FORMATS[name]
    counted = grids.numbers(grid, np.arange(grid.finite))
    np.testing.assert_array_equal(counted.astype(np.float32), TABLES[fmt][: grid.finite])
    assert (grid.top, grid.bits, grid.nan) == (fmt.largest, fmt.bits, fmt.nan)
    following = TABLES[fmt][grid.finite]
    assert not np.isfinite(following) or following <= 0


@pytest.mark.parametrize(("block", "size"), [((1, 128), (32, 384)), ((128, 128), (256, 512)), ((1, 32), (32, 384))])
def test_families_are_what_they_say(block: tuple[int, int], size: tuple[int, int]) -> None:
    """amax beside top * 2^k on both sides, blocks of zeros, NaN in some blocks but not in all."""
    frame = matrices.Frame(*size, block, "e4m3")

    def amax(make: matrices.Make) -> Any:
        x = np.abs(make(Draw("house"), frame))
        i, j = frame.blocks
        return x.reshape(i, block[0], j, block[1]).max(axis=(1, 3)).ravel()

    ends = amax(matrices.ends_of_scales)
    part, _ = np.frexp(ends)
    beside = ((part - np.float32(0.875)) * 2**24).astype(int)
    assert {-2, -1, 0, 1, 2, 3} <= set(beside.tolist())
    tiny = amax(matrices.tiny)
    assert (tiny == np.float32(1e-4)).any()
    zero = amax(matrices.zeros) == 0
    assert zero.any()
    assert not zero.all()
    odd = amax(matrices.odd)
    assert all(kind(odd).any() for kind in (np.isnan, np.isinf, np.isfinite))


def test_a_moment_decays_if_beta_leaves_it_a_bit() -> None:
    """OPT-3: with 1 - beta of 2^-8 every bfloat16 number becomes less; below that some stay, from half on all do."""
    digits = (1 + np.arange(128) / 128).astype(np.float32)

    def fixed(beta: float) -> int:
        return int(np.sum(rounded(np.float32(beta) * digits, FORMATS["bfloat16"]) == digits))

    assert [fixed(beta) for beta in (0.95, 0.99, 1 - 2.0**-8)] == [0, 0, 0]
    assert 0 < fixed(0.997) < fixed(0.998) < fixed(1 - 2.0**-9)
    assert [fixed(beta) for beta in (1 - 2.0**-9, 0.999)] == [128, 128]


def test_a_second_moment_forgets_a_gradient_that_is_gone() -> None:
    """OPT-3: a gradient of 1 for 100 steps and then of 2^-10; with 0.95 the second moment arrives at its square."""
    cfg = MoEConfig.from_dict(fp8_config())
    t = {name: np.zeros((1, 4), np.float32) for name in ("param", "exp_avg", "exp_avg_sq")}
    sizes = {}
    for step in itertools.count(1):
        grad = np.full((1, 4), 1 if step <= 100 else 2.0**-10, np.float32)
        t = run("adamw", cfg, **t, grad=grad, step=np.asarray(step))
        sizes[step] = float(t["exp_avg_sq"][0, 0])
        if step == 600:
            break
    assert sizes[100] > 0.9
    assert sizes[600] == pytest.approx(2.0**-20, rel=0.1)
    slow = {**fp8_config(), "adam_beta2": 0.999}
    with pytest.raises(ValueError, match=r"^CFG-20"):
        MoEConfig.from_dict(slow)
