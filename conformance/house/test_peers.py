"""Third-party implementations, as released: `pytest -m peers`, with the extra `peers` installed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moespec_conformance import adapters, check
from moespec_conformance.address import Usage
from moespec_conformance.expectations import apply, read, stale
from moespec_conformance.protocol import NotSupported

pytestmark = pytest.mark.peers
HERE = Path(adapters.__file__).parent
ROW = re.compile(r"\| `([\w.-]+)` \|[^|]*\|[^|]*\| (\d+) \| (\d+) \| (\d+) \|")
LAYERS = (HERE / "README.md").read_text("utf-8").partition("\n## ")[0]  # what follows is of FP8
TABLE = {row[1]: tuple(map(int, row.groups()[1:])) for row in ROW.finditer(LAYERS)}
EXPERTS = ("", "/grouped_mm", "/batched_mm")
WITHIN_V3 = ("deepseek-v3", "deepseek-v3.2", "glm-4.5", "kimi-k2")
FLOAT32_ROUTERS = ("deepseek-v2", "deepseek-v3", "deepseek-v3.2")  # of those that are asked in bfloat16
OPS = ("gate", "gate_backward", "expert", "expert_backward", "moe", "moe_backward")
REASONS = re.compile(
    r"no method (dispatch|combine)|no such input: (topk_idx|mask)|no routing replay|best two|multiple of"
    r"|always is a swiglu_limit|routed_scaling_factor is always 1|always share one whole|is the probability itself"
)


def adapter(arg: str) -> Any:
    """Hugging Face's layer of one model."""
    from moespec_conformance.adapters.transformers import Adapter  # noqa: PLC0415

    return Adapter(arg)


@pytest.mark.parametrize("arg", [model + how for model in TABLE for how in EXPERTS if model + how[:1] != "switch/"])
def test_the_verdict_is_the_one_in_the_readme(arg: str) -> None:
    """Passed, failed and not offered as the table says; each failure known by its reason, and none of them gone."""
    model = arg.partition("/")[0]
    file = HERE / "transformers" / "known_failures" / f"{model}.txt"
    known = read(file) if file.exists() else []
    report = check(adapter(arg))
    results = [apply(result, known) for result in report.results]
    assert [(r.case, r.status, r.message) for r in results if r.status not in ("pass", "xfail", "not_supported")] == []
    assert stale(known, results) == []
    assert tuple(report.counts[s] for s in ("pass", "fail", "not_supported")) == TABLE[model]
    reasons = {r.message for r in results if r.status == "not_supported"}
    assert all(REASONS.search(reason) for reason in reasons), reasons
    passed = {(r.op, r.arithmetic) for r in results if r.status == "pass"}
    assert passed >= {(op, "float32") for op in OPS}
    if model in FLOAT32_ROUTERS:
        assert passed >= {(op, "bfloat16") for op in OPS}


@pytest.fixture(scope="module", params=[*WITHIN_V3, "deepseek-v3/grouped_mm"])
def released(request: pytest.FixtureRequest) -> Any:
    """Those whose layer is DeepSeek-V3's."""
    return adapter(request.param)


def test_the_released_router_breaks_ties_its_own_way(released: Any) -> None:
    """ARR-2 is a profile of its own because of this: torch.topk promises no order."""
    report = check(released, "ties")
    assert report.counts == {"fail": 5}
    assert {r.stage for r in report.results} == {"topk_idx"}


def test_the_released_router_refuses_little(released: Any) -> None:
    """Impossible topologies, and a bias that is not finite, are computed silently."""
    wrong = {r.case for r in check(released, "reject").results if r.status == "fail"}
    assert {"reject-too-few-experts-left", "reject-bias-nan", "reject-bias-infinite"} <= wrong


def test_tokens_do_not_disturb_each_other(released: Any) -> None:
    """Within bounds; a token of NaN included."""
    assert check(released, "relation").ok


