"""Counted: the reference's own lines say what they cost, and closed forms agree (CNT-9)."""

import math
from typing import Any

import numpy as np
import pytest

from moespec import PRESETS
from moespec.ops import RUN
from moespec.weights import main_weights
from moespec_conformance.cases import all_cases
from moespec_conformance.protocol import Case
from moespec_conformance.readings.counted import Counted, Work, by_step, counting, floor, plain

MODELS = ("", "deepseek-v4-flash-", "kimi-k2-", "mixtral-8x7b-")
MAPPED = "arrays.mapped"  # rows by an expert's matrix: in a forward alone
LAYERS = [f"{op}-{model}generated" for op in ("moe", "moe-backward") for model in MODELS]


def ledger(case: Case, inputs: dict[str, Any] | None = None) -> list[Work]:
    """What a case costs."""
    given = case.inputs if inputs is None else inputs
    lifted = {n: t if t.dtype.kind in "iub" else Counted(t.astype(np.float64)) for n, t in given.items()}
    with counting() as found, np.errstate(all="ignore"):
        out = RUN[case.op](case.cfg, **lifted)
    assert all(isinstance(array, Counted) for name, array in out.items() if name in ("y", "dx"))
    return found


def products(found: list[Work]) -> int:
    """FLOPs of all matrix products."""
    return sum(work.products for work in found)


def routed_rows(case: Case) -> int:
    """How many (token, expert) pairs there are."""
    inputs = {n: t for n, t in case.inputs.items() if n not in ("dy", "topk_idx")}
    with np.errstate(all="ignore"):
        ids = case.inputs["topk_idx"] if "topk_idx" in case.inputs else RUN["moe"](case.cfg, **inputs)["topk_idx"]
    return int((ids >= 0).sum())


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_what_the_closed_form_says(name: str) -> None:
    """The gate's, then three for each row and expert; the backward makes two of each."""
    case = all_cases()[name]
    cfg, tokens = case.cfg, len(case.inputs["x"])
    rows = routed_rows(case) * cfg.moe_intermediate_size + tokens * cfg.shared_width
    forward = 2 * cfg.hidden_size * (tokens * cfg.n_routed_experts + 3 * rows)
    again = 0 if case.op == "moe" else sum(w.products for w in ledger(case) if "forward" in w.step or w.step == MAPPED)
    assert products(ledger(case)) - again == forward * (1 if case.op == "moe" else 2)


@pytest.mark.parametrize("name", LAYERS)
def test_the_values_are_those_of_float64(name: str) -> None:
    """Counting changes nothing."""
    case = all_cases()[name]
    wide = {n: t if t.dtype.kind in "iub" else t.astype(np.float64) for n, t in case.inputs.items()}
    lifted = {n: t if t.dtype.kind in "iub" else Counted(t) for n, t in wide.items()}
    with counting(), np.errstate(all="ignore"):
        counted, straight = RUN[case.op](case.cfg, **lifted), RUN[case.op](case.cfg, **wide)
    for out, want in straight.items():
        assert np.array_equal(plain(counted[out]), want, equal_nan=True), out


def test_a_token_costs_what_its_model_says() -> None:
    """CNT-9: two FLOPs for each number of each matrix of the layer that a token meets."""
    model = PRESETS["tiny"]
    cfg = model.moe
    case = all_cases()["moe-one-token"]
    sizes = {"hidden_size": cfg.hidden_size, "moe_intermediate_size": cfg.moe_intermediate_size}
    assert {**sizes, "n_routed_experts": cfg.n_routed_experts}.items() <= case.cfg.to_dict().items()
    parts = [
        w for w in main_weights(model) if w.part in ("gate", "routed experts", "shared experts") and len(w.shape) > 1
    ]
    layers = model.num_hidden_layers - model.first_k_dense_replace
    assert products(ledger(case)) * layers == 2 * sum(w.activated * math.prod(w.shape) for w in parts)


def test_cost_grows_with_tokens_and_not_with_idle_experts() -> None:
    """Linear over three decades of tokens; experts that nobody chose cost their column of the gate alone."""
    case = all_cases()["moe-ordinary"]
    x = case.inputs["x"]
    counts = (10, 100, 1000, 10000)
    costs = [products(ledger(case, {**case.inputs, "x": np.resize(x, (n, x.shape[1]))})) for n in counts]
    assert [cost / n for cost, n in zip(costs, counts, strict=True)] == [costs[0] / counts[0]] * len(counts)
    gate = by_step(ledger(case))["gate.logits_forward"]
    assert gate.products == 2 * len(x) * case.cfg.n_routed_experts * case.cfg.hidden_size


def test_the_floor_is_the_slower_of_adding_and_moving() -> None:
    """Products at the rate of a GEMM, or of the numbers that they move."""
    found = ledger(all_cases()["moe-generated"])
    assert floor(found, 1e9, math.inf) == pytest.approx(products(found) / 1e9)
    moved = sum(w.read + w.written for w in found if w.products)
    assert floor(found, math.inf, 1e9) == pytest.approx(moved / 1e9)
    assert floor(found, 1e9, 1e9) >= max(floor(found, 1e9, math.inf), floor(found, math.inf, 1e9))
