"""Every member of the family: gradients by complex step, every reading, and the presets against the cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moespec.activation import clamped, gelu, gelu_slope
from moespec.arrays import softmax, softplus
from moespec.expert import ExpertWeights, hidden_forward
from moespec.ops import RUN
from moespec.presets import PRESETS
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.models import ALIASES, MODELS, WORDS
from moespec_conformance.oracle import answer, bounded, read
from moespec_conformance.protocol import Case
from moespec_conformance.readings import bounded as bounds
from moespec_conformance.readings import portable
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.foreign import Foreign
from moespec_conformance.readings.spread import Spread

STEP, CLOSE = 1e-200, 1e-13
FAMILY = [name for name in MODELS if name != "deepseek-v3"]
NOT_TRAINED = ("bias", "dy", "dtopk_weight", "dscores", "dlogits", "noise")


def gradient_agrees(case: Case, upstream: str, of: str) -> None:
    """The backward of a case against its own forward, in random directions of all that has a gradient."""
    rng, forward = np.random.default_rng(7), case.op.removesuffix("_backward")
    given = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in case.inputs.items()}
    made = RUN[case.op](case.cfg, **given)
    inputs = {n: a for n, a in given.items() if n not in {upstream, "dscores", "dlogits"}}
    moved = [n for n, a in inputs.items() if a.dtype.kind == "f" and n not in NOT_TRAINED]
    gradients = {f"d{n}": made[f"d{n}"] for n in moved}
    directions = {n: rng.standard_normal(inputs[n].shape) for n in moved}
    stepped = {n: a + 1j * STEP * directions[n] if n in moved else a for n, a in inputs.items()}
    out = RUN[forward](case.cfg, **stepped)
    numeric = (out[of] * given[upstream]).sum()
    for extra, trace in (("dscores", "scores"), ("dlogits", "logits")):
        numeric = numeric + (out[trace] * given[extra]).sum() if extra in given else numeric
    products = [gradients[f"d{n}"] * v for n, v in directions.items()]
    scale = sum(float(np.abs(p).sum()) for p in products)
    difference = abs(sum(float(p.sum()) for p in products) - numeric.imag / STEP)
    assert difference <= max(CLOSE, lost(case)) * scale + 1e-300


def lost(case: Case) -> float:
    """NumPy's complex log1p is good to 2^-52 absolutely, so that small softplus have fewer digits than CLOSE asks."""
    if case.cfg.scoring_func != "sqrtsoftplus" or case.op == "expert_backward":
        return 0.0
    x, weight = (
        case.inputs[n].astype(np.float64) for n in ("x", "weight" if "weight" in case.inputs else "gate_weight")
    )
    return float(4 * 2.0**-52 / softplus(x @ weight.T).min(initial=1.0))


# where complex numbers say nothing: the slope has two values, exp overflows, NumPy's log1p has no digit left
BEYOND = ("at-the-limit", "slope-at-zero", "gates-times-256", "v4-flash-logits-minus-80")
BACKWARD = {
    "gate_backward": ("dtopk_weight", "topk_weight"),
    "expert_backward": ("dy", "y"),
    "moe_backward": ("dy", "y"),
}
ASKED = [n for n, c in all_cases().items() if c.op in BACKWARD and c.kind != "reject" and c.arithmetic == "float32"]


@pytest.mark.spec("GATE-2")
@pytest.mark.spec("GATE-14")
@pytest.mark.spec("EXP-5")
@pytest.mark.spec("EXP-6")
@pytest.mark.spec("EXP-7")
@pytest.mark.parametrize("name", ASKED)
def test_every_backward_case_by_complex_step(name: str) -> None:
    """On the very inputs that implementations are asked: extremes, clamps, empty slots, hash layers."""
    case = all_cases()[name]
    if not name.endswith(BEYOND):
        gradient_agrees(case, *BACKWARD[case.op])


