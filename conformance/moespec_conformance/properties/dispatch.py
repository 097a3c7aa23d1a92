"""Dispatch and combine: rows to the experts, and sums back to the tokens."""

import numpy as np

from moespec_conformance.properties.engine.comparing import NOISE, alike, near, shown, tolerances
from moespec_conformance.properties.engine.gradients import drawn
from moespec_conformance.properties.engine.layers import asked, seeded
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial, of_op
from moespec_conformance.properties.engine.renaming import renamed
from moespec_conformance.protocol import Array, Case, Tensors


def back(case: Case, out: Tensors, rows: Array, weight: Array) -> Case:
    """Rows that were dispatched, combined."""
    own = {"row_token": out["row_token"].astype(np.int64), "row_slot": out["row_slot"].astype(np.int64)}
    last = (
        {"topk_idx": case.inputs["topk_idx"]} if case.cfg.weight_position == "before_down" else {"topk_weight": weight}
    )
    return of_op(case, "combine", {"rows": rows, **own, **last})


def combine_undoes_dispatch(ask: Ask, trial: Trial) -> None:
    """DSP-1, DSP-3: with weights of 1, a token comes back as often as it was sent."""
    case, x, ids = trial.case, trial.case.inputs["x"], trial.case.inputs["topk_idx"]
    out = ask(case)
    home = back(case, out, out["rows"].astype(x.dtype), np.ones(ids.shape, np.float32))
    sent = (ids >= 0).sum(axis=-1)[:, None]
    near("combine(dispatch(x))", ask(home)["y"], sent * x.astype(np.float64), tolerances(home)["y"])


def dispatch_is_adjoint(ask: Ask, trial: Trial) -> None:
    """DSP-1, DSP-3: <dispatch(x), r> = <x, combine(r)>, with weights of 1."""
    case, x = trial.case, trial.case.inputs["x"]
    out = ask(case)
    r = drawn(trial, "rows", out["rows"].shape).astype(x.dtype)
    home = back(case, out, r, np.ones(case.inputs["topk_idx"].shape, np.float32))
    ahead = out["rows"].astype(np.float64) * r
    terms = x.astype(np.float64) * ask(home)["y"]
    allowed = (np.abs(x.astype(np.float64)) * tolerances(home)["y"]).sum() + NOISE * np.abs(ahead).sum()
    near("<x, combine(r)>", terms.sum(), ahead.sum(), allowed)


def rows_are_copies(ask: Ask, trial: Trial) -> None:
    """DSP-1, DSP-2: one row for each slot that names an expert, a copy of its token, experts and tokens in order."""
    case, ids, out = trial.case, trial.case.inputs["topk_idx"], ask(trial.case)
    token, slot = out["row_token"].astype(np.int64), out["row_slot"].astype(np.int64)
    named = int((ids >= 0).sum())
    if len(token) != named or len(set(zip(token.tolist(), slot.tolist(), strict=True))) != named:
        raise Broken(f"{named} slots name an expert, and rows are of {list(zip(token, slot, strict=True))}")
    order = list(zip(ids[token, slot].tolist(), token.tolist(), strict=True))
    if any(expert < 0 for expert, _ in order) or order != sorted(order):
        raise Broken(f"rows are of experts and tokens {order}: not in order, or of an empty slot")
    near("expert_count", out["expert_count"], np.bincount(ids[ids >= 0], minlength=case.cfg.n_routed_experts))
    near("rows", out["rows"], case.inputs["x"][token])


def rows_in_any_order(ask: Ask, trial: Trial) -> None:
    """DSP-3: combine asks each row whose it is, so rows may come in any order."""
    case, out = trial.case, ask(trial.case)
    weight = np.abs(drawn(trial, "weight", case.inputs["topk_idx"].shape)).astype(np.float32)
    home = back(case, out, out["rows"].astype(case.inputs["x"].dtype), weight)
    turned = renamed(home, {"N": np.argsort(drawn(trial, "order", out["row_token"].shape), kind="stable")})
    alike(shown(turned, ask(turned)), shown(home, ask(home)), lambda: tolerances(home))


SENT = asked("dispatch")
BOTH = ("dispatch", "combine")

FOUND = (
    Property("dispatch-rows-are-copies", ("DSP-1", "DSP-2"), ("dispatch",), SENT, rows_are_copies),
    Property("combine-undoes-dispatch", ("DSP-1", "DSP-3"), BOTH, SENT, combine_undoes_dispatch),
    Property("combine-is-adjoint-to-dispatch", ("DSP-1", "DSP-3"), BOTH, seeded(SENT), dispatch_is_adjoint),
    Property("combine-rows-in-any-order", ("DSP-3",), BOTH, seeded(SENT), rows_in_any_order),
)
