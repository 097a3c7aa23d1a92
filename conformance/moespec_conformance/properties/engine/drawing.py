"""Inputs drawn by hypothesis: sizes first, then a seed, then a few edits, so that what is shrunk is small and plain."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st

from moespec.config import MoEConfig
from moespec.signatures import OPS, expected, optional, sizes
from moespec_conformance.cases.inputs import Draw, in_bfloat16
from moespec_conformance.properties.engine.property import Trial, question
from moespec_conformance.protocol import Array, Tensors

Letters = dict[str, int]
Config = dict[str, Any]
Value = TypeVar("Value")
PLACE = st.integers(0, 63)


class Hand(NamedTuple):
    """Where numbers come from: a seed; few digits, so that sums are exact, or many; and how ids are spread."""

    seed: int
    many_digits: bool
    spread: str  # even | alike | holes

    def draw(self, name: str) -> Draw:
        """The stream of one tensor."""
        return Draw(f"{self.seed}/{name}")

    def numbers(self, name: str, *shape: int, shift: int = 0) -> Array:
        """Float32 of about 2^-shift."""
        draw = self.draw(name)
        return draw.normal(*shape, shift=shift) if self.many_digits else draw.dyadic(*shape, shift=shift + 1)

    def below(self, name: str, limit: int, *shape: int) -> Array:
        """Whole numbers from 0 on, below a limit."""
        return self.draw(name).integers(*shape, bits=31) % max(limit, 1)

    def levels(self, name: str, *shape: int) -> Array:
        """Numbers in 0 … 1 of which no two in a row are equal."""
        order = np.argsort(self.draw(name).integers(*shape, bits=63), axis=-1)
        return np.asarray((order + 1) / (shape[-1] + 1), np.float32)

    def ids(self, tokens: int, slots: int, experts: int) -> Array:
        """Experts of each token: any; the same of all tokens; or with empty slots."""
        ids = self.draw("topk_idx").ids(tokens, min(slots, experts), experts)
        if self.spread == "alike":
            return np.repeat(ids[:1], tokens, axis=0)
        empty = self.below("holes", 3, *ids.shape) == 0
        return np.where(empty, -1, ids) if self.spread == "holes" else ids


def picked(draw: st.DrawFn, options: Sequence[Value]) -> Value:
    """One of several values that are known only while drawing."""
    return options[draw(PLACE) % len(options)]


def shares(draw: st.DrawFn, config: Config) -> int:
    """How many ranks, or devices, share the experts evenly."""
    return picked(draw, [n for n in range(1, 7) if config["n_routed_experts"] % n == 0])


# strategies are made once: hypothesis takes longer to make one than to draw from it
HANDS = st.builds(Hand, st.integers(0, 255), st.booleans(), st.sampled_from(("even", "alike", "holes")))


# tensors that are not ordinary numbers
MADE: dict[str, Callable[[Hand, Letters], Array]] = {
    "topk_idx": lambda hand, n: hand.ids(n["T"], n["W"], n["E"]),
    "token_ids": lambda hand, n: hand.below("token_ids", n["V"], n["T"]),
    "tid2eid": lambda hand, n: hand.draw("tid2eid").ids(n["V"], n["K"], n["E"]),
    "bias": lambda hand, n: hand.numbers("bias", n["E"], shift=2),
    "token_rank": lambda hand, n: hand.below("token_rank", n["D"], n["T"]),
    "mask": lambda hand, n: hand.below("mask", 3, n["T"]) > 0,
    "seq_ids": lambda hand, n: hand.below("seq_ids", n["T"], n["T"]),
    "expert_count": lambda hand, n: hand.below("expert_count", 5, n["E"]),
    "noise": lambda hand, n: hand.levels("noise", n["T"], n["E"]),
    "protected": lambda hand, n: hand.below("protected", 4, n["T"]) == 0,
    "scores": lambda hand, n: hand.levels("scores", n["T"], n["E"]),
}
INCOMING = ("dy", "dtopk", "dscores", "dlogits", "dloss")
PLAIN = ("x", "rows", "expert_out", "target", "logits")  # of about 1; what is trained is smaller


def filled(op: str, cfg: MoEConfig, hand: Hand, letters: Letters, extra: tuple[str, ...] = ()) -> Tensors:
    """Every tensor that an op must have, and those optional ones that are named."""
    n, made = {"V": 3, "W": cfg.num_experts_per_tok, **letters, **sizes(cfg)}, Tensors()
    for name, tensor in expected(OPS[op].inputs, cfg).items():
        if optional(tensor) and name not in extra:
            continue
        shape = tuple(n[letter] for letter in tensor.dims)
        if name in MADE:
            made[name] = MADE[name](hand, n)
        elif name == "topk_weight":  # by slot, or of all experts
            made[name] = hand.levels(name, *shape)
        elif tensor.holds == "index":
            made[name] = hand.below(name, n["V"], *shape)
        else:
            shift = 0 if name in PLAIN or name.startswith(INCOMING) else 1
            made[name] = hand.numbers(name, *shape, shift=shift)
    return made


EDITS = ("zero", "twin", "unit", "large")


def edited(tensor: Array, kind: str, place: int) -> Array:
    """One slice along the first axis as zeros, or as another slice; or one entry as 1, or as 16."""
    made = tensor.copy()
    if not made.size or not made.ndim:
        return made
    if kind == "zero":
        made[place % len(made)] = 0
    elif kind == "twin":
        made[place % len(made)] = made[0]
    else:
        made.reshape(-1)[place % made.size] = 1 if kind == "unit" else 16
    return made


CHANGES = st.lists(st.tuples(PLACE, st.sampled_from(EDITS), PLACE), max_size=2)


def with_edits(draw: st.DrawFn, tensors: Tensors) -> Tensors:
    """The same tensors with at most two edits of those that hold ordinary numbers."""
    names = [name for name, t in tensors.items() if t.dtype == np.float32 and name not in MADE]
    for which, kind, place in draw(CHANGES) if names else ():
        name = names[which % len(names)]
        tensors = {**tensors, name: edited(tensors[name], kind, place)}
    return tensors


def questions(draw: st.DrawFn, op: str, config: Config, letters: Letters, extra: tuple[str, ...] = ()) -> Trial:
    """An op's question under a config, with these sizes: numbers, then edits."""
    tensors = filled(op, MoEConfig.from_dict(config), draw(HANDS), letters, extra)
    return Trial(question(op, config, with_edits(draw, tensors)), {})


def lowered(trial: Trial, arithmetic: str) -> Trial:
    """The same trial for an implementation that computes in this arithmetic."""
    if arithmetic == "float32":
        return trial
    held = in_bfloat16(trial.case.inputs)
    return trial._replace(case=replace(trial.case, arithmetic=arithmetic, build=lambda: dict(held)))