SOFTMAX = {
    "hidden_size": 1,
    "moe_intermediate_size": 4,
    "n_shared_experts": 1,
    "hidden_act": "silu",
    "n_group": 1,
    "topk_group": 1,
    "group_score": None,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "selection_bias": False,
}
V4 = {**SOFTMAX, "scoring_func": "sqrtsoftplus", "norm_topk_prob": True, "swiglu_limit": 10.0}
IN_GROUPS = {**SOFTMAX, "n_group": 2, "topk_group": 1, "group_score": "max"}


def route(model: str, config: dict[str, Any], *logits: float) -> dict[str, Any]:
    """One token with these logits."""
    config = {**config, "n_routed_experts": len(logits)}
    inputs = {"x": np.ones((1, 1), np.float32), "weight": np.array(logits, np.float32)[:, None]}
    out = adapter(model).gate(config, **inputs)
    given = {"topk_idx": out["topk_idx"], "dtopk_weight": np.array([[1, 2]], np.float32)}
    return {**out, **adapter(model).gate_backward(config, **inputs, **given)}


def test_the_smallest_inputs_of_the_readme_show_what_it_says() -> None:
    """Each deviation that one token shows."""
    assert route("deepseek-v2", {**SOFTMAX, "norm_topk_prob": True}, 0, 0, 0)["topk_weight"].sum() < 0.7
    assert set(route("deepseek-v2", IN_GROUPS, 0, -110, -1, -1)["topk_idx"][0]) == {0, 2}
    assert route("deepseek-v4", {**V4, "norm_topk_prob": False}, 0, 0, 0, 0)["topk_weight"].sum() == 1
    near, far = (route("deepseek-v4", V4, 0, 1, 2, low) for low in (-100, -104))
    assert set(far["topk_idx"][0]) == {1, 2}
    assert np.isfinite(near["dx"]).all()
    assert np.isnan(far["dx"]).all()
    assert np.isnan(far["dweight"]).ravel().tolist() == [False, False, False, True]


def test_what_a_release_has_no_place_for_is_refused() -> None:
    """Never computed another way: fields it lacks, and models it does not have."""
    for model, fields in {
        "deepseek-v2": {"scoring_func": "sigmoid"},
        "deepseek-v3": {"scoring_func": "softmax"},
        "deepseek-v4": {"n_group": 2, "topk_group": 1, "group_score": "max"},
        "mixtral": {"norm_topk_prob": True, "routed_scaling_factor": 2.0},
        "switch": {"num_experts_per_tok": 2},
    }.items():
        with pytest.raises(NotSupported, match="is always"):
            route(model, {**SOFTMAX, **fields}, 0, 1, 2, 3)
    with pytest.raises(NotSupported, match="one logit"):
        route("deepseek-v4", {**V4, "scoring_func": "softmax"}, 0, 1, 2, 3)
    for arg in ("grok-1", "switch/grouped_mm"):
        with pytest.raises(Usage, match="choose one of"):
            adapter(arg)


def test_capacity_is_a_number_of_tokens_in_switch() -> None:
    """Four tokens want one expert that has room for two: the later two go nowhere, and their output is 0."""
    config = {**SOFTMAX, "n_routed_experts": 2, "n_shared_experts": 0, "num_experts_per_tok": 1, "gated": False}
    config |= {"hidden_act": "relu", "capacity_factor": 1.0, "drop_policy": "position"}
    ones = {name: np.ones(shape, np.float32) for name, shape in {"x": (4, 1), "up_proj": (2, 4, 1)}.items()}
    layer = {**ones, "down_proj": np.ones((2, 1, 4), np.float32), "gate_weight": np.array([[0], [1]], np.float32)}
    out = adapter("switch").moe(config, **layer)
    assert out["topk_idx"].ravel().tolist() == [1, 1, 1, 1]  # what was chosen, before the drop (MOE-10)
    assert (out["y"].ravel() != 0).tolist() == [True, True, False, False]
