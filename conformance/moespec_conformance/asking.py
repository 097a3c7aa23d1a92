"""Asking an adapter one question, in its manner: plain, with strided inputs, or again after others."""

import traceback
from contextlib import suppress
from inspect import Parameter, signature
from typing import Any, NamedTuple

import numpy as np

from moespec.signatures import OPS
from moespec_conformance.protocol import Array, Broken, NotSupported, Tensors, by_name, to_numpy

CORE = ("always", "gated", "shared", "shared_gated")  # no method can do without these
UNSIGNED = ("topk_weight", "exp_avg_sq")  # numbers that are not negative
VARIABLE = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)


class Question(NamedTuple):
    """One call: what an adapter receives, and how."""

    op: str
    config: dict[str, Any]
    inputs: Tensors
    manner: str


class Reply(NamedTuple):
    """What came back: outputs, or what happened instead."""

    # answered | unreadable | not_supported | refused | raised | mutated | overwritten | crashed | timeout | usage
    happened: str
    outputs: Any = None
    message: str = ""

    @property
    def brief(self) -> str:
        """The first line of the message, which others wrote and may have left empty."""
        return self.message.partition("\n")[0]


def ask(adapter: Any, question: Question) -> Reply:  # noqa: ANN401 - any object is an adapter
    """Call the adapter; whatever it does becomes a Reply."""
    reason = unsupported(adapter, question)
    if reason:
        return Reply("not_supported", message=reason)
    try:
        if question.manner == "again":
            return ask_again(adapter, question)
        inputs = strided(question.inputs) if question.manner == "strided" else copies(question.inputs)
        return call(adapter, question, inputs)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises is a result
        return raised(error)


def raised(error: Exception) -> Reply:
    """What an exception says: not offered, refused, a write into what was given, or a failure."""
    if isinstance(error, NotSupported):
        return Reply("not_supported", message=str(error))
    if isinstance(error, Broken):
        return Reply(error.happened, message=str(error))
    if isinstance(error, ValueError) and "read-only" in str(error):  # NumPy's words for such a write
        return Reply("mutated", message=f"an input was to be written to: {error}")
    if isinstance(error, ValueError):
        return Reply("refused", message=f"ValueError: {error}")
    where = "".join(traceback.format_exception(error, limit=-3))
    return Reply("raised", message=f"{type(error).__name__}: {error}\n{where}")


def unsupported(adapter: Any, question: Question) -> str | None:  # noqa: ANN401 - any object is an adapter
    """Why the adapter does not offer this, if so: no method, or one that takes too little or needs too much."""
    method = getattr(adapter, question.op, None)
    if method is None:
        return f"no method {question.op}"
    try:
        _, *parameters = signature(method).parameters.values()  # the first is the config
    except (TypeError, ValueError):  # a compiled function that does not say: ask it
        return None
    needed = {p.name for p in parameters if p.default is Parameter.empty and p.kind not in VARIABLE}
    if needed - set(question.inputs):
        return f"{question.op} cannot do without {', '.join(sorted(needed - set(question.inputs)))}"
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        return None
    optional = {t.name for t in OPS[question.op].inputs if t.when not in CORE}
    unnamed = set(question.inputs) & optional - {p.name for p in parameters}
    return f"{question.op} takes no {', '.join(sorted(unnamed))}" if unnamed else None


def call(adapter: Any, question: Question, inputs: Tensors) -> Reply:  # noqa: ANN401 - any object is an adapter
    """One call with inputs that must still be the same afterwards."""
    outputs = getattr(adapter, question.op)(dict(question.config), **inputs)
    if not by_name(outputs):
        return Reply("unreadable", message=f"{question.op} returned {type(outputs).__name__}, not a dict of arrays")
    try:
        outputs = {str(name): to_numpy(array) for name, array in outputs.items()}
    except Exception as error:  # noqa: BLE001 - whatever an array of another library raises
        return Reply("unreadable", message=f"an output is no array: {type(error).__name__}: {error}")
    if odd := [name for name, array in outputs.items() if array.dtype == object]:
        return Reply("unreadable", message=f"{', '.join(odd)} is no array of numbers")
    for name, before in question.inputs.items():
        if inputs[name].tobytes() != before.tobytes():
            return Reply("mutated", message=f"the input {name} was written to")
    return Reply("answered", outputs)


def ask_again(adapter: Any, question: Question) -> Reply:  # noqa: ANN401 - any object is an adapter
    """Four calls: others of the same shapes, these inputs, others amid poisoned memory, these again, which count.

    So nothing may stay of the first call, nor of the last; and the result of the second must survive the others.
    """
    experts = int(question.config["n_routed_experts"])
    others = question._replace(inputs={name: other(name, t, experts) for name, t in question.inputs.items()})
    pass_by(adapter, others)
    first = call(adapter, question, copies(question.inputs))
    if first.happened != "answered" or not by_name(first.outputs):
        return first
    kept = {name: np.array(out) for name, out in first.outputs.items()}
    poison(question.inputs, kept)
    pass_by(adapter, others)
    for name, out in first.outputs.items():
        if out.tobytes() != kept[name].tobytes():
            return Reply("overwritten", message=f"a later call changed {name} of an earlier one")
    poison(question.inputs, kept)
    return call(adapter, question, copies(question.inputs))


def pass_by(adapter: Any, question: Question) -> None:  # noqa: ANN401 - any object is an adapter
    """A call that nobody judges: it may ask for more than an adapter offers, or than an op takes."""
    with suppress(NotSupported, ValueError):
        call(adapter, question, copies(question.inputs))


def copies(inputs: Tensors) -> Tensors:
    """Fresh read-only copies."""
    made = {name: tensor.copy() for name, tensor in inputs.items()}
    for tensor in made.values():
        tensor.flags.writeable = False
    return made


def other(name: str, tensor: Array, experts: int) -> Array:
    """Another input of the same kind: tokens moved by one, numbers negated, ids moved by one expert."""
    if name == "topk_idx":
        return np.where(tensor >= 0, (tensor + 1) % experts, -1)
    if name in ("row_token", "row_slot") or not tensor.ndim or not len(tensor):
        return tensor
    moved = np.roll(tensor, 1, axis=0)
    bits = name.endswith(("codes", "scale")) or tensor.dtype.kind in "iub"
    return moved if bits or name in UNSIGNED else -moved


def poison(*tensors: Tensors) -> None:
    """Leave NaN in memory that the next allocations of these sizes will get."""
    given = [t for group in tensors for t in group.values()]
    blocks = [np.full(t.shape, np.nan, t.dtype) for t in given if t.dtype.kind not in "iu"]
    blocks += [np.full(b.shape, np.nan, np.float32) for b in blocks]
    blocks += [np.full(t.shape, np.iinfo(t.dtype).max, t.dtype) for t in given if t.dtype.kind == "u"]
    del blocks


def strided(inputs: Tensors) -> Tensors:
    """The same numbers, none of them contiguous: every second column of a wider array, or Fortran order."""
    made: Tensors = {}
    for index, (name, tensor) in enumerate(sorted(inputs.items())):
        if not tensor.ndim:
            made[name] = tensor.copy()
        elif tensor.ndim > 1 and index % 2:
            made[name] = np.asfortranarray(tensor)
        else:
            wide = np.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), 7, tensor.dtype)
            wide[..., ::2] = tensor
            made[name] = wide[..., ::2]
        made[name].flags.writeable = False
    return made