@pytest.mark.spec("EXP-5")
def test_at_the_limit_gradients_pass() -> None:
    """Exactly on the limit they pass, one step beyond they do not; the gate has no lower limit."""
    case = all_cases()["expert-backward-deepseek-v4-flash-at-the-limit"]
    gate, up = case.inputs["x"] @ case.inputs["gate_proj"].T, case.inputs["x"] @ case.inputs["up_proj"].T
    seen = {float(abs(v)) for v in (*gate.flat, *up.flat)}
    assert {10.0, float(np.nextafter(np.float32(10), np.float32(11)))} <= seen
    low, mid = clamped(gate, up, case.cfg)
    assert low.max() == 10
    assert low.min() == -40
    assert (mid.max(), mid.min()) == (10, -10)


@pytest.mark.spec("EXP-5")
def test_where_errors_could_turn_a_comparison_either_side_is_legal() -> None:
    """Near the clamp the bound covers a gradient that passes and one that does not; away from it, or on it, not."""
    gate = bounds.fresh(np.array([9.0, 10.0, 10.0, 11.0]), np.array([0.1, 0.1, 0.0, 0.1]), 0.0)
    one = Bounded.lift(np.full(4, 3.0))
    passed = np.where(gate > 10.0, 0, one)
    assert passed.v.tolist() == [3, 3, 3, 0]
    assert passed.e.tolist() == [0, 3, 0, 0]
    assert np.maximum(gate, 10.0).e.tolist() == [0, 0.1, 0, 0.1]
    exact = all_cases()["expert-backward-deepseek-v4-flash-at-the-limit"]
    assert max(bound.max() for bound in answer(exact).bounds.values()) < 0.1  # nothing there is left open


@pytest.mark.parametrize("model", FAMILY)
def test_foreign_arrays_run_every_op_of_a_member(model: str) -> None:
    """The same bits, and nothing asked for that CuPy lacks."""
    Foreign.asked.clear()
    for op in ("gate", "gate-backward", "expert", "expert-backward", "dispatch", "combine", "moe", "moe-backward"):
        case = all_cases()[f"{op}-{model}-ordinary"]
        with np.errstate(over="ignore"):
            plain = RUN[case.op](case.cfg, **case.inputs)
            got = RUN[case.op](case.cfg, **{n: Foreign(a.copy()) for n, a in case.inputs.items()})
        for out, array in got.items():
            assert np.array_equal(array.planes[0], plain[out]), (op, out)


@pytest.mark.parametrize("model", FAMILY)
def test_portable_and_spread_read_every_member(model: str) -> None:
    """The portable values are the others' to float64's rounding; every float output has a variance."""
    for op in ("moe", "moe-backward", "gate", "gate-backward"):
        case = all_cases()[f"{op}-{model}-ordinary"]
        ordinary, again = bounded(case), bounded(case, portable=True)
        spread = read(case, lambda _, a: Spread.lift(a))
        for name, out in ordinary.items():
            if isinstance(out, Bounded):
                np.testing.assert_allclose(portable.plain(again[name].v), out.v, rtol=1e-9, atol=1e-12)
                assert np.isfinite(spread[name].q).all()


@pytest.mark.spec("ARR-7")
@pytest.mark.spec("ARR-8")
def test_functions_stay_within_their_bounds() -> None:
    """Softplus, its root, softmax, gelu and its slope in float32 over the whole range."""
    x = np.linspace(-80, 80, 40_002).astype(np.float32)
    rows = x[:40_000].reshape(-1, 8)
    functions = (softplus, lambda a: np.sqrt(softplus(a)), gelu, lambda a: gelu_slope(a)[1])
    for function in functions:
        read_as, got = function(Bounded.lift(x)), function(x)
        assert (np.abs(got - read_as.v) <= read_as.e).all()
    read_as, got = softmax(Bounded.lift(rows)), softmax(rows)
    assert (np.abs(got - read_as.v) <= read_as.e).all()
    small = softplus(Bounded.lift(x[x < -20]))
    assert (small.e <= 1e-5 * small.v + 1e-37).all()  # below 2^-126 a step may be flushed to 0


