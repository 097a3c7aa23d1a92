"""Honest variants: the reference with what its clauses leave free done otherwise. Nothing may be held against them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from moespec.signatures import OPS
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.edits import Edit
from moespec_conformance.mutants import arithmetics as how
from moespec_conformance.mutants.adapter import compute
from moespec_conformance.protocol import BFLOAT16, Tensors
from moespec_conformance.source import Source, load


class Honest(NamedTuple):
    """A variant: what is done otherwise, by edits or by other arithmetic, and in what it stores."""

    name: str
    says: str
    edits: tuple[Edit, ...] = ()
    instead: dict[str, Any] = {}  # noqa: RUF012 - never written to
    arithmetic: str = "float32"
    without: tuple[str, ...] = ("batch-invariant",)  # profiles that ask for just this


HIGHEST = Edit(
    "arrays.stable_topk",
    'np.argsort(-x, axis=-1, kind="stable")[..., :k]',
    'x.shape[-1] - 1 - np.argsort(-x[..., ::-1], axis=-1, kind="stable")[..., :k]',
)
ONLINE = Edit(
    "arrays.softmax",
    "e = np.exp(x - x.max(axis=-1, keepdims=True))\n    shares: Float = e / e.sum(axis=-1, keepdims=True)",
    "top, low = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]\n"
    "m, n = top.max(axis=-1, keepdims=True, initial=-1e30), x.max(axis=-1, keepdims=True)\n"
    "whole = np.exp(top - m).sum(axis=-1, keepdims=True) * np.exp(m - n)\n"
    "whole = whole + np.exp(low - n).sum(axis=-1, keepdims=True)\n"
    "shares: Float = np.exp(x - n) / whole",
)
DESCENDING = (
    Edit("moe.routed_forward", "routed[t] += y_e", "y_of[e] = (t, y_e)"),
    Edit("moe.routed_forward", "experts: list[WeightedCache] = []", "experts, y_of = [], {}"),
    Edit(
        "moe.routed_forward",
        "return routed, RoutedCache",
        "for t, y_e in reversed(y_of.values()):\n    routed[t] += y_e\nreturn routed, RoutedCache",
    ),
)
STORED = (
    Edit("expert.hidden_forward", "gate = mapped(x, weights.gate_proj)", "gate = bf16(mapped(x, weights.gate_proj))"),
    Edit("expert.hidden_forward", "up = mapped(x, weights.up_proj)", "up = bf16(mapped(x, weights.up_proj))"),
    Edit("expert.hidden_forward", "return opened(gate, up, cfg)", "return bf16(opened(gate, up, cfg))"),
)
H_STORED = STORED[2:]

VARIANTS = (
    Honest("split-k", "every product of matrices in parts of 16 terms", instead=how.instead(how.split)),
    Honest(
        "in-order",
        "every sum one term after the other",
        instead=how.instead(how.forwards, how.forwards_total),
        without=(),
    ),
    Honest("in-reverse", "every sum from its last term on", instead=how.instead(how.backwards, how.backwards_total)),
    Honest("by-tree", "every sum in pairs", instead=how.instead(how.by_tree, how.tree_total)),
    Honest("fused-multiply-add", "products are not rounded", instead=how.instead(how.fused_multiply_add)),
    Honest("float64-products", "products of matrices rounded once", instead=how.instead(how.in_float64)),
    Honest("experts-descending", "a token's experts are added up from the last id on", DESCENDING),
    Honest("online-softmax", "softmax as flash attention does it, in two halves", (ONLINE,)),
    Honest("highest-of-equal", "of equal experts and groups the higher id", (HIGHEST,), without=("ties",)),
    Honest("bfloat16", "bfloat16, stored once: each output", arithmetic="bfloat16"),
    Honest("bfloat16-h", "bfloat16, what enters down_proj stored as well", H_STORED, arithmetic="bfloat16"),
    Honest("bfloat16-every-step", "bfloat16, gate, up and h stored", STORED, arithmetic="bfloat16"),
    Honest(
        "hopper-bf16",
        "bfloat16, products as Hopper's tensor cores add them",
        H_STORED,
        how.instead(how.tensor_core),
        arithmetic="bfloat16",
    ),
)


class Adapter:
    """A variant behind the protocol."""

    version = Reference.version

    def __init__(self, variant: Honest) -> None:
        """Load it."""
        self.name = variant.name
        self.arithmetic = (variant.arithmetic,)
        self.source = load(variant.edits, variant.instead)
        left_out = variant.without
        self.profiles = tuple(name for name in (*Reference.profiles, "batch-invariant") if name not in left_out)

    def __getattr__(self, op: str) -> Callable[..., Tensors]:
        """One method per op."""
        if op not in OPS:
            raise AttributeError(op)
        return partial(compute if self.arithmetic == ("float32",) else rounded, self.source, op)


def rounded(source: Source, op: str, config: dict[str, Any], **tensors: Any) -> Tensors:  # noqa: ANN401 - arrays
    """Numbers of bfloat16 in, computed in float32, and out again in bfloat16, but for what is the router's."""
    held = {name: t.astype(np.float32) if t.dtype == BFLOAT16 else t for name, t in tensors.items()}
    router = {t.name for t in OPS[op].outputs if t.holds != "float"}
    made = compute(source, op, config, **held)
    return {name: a if name in router or a.dtype.kind != "f" else a.astype(BFLOAT16) for name, a in made.items()}
