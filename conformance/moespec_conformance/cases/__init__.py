"""Every case of the suite, by id. Families of input are one file each; ordinary random numbers hide most bugs."""

from functools import cache

from moespec_conformance.cases import (
    balance,
    capacity,
    combine,
    digits,
    expert,
    family,
    formats,
    gate,
    grouped_products,
    layer,
    layer_fp8,
    layouts,
    lift,
    mixture,
    models,
    norm,
    optim,
    products,
    quant,
    recipes,
    reject,
    reject_fp8,
    reject_products,
    relation,
    router,
    ties,
    units,
)
from moespec_conformance.protocol import Case

PROFILES = {
    **{name: f"the layer of {words}, forward and backward" for name, words in models.WORDS.items()},
    "variants": "values of config fields that no model named here combines",
    "mask": "padding tokens go to no expert",
    "ties": "of equal choices the lower index is taken",
    "variable-routing": "given routings of any width, and padding rows",
    "noisy-topk": "noisy top-k of 2017, and its softmax over the chosen without noise",
    "softmax-over-chosen": "a softmax over the chosen experts' logits",
    "expert-choice": "experts that choose their tokens",
    "hierarchical": "groups of experts, then experts inside them",
    "jacobs-jordan": "the mixture of 1991: a gate that leaves no expert out, and its likelihood",
    "balance": "the losses of load balance with their gradients, and the bias that needs none",
    "capacity": "who finds room on a full expert or device, by every policy, and where the others go",
    "layouts": "rows in aligned segments, in boxes and along a contraction",
    "ranks": "tokens sent to the ranks of their experts and back, and the layer split over ranks",
    "norm-loss": "RMSNorm and cross entropy, forward and backward",
    "fp8": "small formats and blocks with scales: every code, every rounding, and quantisers near their recipe",
    **{f"recipe-{name}": f"the quantiser of {words}, bit by bit" for name, words in recipes.WORDS.items()},
    "fp8-products": "block-scaled products, of two matrices and of many experts, promoted or added in any order",
    "fp8-exact": "the same with exact sums in each stretch, bit by bit",
    **{name: f"block-scaled products as {words} compute them, bit by bit" for name, words in units.WORDS.items()},
    "fp8-layer": "the layer with experts in FP8 and FP4, forward and backward, and what is quantised where",
    "moments": "AdamW with moments in bfloat16 and in float32",
    "reject": "malformed input is refused with a ValueError",
    "relation": "tokens do not depend on each other, nor experts on their numbering, within bounds",
    "batch-invariant": "a token's bits do not depend on its batch",
}

# fewer cases than this, and the corpus has been damaged: a suite that shrinks must not pass
FLOOR = {
    **dict.fromkeys(models.WORDS, 20),
    **dict.fromkeys(models.profiles_of("deepseek-v3"), 200),
    **dict.fromkeys(models.profiles_of("deepseek-moe-16b"), 60),
    **dict.fromkeys(models.profiles_of("mixtral-8x7b"), 60),
    **dict.fromkeys(("deepseek-v2", "deepseek-v4-flash", "grok-1", "switch"), 60),
    "deepseek-v4-pro": 40,
    "variants": 8,
    "mask": 5,
    "ties": 5,
    "variable-routing": 6,
    **dict.fromkeys(("noisy-topk", "softmax-over-chosen", "expert-choice", "hierarchical"), 40),
    "jacobs-jordan": 40,
    "balance": 130,
    "capacity": 110,
    "layouts": 45,
    "ranks": 55,
    "norm-loss": 60,
    "fp8": 250,
    **dict.fromkeys(recipes.profiles(), 25),
    **dict.fromkeys(("recipe-mx-floor", "recipe-mx-rceil", "recipe-transformer-engine"), 45),
    **dict.fromkeys(("recipe-deepgemm", "recipe-tilekernels"), 60),
    "fp8-products": 80,
    "fp8-exact": 50,
    **dict.fromkeys(units.WORDS, 25),
    "fp8-layer": 80,
    "moments": 30,
    "reject": 200,
    "relation": 6,
    "batch-invariant": 3,
}


@cache
def all_cases() -> dict[str, Case]:
    """Every case by id, in order of the ops; ids are unique."""
    families = (
        gate,
        expert,
        combine,
        layer,
        family,
        norm,
        router,
        digits,
        mixture,
        balance,
        capacity,
        ties,
        layouts,
        formats,
        quant,
        lift,
        recipes,
        products,
        grouped_products,
        units,
        layer_fp8,
        optim,
        reject,
        reject_fp8,
        reject_products,
        relation,
    )  # fmt: skip
    cases = [case for family in families for case in family.cases()]
    by_id = {case.id: case for case in cases}
    if len(by_id) != len(cases):
        raise RuntimeError("two cases share an id")
    return by_id
