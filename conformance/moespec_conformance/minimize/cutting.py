"""A case with fewer of one letter: of every tensor that has it those slices stay that are kept.

Ids that name what is kept are renumbered; where somebody names what is gone, there is no such case. Blocks of FP8 stay
what they are: an element may only go if the others still share their scales and bytes with none but whom they did.
"""

import re
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec.shapes import per_byte, width
from moespec.signatures import OPS, expected
from moespec_conformance.minimize.search import varied
from moespec_conformance.protocol import Array, Case

SIZES = {"H": "hidden_size", "F": "moe_intermediate_size", "E": "n_routed_experts", "K": "num_experts_per_tok"}
# whose indices a tensor holds
IDS = {"topk_idx": "E", "tid2eid": "E", "group_index": "E", "token_ids": "V", "target": "V"}
ROWS_OF = {"T": "row_token", "W": "row_slot"}  # rows go with what they are of
NAMES = {**IDS, **{name: letter for letter, name in ROWS_OF.items()}}


def without(case: Case, letter: str, kept: list[int], **changed: Any) -> Case | None:  # noqa: ANN401 - config values
    """The case with these indices of a letter alone, and other changes of its config; None if there is none such."""
    rows = case.inputs.get(ROWS_OF.get(letter, ""))
    if rows is not None:
        case = without(case, "N", np.flatnonzero(np.isin(rows, [-1, *kept])).tolist()) or case
    size = {SIZES[letter]: len(kept)} if letter in SIZES else {}
    config = {**case.config, **size, **changed}
    try:
        wanted = expected(OPS[case.op].inputs, MoEConfig.from_dict(config))
        return varied(case, config, {name: cut(case, name, letter, kept) for name in case.inputs if name in wanted})
    except ValueError:
        return None


def cut(case: Case, name: str, letter: str, kept: list[int]) -> Array:
    """One of its tensors; a ValueError if it cannot be cut so."""
    tensor = case.inputs[name]
    for axis, token in enumerate(expected(OPS[case.op].inputs, case.cfg)[name].dims):
        indices = slices(case.cfg, token, letter, kept)
        tensor = tensor if indices is None else tensor.take(indices, axis=axis)
    return renumbered(tensor, kept) if NAMES.get(name) == letter else tensor


def slices(cfg: MoEConfig, token: str, letter: str, kept: list[int]) -> list[int] | None:
    """What stays along an axis; None if the letter is none of it."""
    base = letter_of(token)
    if base == "SF" and letter == "F":  # a column of every shared expert
        kept = [s * cfg.moe_intermediate_size + f for s in range(cfg.n_shared_experts) for f in kept]
    elif base != letter:
        return None
    together = width(token, cfg) if "/" in token else per_byte(token, cfg)
    return kept if together == 1 else shared_by(kept, together, whole="/" not in token)


def letter_of(token: str) -> str:
    """The letter of `C:a` and `M/a0`."""
    return re.split("[:/]", token)[0]


def shared_by(kept: list[int], size: int, *, whole: bool) -> list[int]:
    """The scales, or bytes, of what is kept; a ValueError if one would be shared anew, or a byte not be full."""
    held = [kept[start : start + size] for start in range(0, len(kept), size)]
    old = [{index // size for index in new} for new in held]
    if any(len(places) != 1 for places in old) or (whole and any(len(new) != size for new in held)):
        raise ValueError("other blocks")
    return [places.pop() for places in old]


def renumbered(ids: Array, kept: list[int]) -> Array:
    """Ids by their new numbers, -1 as it is; a ValueError if one is gone."""
    if not np.isin(ids, [-1, *kept]).all():
        raise ValueError("named")
    new = np.full(max(kept) + 2, -1, ids.dtype)  # the last place is -1's
    new[kept] = np.arange(len(kept))
    return new[ids]
