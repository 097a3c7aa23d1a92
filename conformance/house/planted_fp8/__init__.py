"""An honest implementation of the FP8 ops, honest variants of it, and bugs planted in it, one each."""

from collections.abc import Iterator
from types import ModuleType

from . import (
    accumulating,
    blocks,
    casting,
    decoding,
    grouping,
    layer_backward,
    layer_forward,
    layer_weights,
    layer_wgrad,
    moments,
    multiplying,
    multiplying_bits,
    regrouping,
    scaled,
    scaling,
    variants,
    variants_layer,
    variants_products,
)
from .honest import Fp8

HOMES = (casting, decoding, blocks, scaling, scaled, regrouping)
HOMES += (multiplying, multiplying_bits, accumulating, grouping)
HOMES += (layer_forward, layer_weights, layer_backward, layer_wgrad, moments)
RECIPES = ("deepseek-v3", "deepseek-v3.1", "deepgemm", "tilekernels", "transformer-engine", "torchao")
RECIPES += ("mx-floor", "mx-rceil", "deepseek-v4-fp4")
PROFILES = ("fp8", "fp8-products", "fp8-exact", *(f"recipe-{name}" for name in RECIPES))
PROFILES += ("hopper", "ada", "blackwell", "fp8-layer", "moments")


def held(module: ModuleType) -> Iterator[type[Fp8]]:
    """The implementations that a module defines."""
    for name, made in vars(module).items():
        defined = isinstance(made, type) and made.__module__ == module.__name__
        if defined and issubclass(made, Fp8) and not name.startswith("_"):
            yield made


HONEST = {Fp8: PROFILES} | {
    made: made.profiles for home in (variants, variants_products, variants_layer) for made in held(home)
}
# each bug, the profiles whose cases must kill it, the ops where it can show, and the clauses it breaks
BUGS = {bug: bug.profiles or home.PROFILES for home in HOMES for bug in held(home)}
OPS = {bug: bug.ops or home.OPS for home in HOMES for bug in held(home)}
CLAUSES = {bug: bug.clauses or home.CLAUSES for home in HOMES for bug in held(home)}
