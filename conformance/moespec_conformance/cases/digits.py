"""Where little rounding comes before: what a function itself loses shows, and how many digits of an input are used."""

from collections.abc import Iterator

import numpy as np

from moespec_conformance.cases import gate as gates
from moespec_conformance.cases import router
from moespec_conformance.cases.inputs import I64, Draw, one_entry
from moespec_conformance.protocol import Case, Tensors


def cases() -> Iterator[Case]:
    """Exact logits, for scores that are each expert's own; every digit of x and weight; a loss on the logits alone."""
    for model, clause in {"glm-4.5": "ARR-1", "deepseek-v4-flash": "ARR-7"}.items():
        yield gates.forward("logits-exact", (clause, "GATE-2", "GATE-9"), exact_logits, model=model)
    yield gates.forward("every-digit", ("GATE-1",), every_digit, model="glm-4.5", hidden_size=16, kind="spread")
    far = gates.both(every_digit, any_ids)
    yield gates.forward("every-digit", ("GATE-7", "GATE-9"), far, model="glam", hidden_size=16, kind="spread")
    yield router.forward("softmax-over-chosen", "every-digit", every_digit, hidden_size=16, kind="spread")
    few = {"model": "glm-4.5", "n_routed_experts": 8, "hidden_size": 16}
    yield gates.backward("logits-alone", ("GATE-14",), every_digit, also=("dlogits",), edit=nobody, **few)


def exact_logits(draw: Draw, t: Tensors) -> None:
    """Rows of one 1 each pick logits of 16 bits from -64 to 0: nothing is rounded before the score. Ids are given."""
    experts, hidden = t["weight"].shape
    t["x"] = one_entry(draw.integers(len(t["x"]), 1, bits=20) % hidden, hidden)
    t["weight"] = np.asarray(draw.integers(experts, hidden) * -(2.0**-10), np.float32)
    t["topk_idx"] = draw.ids(len(t["x"]), 4, experts)


def every_digit(draw: Draw, t: Tensors) -> None:
    """Inputs of all 24 bits, and so few terms that their sum loses little."""
    for name, size in (("x", 1.0), ("weight", 0.25)):
        t[name] = np.asarray((draw.integers(*t[name].shape, bits=25) - 2.0**24) * (size * 2.0**-23), np.float32)


def any_ids(draw: Draw, t: Tensors) -> None:
    """Two given experts a token, whatever their scores."""
    t["topk_idx"] = draw.ids(len(t["x"]), 2, len(t["weight"]))


def nobody(_: Draw, ids: I64) -> I64:
    """Every slot is empty."""
    return np.full_like(ids, -1)
