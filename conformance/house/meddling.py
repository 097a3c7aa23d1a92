"""The reference with something between it and its caller: bugs that show in how answers hang together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec.signatures import OPS, expected
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.adapters.reference import compute

Tensors = dict[str, Any]
Meddle = Callable[[str, dict[str, Any], Tensors], Tensors]


class Meddled:
    """An adapter whose every answer goes through `answer(op, config, tensors)`."""

    name = "meddled"
    version = "1"
    arithmetic = Reference.arithmetic
    profiles = Reference.profiles

    def __init__(self, answer: Meddle) -> None:
        """Keep what stands between."""
        self.answer = answer

    def __getattr__(self, op: str) -> Callable[..., Tensors]:
        """One method per op."""
        if op not in OPS:
            raise AttributeError(op)
        return lambda config, **tensors: self.answer(op, config, tensors)


def indexed(letters: str, op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Numbers depend on where they stand: thing i of those that letters count is 1 + i / 2 times as large."""
    dims = {name: t.dims for name, t in expected(OPS[op].inputs, MoEConfig.from_dict(config)).items()}
    moved = {name: placed(letters, dims[name], tensor) for name, tensor in tensors.items()}
    return compute(op, config, **moved)


def placed(letters: str, dims: tuple[str, ...], tensor: Any) -> Any:
    """One tensor so; ids, and the mean of things that are counted, stay."""
    if tensor.dtype != np.float32:
        return tensor
    for axis, token in enumerate(dims):
        if token.split("/")[0] in letters:
            place = 1 + np.arange(tensor.shape[axis]) / 2
            return (tensor * place.reshape(-1, *[1] * (tensor.ndim - axis - 1))).astype(np.float32)
    return tensor


def one_sided(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Gradients that are negative go out larger than they are."""
    out = compute(op, config, **tensors)
    return {name: np.where((a < 0) & name.startswith("d"), 2 * a, a) for name, a in out.items()}


def halved(output: str, op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """One output is half of what it should be."""
    out = compute(op, config, **tensors)
    return {**out, output: out[output] / 2} if output in out else out


def raised(output: str, op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """One output has a constant in it."""
    out = compute(op, config, **tensors)
    return {**out, output: out[output] + np.float32(0.5)} if output in out else out


def with_input(name: str, op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """All numbers are half of what they should be, where an input is given."""
    out = compute(op, config, **tensors)
    return {n: a / 2 if a.dtype == np.float32 and name in tensors else a for n, a in out.items()}


def upwards(name: str, op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Negative numbers of one input are taken a little larger than they are."""
    if name not in tensors:
        return compute(op, config, **tensors)
    x = tensors[name]
    return compute(op, config, **{**tensors, name: np.where(x < 0, x * np.float32(0.75), x)})


def last_slot_lost(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Of given ids the last of a token goes nowhere."""
    if "topk_idx" not in tensors:
        return compute(op, config, **tensors)
    ids = tensors["topk_idx"]
    last = np.arange(ids.shape[-1]) == max(ids.shape[-1] - 1, 1)
    return compute(op, config, **{**tensors, "topk_idx": np.where(last, -1, ids)})


def flipped(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Codes of numbers between 1 and 2 have another last bit."""
    out = compute(op, config, **tensors)
    if op != "cast" or out["codes"].shape != tensors["x"].shape:
        return out
    codes, size = out["codes"], np.abs(tensors["x"])
    whole = codes.view(f"u{codes.itemsize}")
    return {"codes": np.where((size > 1) & (size < 2), whole ^ 1, whole).astype(whole.dtype).view(codes.dtype)}


def unsigned(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """What is rounded loses its sign."""
    return compute(op, config, **({"x": np.abs(tensors["x"])} if op == "cast" else tensors))


def one_dropped(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """The last token that found room on an expert has to give it back."""
    out = compute(op, config, **tensors)
    if op != "capacity" or not (out["topk_idx"] >= 0).any():
        return out
    last = tuple(np.argwhere(out["topk_idx"] >= 0)[-1])
    ids, weight = out["topk_idx"].copy(), out["topk_weight"].copy()
    ids[last], weight[last] = -1, 0
    count = np.bincount(ids[ids >= 0], minlength=len(out["expert_count"]))
    return {"topk_idx": ids, "expert_count": count, "topk_weight": weight}


def fewer_groups(op: str, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """One group fewer stands than should."""
    fits = (config["topk_group"] - 1) * config["n_routed_experts"] // config["n_group"] >= config["num_experts_per_tok"]
    kept = config["topk_group"] - (1 if config["topk_group"] > 1 and fits else 0)
    return compute(op, {**config, "topk_group": kept}, **tensors)


NUMBERED = {"tokens": "T", "rows": "NM", "experts": "E", "neurons": "F", "channels": "H", "words": "V", "columns": "C"}
MEDDLERS: dict[str, Meddle] = {
    **{f"indexed-{what}": partial(indexed, letters) for what, letters in NUMBERED.items()},
    "indexed-slots": last_slot_lost,
    "flipped": flipped,
    "unsigned": unsigned,
    **{f"halved-{name}": partial(halved, name) for name in ("rows", "y")},
    **{f"raised-{name}": partial(raised, name) for name in ("y", "dweight", "dup_proj", "dlogits", "x", "bias")},
    "with-row_weight": partial(with_input, "row_weight"),
    **{f"upwards-{name}": partial(upwards, name) for name in ("x", "param")},
    "one-dropped": one_dropped,
    "one-sided": one_sided,
    "fewer-groups": fewer_groups,
}
