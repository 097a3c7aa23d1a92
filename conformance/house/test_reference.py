"""The reference: dtypes, edges, and the layer as the sum of its parts."""

from typing import Any

import numpy as np
import pytest

from moespec import PRESETS, ops
from moespec.arrays import FEW, mapped, sigmoid, stable_topk
from moespec.config import MoEConfig
from moespec.count import count
from moespec.gate import gate_forward
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.cases.reject import SHARES
from moespec_conformance.protocol import Case

ORDINARY = [f"{op}-ordinary" for op in ("gate", "gate-backward", "expert", "expert-backward", "moe", "moe-backward")]


def run(case: Case, dtype: Any) -> dict[str, Any]:
    """The op on the case's inputs in a dtype."""
    inputs = {n: a if a.dtype.kind in "iu" else a.astype(dtype) for n, a in case.inputs.items()}
    return ops.run(case.op, case.cfg, **inputs)


@pytest.mark.spec("ARR-4")
@pytest.mark.parametrize("name", [*ORDINARY, "dispatch-holes", "combine-holes", "moe-no-token", "moe-no-shared"])
def test_dtype_in_is_dtype_out(name: str) -> None:
    """float32 gives float32, float64 gives float64, and they agree."""
    case = all_cases()[name]
    single, double = run(case, np.float32), run(case, np.float64)
    for out, more in zip(single.values(), double.values(), strict=True):
        if out.dtype.kind not in "iu":
            assert (out.dtype, more.dtype) == (np.float32, np.float64)
            np.testing.assert_allclose(out, more, rtol=1e-3, atol=1e-4)


@pytest.mark.spec("ARR-1")
def test_sigmoid_is_accurate_on_both_sides() -> None:
    """Small results keep their digits; nothing overflows, and nothing warns."""
    x = np.array([-1e4, -700.0, -50.0, -1e-9, 0.0, 1e-9, 50.0, 1e4])
    want = [0.0, np.exp(-700.0), np.exp(-50.0), 0.5, 0.5, 0.5, 1.0, 1.0]
    np.testing.assert_allclose(sigmoid(x), want, rtol=1e-9)


@pytest.mark.spec("ARR-2")
def test_topk_takes_the_lower_index_of_equals() -> None:
    """Largest first; ties by index."""
    assert stable_topk(np.array([[1.0, 3.0, 3.0, 2.0, 3.0]]), 4).tolist() == [[1, 2, 4, 3]]


@pytest.mark.spec("EXP-1")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, FEW, FEW + 1])
def test_rows_are_mapped_as_columns_or_not_to_the_same(rows: int, dtype: Any) -> None:
    """Few and many rows; on whole numbers every order of a sum is exact."""
    rng = np.random.default_rng(rows)
    x, weight = (rng.integers(-8, 9, size).astype(dtype) for size in ((rows, 5), (3, 5)))
    y = mapped(x, weight)
    assert (y.dtype, y.shape) == (dtype, (rows, 3))
    assert np.array_equal(y, np.einsum("nc,oc->no", x, weight))


