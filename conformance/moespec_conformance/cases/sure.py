"""Tokens whose routing is beyond doubt: for cases that judge what comes after the gate."""

from typing import Any

import numpy as np

from moespec_conformance.judge.selection import decisive
from moespec_conformance.oracle import bounded, chosen_by
from moespec_conformance.protocol import Array, Case, Tensors
from moespec_conformance.readings.portable import plain


def sure_tokens(
    cfg: dict[str, Any], tensors: Tensors, tokens: int, weight: str, arithmetic: str
) -> tuple[Tensors, Array]:
    """The first `tokens` tokens of x whose set of experts no rounding can change, and their ids (T,K).

    Decided by the Portable reading, so that every machine keeps the same tokens.
    """
    if "tid2eid" in tensors:  # a table leaves no doubt
        ids = tensors["tid2eid"][tensors["token_ids"]][:tokens]
        return {**tensors, **{name: tensors[name][:tokens].copy() for name in ("x", "token_ids")}}, ids
    inputs = {"x": tensors["x"], "weight": tensors[weight]}
    inputs |= {"bias": tensors["bias"]} if "bias" in tensors else {}
    gate = Case("", "gate", cfg, lambda: {k: v.copy() for k, v in inputs.items()}, (), arithmetic=arithmetic)
    out = bounded(gate, portable=True)
    choice, groups = chosen_by(gate, out)
    pair = None if groups is None else (plain(groups.v), plain(groups.e))
    sure = np.flatnonzero(decisive((plain(choice.v), plain(choice.e)), pair, gate.cfg))[:tokens]
    if len(sure) < tokens:
        raise RuntimeError(f"only {len(sure)} of {tokens} tokens are sure: draw others")
    return {**tensors, "x": tensors["x"][sure].copy()}, out["topk_idx"][sure]