def test_portable_functions_are_exact_to_the_last_places() -> None:
    """log1p against NumPy's in units of the last place, tanh in units of 1."""
    x = np.linspace(0, 1, 100_001)
    np.testing.assert_array_max_ulp(portable.log1p(x), np.log1p(x), maxulp=4)
    x = np.linspace(-30, 30, 100_001)
    np.testing.assert_allclose(portable.tanh(x), np.tanh(x), rtol=0, atol=2.0**-51)


ARCHITECTURE = (
    "group_score",
    "scoring_func",
    "norm_topk_prob",
    "routed_scaling_factor",
    "selection_bias",
    "router",
    "choose_by",
    "softmax_over",
    "norm_when_k1",
    "hidden_act",
    "gated",
    "swiglu_limit",
    "weight_position",
    "n_shared_experts",
    "capacity_factor",
    "drop_policy",
)


@pytest.mark.spec("CFG-9")
@pytest.mark.parametrize("profile", WORDS)
def test_cases_ask_about_the_published_models(profile: str) -> None:
    """What a model's cases assume is what its preset says, sizes apart."""
    presets = [PRESETS[profile]] if profile in PRESETS else [p for n, p in PRESETS.items() if n.startswith(profile)]
    assert presets or profile == "gshard"  # GShard's own sizes are not published in full
    asked_as = next(model for model in MODELS if profile in (model, *ALIASES.get(model, ())))
    cfg = all_cases()["gate-ordinary" if asked_as == "deepseek-v3" else f"gate-{asked_as}-ordinary"].cfg
    for preset in presets:
        published: dict[str, Any] = {name: getattr(preset.moe, name) for name in ARCHITECTURE}
        assert published == {name: getattr(cfg, name) for name in ARCHITECTURE}


@pytest.mark.spec("EXP-7")
def test_an_ungated_expert_has_no_gate() -> None:
    """Its cache holds a gate of width zero."""
    case = all_cases()["expert-switch-ordinary"]
    t = case.inputs
    none = np.zeros((0, t["x"].shape[1]), np.float32)
    h, cache = hidden_forward(t["x"], ExpertWeights(none, t["up_proj"], t["down_proj"]), case.cfg)
    assert cache.gate.shape == (len(h), 0)
    assert (h >= 0).all()


@pytest.mark.spec("CFG-9")
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_the_specs_table_of_models_says_what_the_presets_say(name: str) -> None:
    """SPEC.md section 11, cell by cell."""
    text = (Path(__file__).parents[2] / "SPEC.md").read_text(encoding="utf-8")
    (row,) = [
        line for line in text.split("## 11. ")[1].split("## 12. ")[0].splitlines() if line.startswith(f"| `{name}` | ")
    ]
    m, told = PRESETS[name].moe, [cell.strip() for cell in row.strip("|").split("|")]
    groups = "none" if m.n_group == 1 else f"{m.n_group}, {m.topk_group} kept, `{m.group_score}`"
    limit = f", limit {m.swiglu_limit:g}" if m.swiglu_limit else ""
    assert told == [
        f"`{name}`",
        f"{m.n_routed_experts} / {m.num_experts_per_tok}",
        str(m.n_shared_experts),
        f"{m.hidden_size} / {m.moe_intermediate_size}",
        groups,
        f"`{m.scoring_func}`",
        "yes" if m.norm_topk_prob else "no",
        f"{m.routed_scaling_factor:g}",
        "yes" if m.selection_bias else "no",
        f"`{m.hidden_act}`{'' if m.gated else ', no gate'}{limit}",
        f"`{m.weight_position}`",
        f"`{m.drop_policy}`, {m.capacity_factor:g}" if m.drop_policy else "",
    ]
