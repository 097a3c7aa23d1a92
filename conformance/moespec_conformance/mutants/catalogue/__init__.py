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
    gate_backward,
    gate_choice,
    gate_scores,
    gate_weight,
    layer,
    layer_refusals,
    layouts,
    mixture,
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
)  # fmt: skip


def gathered() -> dict[str, Mutant]:
    """All of them, in order; a slug stands for one."""
    found = [mutant for family in FAMILIES for mutant in family.FOUND]
    by_slug = {mutant.slug: mutant for mutant in found}
    if len(by_slug) != len(found):
        raise RuntimeError("two mutants share a slug")
    return by_slug


MUTANTS = gathered()
