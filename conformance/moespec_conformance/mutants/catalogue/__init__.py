"""Every mutant, by its slug. Files are families; slugs are never reused."""

from moespec_conformance.mutants.catalogue import (
    activation,
    balance,
    balance_gradient,
    bias_update,
    capacity,
    digits,
    dispatch,
    expert,
    fp8_casts,
    fp8_gradients,
    fp8_layer,
    fp8_products,
    fp8_recipes,
    fp8_refusals,
    fp8_scales,
    fp8_storage,
    fp8_units,
    gate_backward,
    gate_choice,
    gate_scores,
    gate_weight,
    layer,
    layer_refusals,
    layouts,
    mixture,
    moments,
    norm,
    ranks,
    refusals,
    replay,
    routers,
    shared,
)
from moespec_conformance.mutants.mutant import Mutant

FAMILIES = (
    gate_scores,
    gate_choice,
    gate_weight,
    gate_backward,
    replay,
    refusals,
    bias_update,
    routers,
    mixture,
    expert,
    activation,
    layer,
    shared,
    dispatch,
    layouts,
    ranks,
    capacity,
    balance,
    balance_gradient,
    norm,
    digits,
    layer_refusals,
    fp8_casts,
    fp8_storage,
    fp8_scales,
    fp8_recipes,
    fp8_products,
    fp8_units,
    fp8_layer,
    fp8_gradients,
    fp8_refusals,
    moments,
)  # fmt: skip


def gathered() -> dict[str, Mutant]:
    """All of them, in order; a slug stands for one."""
    found = [mutant for family in FAMILIES for mutant in family.FOUND]
    by_slug = {mutant.slug: mutant for mutant in found}
    if len(by_slug) != len(found):
        raise RuntimeError("two mutants share a slug")
    return by_slug


MUTANTS = gathered()
