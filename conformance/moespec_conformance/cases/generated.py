"""Layers whose experts come from the generator: inputs of a real layer's proportions that cost the corpus no bytes."""

from collections.abc import Iterator
from typing import Any

from moespec_conformance.cases import layer
from moespec_conformance.cases.inputs import Draw
from moespec_conformance.cases.models import MODELS
from moespec_conformance.generator import generate, named
from moespec_conformance.protocol import Case, Tensors

# gradients are as large as weights, and stand in the corpus
SIZES: dict[str, dict[str, Any]] = {
    "moe": {"hidden_size": 128, "moe_intermediate_size": 64, "tokens": 24},
    "moe_backward": {"hidden_size": 32, "moe_intermediate_size": 8, "tokens": 12},
}


def generated(_: Draw, t: Tensors) -> None:
    """Every matrix of every expert, by its name and shape."""
    for name in t:
        if name.endswith("_proj"):
            t[name] = generate(named(name, *t[name].shape))


def cases() -> Iterator[Case]:
    """Every member of the family, forward and backward."""
    for op, clauses in (("moe", layer.FORWARD), ("moe_backward", layer.BACKWARD)):
        for model in MODELS:
            yield layer.one(op, "generated", clauses, generated, model=model, **SIZES[op])
