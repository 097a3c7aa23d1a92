"""A mutant behind the protocol: the reference with that bug, in float32."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from moespec.signatures import OPS
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.address import Usage
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.protocol import Tensors
from moespec_conformance.source import Source, load


class Adapter:
    """`mutant:SLUG`, or several bugs at once: `mutant:SLUG+SLUG`."""

    arithmetic = Reference.arithmetic
    profiles = Reference.profiles
    version = Reference.version

    def __init__(self, name: str) -> None:
        """Load the mutants of these names."""
        self.name = name
        self.source = bugged(name.split("+"))

    def __getattr__(self, op: str) -> Callable[..., Tensors]:
        """One method per op."""
        if op not in OPS:
            raise AttributeError(op)
        return partial(compute, self.source, op)


def bugged(slugs: Sequence[str]) -> Source:
    """The reference with these bugs."""
    if unknown := [slug for slug in slugs if slug not in MUTANTS]:
        raise Usage(f"no mutant {', '.join(unknown)}: see `moespec list mutants`")
    return load([edit for slug in slugs for edit in MUTANTS[slug].edits])


def compute(source: Source, op: str, config: dict[str, Any], **tensors: Any) -> Tensors:  # noqa: ANN401 - arrays
    """Check config and tensors, and run the op, all by this source."""
    with np.errstate(all="ignore"):
        made: Tensors = source.module("ops").run(op, source.config(config), **tensors)
    return made
