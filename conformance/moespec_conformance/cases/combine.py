"""Dispatch and combine: who goes where, empty slots, crowded experts, and back again."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec.dispatch import rows_by_expert
from moespec_conformance.cases.inputs import Draw, config, in_bfloat16, mixed
from moespec_conformance.cases.models import prefix, profiles_of
from moespec_conformance.protocol import Array, Case, Tensors

Ids = Callable[[Draw], Array]


def random(tokens: int = 64, slots: int = 4, experts: int = 16) -> Ids:
    """Distinct experts, in no order."""
    return lambda draw: draw.ids(tokens, slots, experts)


def holes(draw: Draw) -> Array:
    """A third of the slots empty, some tokens and some experts without anything, the last expert in use."""
    ids = draw.ids(64, 4, 16)
    ids = np.where((draw.integers(64, 4, bits=4) < 5) | (ids == 6), -1, ids)  # noqa: PLR2004
    ids[3], ids[60], ids[-1], ids[5] = -1, -1, -1, [15, -1, 0, -1]
    return ids


def some_empty(tokens: int, slots: int, experts: int) -> Ids:
    """A third of the slots empty, the first token without any expert."""

    def made(draw: Draw) -> Array:
        ids = draw.ids(tokens, slots, experts)
        ids = np.where(draw.integers(tokens, slots, bits=4) < 5, -1, ids)  # noqa: PLR2004
        ids[:1] = -1
        return ids

    return made


def crowd(tokens: int) -> Ids:
    """Every token on expert 3, and on one other that is never 0 or 15."""
    return lambda draw: np.stack([np.full(tokens, 3), 4 + draw.integers(tokens, bits=3)], axis=-1)


def none(_: Draw) -> Array:
    """No token goes anywhere."""
    return np.full((8, 4), -1)


def dispatch(slug: str, ids: Ids, **how: Any) -> Case:  # noqa: ANN401
    """One case of op dispatch."""
    fields: dict[str, Any] = {k: how.pop(k) for k in ("manner", "arithmetic") if k in how}
    model = how.pop("model", "deepseek-v3")
    fields.setdefault("profiles", profiles_of(model))
    name, cfg = f"dispatch-{prefix(model)}{slug}", config(model, **how)

    def build() -> Tensors:
        draw = Draw(name)
        topk_idx = ids(draw).astype(np.int64)
        t: Tensors = {"x": draw.normal(len(topk_idx), cfg["hidden_size"]), "topk_idx": topk_idx}
        return in_bfloat16(t) if fields.get("arithmetic") == "bfloat16" else t

    return Case(name, "dispatch", cfg, build, ("DSP-1", "DSP-2", "ARR-6"), "exact", **fields)


def combine(slug: str, ids: Ids, edit: Callable[[Draw, Tensors], None] | None = None, **how: Any) -> Case:  # noqa: ANN401
    """One case of op combine: rows of some dispatch, with weights; `edit` changes them."""
    fields: dict[str, Any] = {k: how.pop(k) for k in ("kind", "manner", "arithmetic", "profiles") if k in how}
    model = how.pop("model", "deepseek-v3")
    fields.setdefault("profiles", profiles_of(model))
    name, cfg = f"combine-{prefix(model)}{slug}", config(model, **how)

    def build() -> Tensors:
        draw = Draw(name)
        topk_idx = ids(draw).astype(np.int64)
        token, slot = rows_by_expert(topk_idx, cfg["n_routed_experts"])[:2]
        t: Tensors = {"rows": draw.normal(len(token), cfg["hidden_size"]), "row_token": token, "row_slot": slot}
        t["topk_weight"] = np.abs(draw.normal(*topk_idx.shape)) * (topk_idx >= 0)
        if edit:
            edit(draw, t)
        if cfg["weight_position"] == "before_down":  # the weights are in the rows already
            t["topk_idx"] = topk_idx
            del t["topk_weight"]
        return in_bfloat16(t) if fields.get("arithmetic") == "bfloat16" else t

    return Case(name, "combine", cfg, build, ("DSP-3",), **fields)


def signed(draw: Draw, t: Tensors) -> None:
    """Weights of both signs, some of them 0 and some tiny."""
    weight = draw.normal(*t["topk_weight"].shape)
    weight[::3] *= np.float32(2.0**-14)
    weight[::5] = 0
    t["topk_weight"] = weight


def magnitudes(draw: Draw, t: Tensors) -> None:
    """Every row has a size of its own."""
    t["rows"] = mixed(draw, t["rows"], -12, 12)


def stray(draw: Draw, t: Tensors) -> None:
    """A weight in every slot: without a row it adds nothing."""
    t["topk_weight"] = np.abs(draw.normal(*t["topk_weight"].shape))


def padded(_: Draw, t: Tensors) -> None:
    """Padding rows between the others, of token and slot -1; what they hold must not matter."""
    at = np.arange(0, len(t["row_token"]), 7)
    t["rows"] = np.insert(t["rows"], at, 7, axis=0)
    t["row_token"], t["row_slot"] = (np.insert(t[name], at, -1) for name in ("row_token", "row_slot"))


def shuffled(draw: Draw, t: Tensors) -> None:
    """Rows in no order: only row_token and row_slot say whose they are."""
    order = np.argsort(draw.integers(len(t["row_token"]), bits=63), kind="stable")
    for name in ("rows", "row_token", "row_slot"):
        t[name] = t[name][order]


def dyadic(draw: Draw, t: Tensors) -> None:
    """Every order of the sum gives the same bits."""
    t["rows"] = draw.dyadic(*t["rows"].shape)
    t["topk_weight"] = draw.dyadic(*t["topk_weight"].shape, shift=2)


def cases() -> Iterator[Case]:
    """Every case of dispatch and combine."""
    yield dispatch("ordinary", random())
    yield dispatch("bfloat16", random(), arithmetic="bfloat16")
    yield dispatch("holes", holes)
    yield dispatch("nothing", none)
    yield dispatch("no-token", random(0))
    yield dispatch("one-token", random(1))
    yield dispatch("one-slot", random(64, 1))
    yield dispatch("ten-slots", random(64, 10))
    yield dispatch("experts-384", random(64, 8, 384), n_routed_experts=384, n_group=1, topk_group=1)
    for tokens in (127, 128, 129, 256, 300):
        yield dispatch(f"crowd-{tokens}", crowd(tokens))
    yield dispatch("strided", random(), manner="strided")
    yield dispatch("again", holes, manner="again")

    yield combine("ordinary", random(40), kind="spread")
    yield combine("bfloat16", random(40), arithmetic="bfloat16")
    yield combine("magnitudes", random(40), magnitudes, kind="spread")
    yield combine("signed", random(40), signed)
    yield combine("holes", holes)
    yield combine("nothing", none)
    yield combine("no-token", random(0))
    yield combine("one-slot", random(64, 1))
    yield combine("ten-slots", random(64, 10), kind="spread")
    yield combine("padded", holes, padded, profiles=("variable-routing",))
    yield combine("padded-last-token", random(40), padded, profiles=("variable-routing",))
    yield combine("holes-with-weights", holes, stray, profiles=("variable-routing",))
    yield combine("shuffled", holes, shuffled)
    yield combine("dyadic", random(40), dyadic, kind="exact")
    yield combine("dyadic-bfloat16", random(40), dyadic, kind="exact", arithmetic="bfloat16")
    yield combine("crowd-300", crowd(300))
    yield combine("strided", random(40), manner="strided")
    yield combine("again", holes, manner="again")
