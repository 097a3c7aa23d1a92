"""What an answer to a drawn question is compared by: bounds from the reference's own lines, nothing tuned.

Two answers that should be equal may each be off by their bound, so they agree within the sum of both. Where a
choice of experts hangs on rounding, a token is left out: the judge's own reading says which choices are beyond doubt.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from moespec.signatures import OPS, expected
from moespec_conformance.judge.near import worst
from moespec_conformance.judge.selection import decisive, members
from moespec_conformance.oracle import Answer, answer, choices
from moespec_conformance.properties.engine.property import Broken
from moespec_conformance.protocol import Array, Case, Tensors
from moespec_conformance.readings.portable import plain
from moespec_conformance.source import Source

UNKEPT = Source()  # the reference; answers to what is drawn are not kept
NOISE = 2.0**-40  # of float64, over some thousands of terms
CHOOSING = ("gate", "moe", "moe_fp8", "capacity")  # ops whose slots stand in an order that is free


class Shown(NamedTuple):
    """An output as it is compared: by expert where slots are free; with its letters."""

    value: Array
    dims: tuple[str, ...]


Answered = dict[str, Shown]


def right(case: Case) -> Answer:
    """The reference's answer, and its bounds."""
    return answer(case, source=UNKEPT)


def shown(case: Case, outputs: Tensors) -> Answered:
    """An answer's outputs."""
    dims = {name: t.dims for name, t in expected(OPS[case.op].outputs, case.cfg).items()}
    made = {name: Shown(out, dims[name]) for name, out in outputs.items()}
    if case.op in CHOOSING and "topk_weight" in outputs:
        ids = outputs["topk_idx"] if "topk_idx" in outputs else case.inputs["topk_idx"]
        made["topk_weight"] = Shown(dense(case, ids, outputs["topk_weight"]), ("T", "E"))
        made["topk_idx"] = Shown(members(ids, case.cfg.n_routed_experts), ("T", "E"))
    return made


def tolerances(case: Case) -> Tensors:
    """How far each number of `shown` may be off.

    Not at all where there is no bound; without limit where it hangs on a choice that rounding may turn.
    """
    want, certain = right(case), sure(case)
    made = {name: want.bounds.get(name, np.zeros(value.shape)) for name, value in want.values.items()}
    if case.op in CHOOSING:
        made["topk_weight"] = dense(case, want.values["topk_idx"], made["topk_weight"])
        made["topk_idx"] = np.zeros(made["topk_weight"].shape)
    if certain.all():
        return made
    return {name: np.where(certain.reshape(-1, *[1] * (e.ndim - 1)), e, np.inf) for name, e in made.items()}


def dense(case: Case, ids: Array, weight: Array) -> Array:
    """Numbers by slot (T, W) as numbers by expert (T, E)."""
    spread = np.zeros((len(ids), case.cfg.n_routed_experts + 1))
    np.put_along_axis(spread, ids.astype(np.int64), weight.astype(np.float64), axis=-1)
    return spread[:, :-1]


def sure(case: Case) -> Array:
    """Which tokens' experts no rounding can change (T,)."""
    chooses = case.op in ("gate", "moe", "moe_fp8") and not {"topk_idx", "tid2eid"} & case.inputs.keys()
    if not chooses:
        return np.ones(len(case.inputs.get("x", ())), np.bool)
    scores, groups = choices.__wrapped__(case)
    pair = None if groups is None else (plain(groups.v), plain(groups.e))
    return decisive((plain(scores.v), plain(scores.e)), pair, case.cfg)


def near(name: str, got: ArrayLike, want: ArrayLike, bound: ArrayLike = 0.0) -> None:
    """No element farther off than its bound; where that is 0, equal."""
    got, wanted = np.asarray(got), np.asarray(want, np.float64)
    if wanted.ndim and got.shape != wanted.shape:
        raise Broken(f"{name} has shape {got.shape}, and should have {wanted.shape}")
    wanted, off = (np.broadcast_to(np.asarray(a, np.float64), got.shape) for a in (wanted, bound))
    ratio, at = worst(got, wanted, off)
    if not ratio <= 1:
        far = f"{ratio:.3g} times what rounding allows" if off[at] else "and must not differ"
        raise Broken(f"{name}{list(at)} is {got[at]:.9g}, and should be {wanted[at]:.9g}: {far}")


def alike(got: Answered, want: Answered, allowed: Callable[[], Tensors]) -> None:
    """Two answers are one, output by output, each of them within its bounds; which are asked for if any bit differs."""
    if got.keys() != want.keys():
        raise Broken(f"{', '.join(sorted(got.keys() ^ want.keys()))} is given for one input and not for the other")
    if all(np.array_equal(got[name].value, want[name].value) for name in got):
        return
    bounds = allowed()
    for name, output in got.items():
        near(name, output.value, want[name].value, 2 * bounds[name])