@pytest.mark.spec("GATE-4")
def test_negative_choices_do_not_let_dropped_groups_in() -> None:
    """With a bias of -2 everywhere the chosen experts still lie in the two best groups."""
    case = all_cases()["gate-bias-minus-two"]
    ids, _, _ = gate_forward(case.inputs["x"], case.inputs["weight"], case.inputs["bias"], case.cfg)
    assert all(len({i // case.cfg.experts_per_group for i in row}) <= case.cfg.topk_group for row in ids.tolist())


@pytest.mark.spec("GATE-7")
def test_no_score_at_all_gives_no_weight() -> None:
    """0 / (0 + 1e-20) is 0, not NaN."""
    out = ops.run("gate", all_cases()["gate-logits-minus-200"].cfg, **all_cases()["gate-logits-minus-200"].inputs)
    assert np.array_equal(out["topk_weight"], np.zeros_like(out["topk_weight"]))


@pytest.mark.spec("MOE-2")
def test_layer_is_its_parts_bit_for_bit_on_exact_numbers() -> None:
    """gate, dispatch, experts, combine and the shared expert give the layer's y, where every order is exact."""
    case = all_cases()["moe-corridor"]
    t, cfg = case.inputs, case.cfg
    routed = ops.run("gate", cfg, x=t["x"], weight=t["gate_weight"], bias=t["bias"])
    sent = ops.run("dispatch", cfg, x=t["x"], topk_idx=routed["topk_idx"])
    ends = np.cumsum(sent["expert_count"])
    rows = [
        ops.run("expert", cfg, x=part, **{n: t[n][e] for n in ("gate_proj", "up_proj", "down_proj")})["y"]
        for e, part in enumerate(np.split(sent["rows"], ends[:-1]))
    ]
    back = {"row_token": sent["row_token"], "row_slot": sent["row_slot"], "topk_weight": routed["topk_weight"]}
    y = ops.run("combine", cfg, rows=np.concatenate(rows), **back)["y"]
    shared = {n: t[f"shared_{n}"] for n in ("gate_proj", "up_proj", "down_proj")}
    y = y + ops.run("expert", cfg, x=t["x"], **shared)["y"]
    assert np.array_equal(y, ops.run("moe", cfg, **t)["y"])


@pytest.mark.spec("MOE-1")
@pytest.mark.parametrize("name", ["moe-ordinary", "moe-corridor"])
def test_all_forms_of_the_layer_are_one(name: str) -> None:
    """The op part by part, the form with a cache, with given ids, and in place: bit for bit where numbers are exact."""
    from moespec.moe import MoEWeights, moe, moe_forward, moe_given  # noqa: PLC0415

    t, cfg = all_cases()[name].inputs, all_cases()[name].cfg
    weights, parts = MoEWeights(**{n: t[n] for n in MoEWeights._fields}), ops.run("moe", cfg, **t)
    with np.errstate(over="ignore"):
        with_cache, _ = moe_forward(t["x"], weights, t["bias"], cfg)
        given, _ = moe_given(t["x"], weights, parts["topk_idx"], cfg)
        in_place = moe(t["x"], weights, t["bias"], cfg)
    for y in (with_cache, given, in_place):
        assert np.array_equal(y, parts["y"])


@pytest.mark.spec("CFG-10")
def test_config_reads_its_own_mapping() -> None:
    """to_dict and from_dict undo each other; neutral fields may be absent; neither knows more."""
    cfg = PRESETS["deepseek-v3"].moe
    assert MoEConfig.from_dict(cfg.to_dict()) == cfg
    short = {k: v for k, v in cfg.to_dict().items() if k not in ("gated", "swiglu_limit")}
    assert MoEConfig.from_dict(short) == cfg
    with pytest.raises(ValueError, match=r"^CFG-10: missing config fields \['scoring_func'\]"):
        MoEConfig.from_dict({k: v for k, v in cfg.to_dict().items() if k != "scoring_func"})


@pytest.mark.spec("CFG-1")
@pytest.mark.parametrize(
    ("changed", "clause"),
    [
        ({"hidden_size": True}, "CFG-1"),
        ({"hidden_size": 8.0}, "CFG-1"),
        ({"topk_group": 1.5}, "CFG-4"),
        ({"routed_scaling_factor": float("nan")}, "CFG-7"),
        ({"selection_bias": 1}, "CFG-8"),
        ({"gated": 1}, "CFG-8"),
        ({"swiglu_limit": True}, "CFG-13"),
        ({"capacity_factor": float("inf"), "drop_policy": "probs"}, "CFG-14"),
        ({"group_score": 2}, "CFG-6"),
        ({"router": "hierarchical"}, "CFG-6"),
        ({**SHARES, "router": "expert_choice", "softmax_over": "chosen", "capacity_factor": 1.0}, "CFG-12"),
        ({**SHARES, "router": "hierarchical", "softmax_over": "chosen"}, "CFG-12"),
        ({**SHARES, "router": "noisy_topk"}, "CFG-12"),
    ],
)
def test_bad_config_names_its_clause(changed: dict[str, Any], clause: str) -> None:
    """The message begins with the clause."""
    with pytest.raises(ValueError, match=f"^{clause}: "):
        MoEConfig.from_dict({**config(), **changed})


@pytest.mark.parametrize("name", [n for n, c in all_cases().items() if "reject" in c.profiles])
def test_rejections_begin_with_the_clause_of_the_case(name: str) -> None:
    """Bad input names the clause that the case is about."""
    case = all_cases()[name]
    with pytest.raises(ValueError, match=f"^{case.clauses[0]}: "):
        ops.run(case.op, MoEConfig.from_dict(case.config), **case.inputs)


def test_deepseek_v3_has_the_published_number_of_parameters() -> None:
    """671B in all, 37B for a token (with embedding and head): exact sums of the published shapes."""
    parts = count(PRESETS["deepseek-v3"])
    assert parts["all"] == (671_026_419_200, 37_552_297_472)
    assert parts["routed experts"].total == 58 * 256 * 44_040_192
