"""Routers outside DeepSeek's own: gradients by complex step, what they promise, and cases that leave no doubt."""

from typing import Any

import numpy as np
import pytest

from moespec.config import MoEConfig
from moespec.expert_choice import choice_backward, choice_forward
from moespec.hierarchical import TwoLevelWeights, hierarchical_backward, hierarchical_forward
from moespec.mixture import mixture_backward, mixture_forward
from moespec.ops import RUN, run
from moespec.router import NoisyWeights, noisy_backward, noisy_forward
from moespec_conformance.asking import Reply
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.cases.mixture import dense
from moespec_conformance.cases.router import ROUTERS
from moespec_conformance.judge.doubt import sure
from moespec_conformance.judging import verdict
from moespec_conformance.oracle import answer

STEP = 1e-200
CLOSE = 1e-13
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "noisy-topk": {"usual": {}, "one-slot": {"num_experts_per_tok": 1}, "dense": {"num_experts_per_tok": 8}},
    "softmax-over-chosen": {"usual": {}, "one-slot": {"num_experts_per_tok": 1}},
    "expert-choice": {"usual": {}, "half": {"capacity_factor": 0.5}, "all": {"capacity_factor": 4.0}},
    "hierarchical": {
        "usual": {"num_experts_per_tok": 4},
        "one-group": {"n_group": 1, "topk_group": 1},
        "one-slot": {"num_experts_per_tok": 1, "topk_group": 1},
    },
}
EVERY = [(router, shape) for router, shapes in SHAPES.items() for shape in shapes]


def tiny(router: str, **changed: Any) -> MoEConfig:
    """A router small enough to look at."""
    sizes = {"hidden_size": 6, "n_routed_experts": 8, "num_experts_per_tok": 3}
    return MoEConfig.from_dict(config(**{**sizes, **ROUTERS[router], **changed}))


def numbers(cfg: MoEConfig, tokens: int, seed: int = 0) -> dict[str, Any]:
    """What the gate of this router takes, in float64."""
    rng, e, h = np.random.default_rng(seed), cfg.n_routed_experts, cfg.hidden_size
    made = {"x": rng.standard_normal((tokens, h)), "weight": rng.standard_normal((e, h))}
    if cfg.router == "noisy_topk":
        made |= {"noise": rng.standard_normal((tokens, e)), "noise_weight": rng.standard_normal((e, h))}
    if cfg.router == "hierarchical":
        made["group_weight"] = rng.standard_normal((cfg.n_group, h))
    return made


def ids_of(cfg: MoEConfig, given: dict[str, Any], how: str) -> Any:
    """The router's own ids, or others, or others with empty slots."""
    if how == "own":
        return run("gate", cfg, **given)["topk_idx"]
    rng, tokens = np.random.default_rng(1), len(given["x"])
    ids = np.argsort(rng.random((tokens, cfg.n_routed_experts)), axis=-1)[:, : cfg.num_experts_per_tok]
    return np.where(rng.random(ids.shape) < 0.4, -1, ids) if how == "holes" else ids


def directional(function: Any, inputs: dict[str, Any], directions: dict[str, Any]) -> float:
    """d/ds of the sum that function gives of inputs + s directions, by one complex evaluation."""
    moved = {name: inputs[name] + 1j * STEP * directions[name] for name in directions}
    return float(function({**inputs, **moved}).imag / STEP)


def agree(gradients: dict[str, Any], function: Any, inputs: dict[str, Any]) -> None:
    """In three random directions, to 1e-13 of the terms that were added."""
    rng = np.random.default_rng(2)
    for _ in range(3):
        directions = {name[1:]: rng.standard_normal(gradient.shape) for name, gradient in gradients.items()}
        products = [gradient * directions[name[1:]] for name, gradient in gradients.items()]
        numeric = directional(function, inputs, directions)
        scale = 1 + sum(float(np.abs(p).sum()) for p in products)
        assert abs(sum(float(p.sum()) for p in products) - numeric) <= CLOSE * scale


@pytest.mark.spec("ROU-2")
@pytest.mark.spec("ROU-3")
@pytest.mark.spec("ROU-6")
@pytest.mark.spec("ROU-8")
@pytest.mark.parametrize(("router", "shape"), EVERY)
@pytest.mark.parametrize("how", ["own", "drifted", "holes"])
@pytest.mark.parametrize("tokens", [0, 1, 13])
def test_gradients(router: str, shape: str, how: str, tokens: int) -> None:
    """All that is trained, through weights, shares and logits at once."""
    cfg = tiny(router, **SHAPES[router][shape])
    given = numbers(cfg, tokens)
    ids, rng = ids_of(cfg, given, how), np.random.default_rng(3)
    d = {"dtopk_weight": rng.standard_normal(ids.shape)}
    d |= {name: rng.standard_normal((tokens, cfg.n_routed_experts)) for name in ("dscores", "dlogits")}
    made = run("gate_backward", cfg, **given, topk_idx=ids, **d)
    gradients = {"d" + name: made["d" + name] for name in given if name != "noise"}
    assert all(np.isfinite(g).all() for g in gradients.values())

    def total(inputs: dict[str, Any]) -> Any:
        out = RUN["gate"](cfg, **inputs, topk_idx=ids)
        return sum((out[name[1:]] * seed).sum() for name, seed in d.items())

    agree(gradients, total, given)


@pytest.mark.spec("MOE-5")
@pytest.mark.parametrize("router", SHAPES)
def test_a_layer_with_this_router(router: str) -> None:
    """The layer's gradients, those of its router among them."""
    cfg = tiny(router, **SHAPES[router]["usual"], n_shared_experts=0, moe_intermediate_size=5)
    rng, given = np.random.default_rng(7), numbers(cfg, 11)
    given["gate_weight"] = given.pop("weight")
    shapes = {"gate_proj": (8, 5, 6), "up_proj": (8, 5, 6), "down_proj": (8, 6, 5)}
    given |= {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    ids, dy = run("moe", cfg, **given)["topk_idx"], rng.standard_normal((11, 6))
    made = run("moe_backward", cfg, **given, topk_idx=ids, dy=dy)
    gradients = {"d" + name: made["d" + name] for name in given if name != "noise"}
    agree(gradients, lambda inputs: (RUN["moe"](cfg, **inputs, topk_idx=ids)["y"] * dy).sum(), given)


@pytest.mark.parametrize("router", SHAPES)
def test_the_functions_are_what_the_ops_run(router: str) -> None:
    """Forward and backward as functions, bit for bit."""
    cfg = tiny(router, **SHAPES[router]["usual"])
    t = numbers(cfg, 9)
    x, weight, mask = t["x"], t["weight"], np.ones(9, np.bool)
    seed = np.random.default_rng(4)
    found: tuple[Any, ...]
    if router == "expert-choice":
        ids, topk_weight, choice = choice_forward(x, weight, mask, cfg)
        d = seed.standard_normal(ids.shape)
        found = choice_backward(d, choice, weight, cfg)
    elif router == "hierarchical":
        levels = TwoLevelWeights(weight, t["group_weight"])
        ids, topk_weight, cache = hierarchical_forward(x, levels, cfg)
        d = seed.standard_normal(ids.shape)
        dx, dweights = hierarchical_backward(d, cache, levels, cfg)
        found = dx, *dweights
    else:
        noise = NoisyWeights(weight, t.get("noise_weight", np.zeros_like(weight)))
        ids, topk_weight, noisy = noisy_forward(x, noise, t.get("noise", np.zeros((9, 8))), cfg)
        d = seed.standard_normal(ids.shape)
        dx, dnoisy = noisy_backward(d, noisy, noise, cfg)
        found = dx, *dnoisy
    out = run("gate", cfg, **t)
    assert np.array_equal(out["topk_idx"], ids)
    assert np.array_equal(out["topk_weight"], topk_weight)
    made = run("gate_backward", cfg, **t, topk_idx=ids, dtopk_weight=d)
    gradients = [made[name] for name in made if name in {f"d{given}" for given in t}]
    for gradient, by_function in zip(gradients, found, strict=False):
        assert np.array_equal(gradient, by_function)


@pytest.mark.spec("ROU-9")
@pytest.mark.spec("ROU-10")
@pytest.mark.parametrize("tokens", [0, 1, 13])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_mixture_gradients(tokens: int, size: float) -> None:
    """Probabilities and outputs, near and far; experts without weight, and a token without any, have none."""
    rng = np.random.default_rng(5)
    given = {"topk_weight": rng.random((tokens, 5)), "expert_out": size * rng.standard_normal((tokens, 5, 3))}
    target = rng.standard_normal((tokens, 3))
    given["topk_weight"][:, 1] = 0
    given["topk_weight"][1:2] = 0
    _, cache = mixture_forward(given["topk_weight"], given["expert_out"], target)
    dweight, dout = mixture_backward(np.float64(0.7), cache)
    assert not dweight[given["topk_weight"] == 0].any()
    assert not dout[given["topk_weight"] == 0].any()
    stands = (given["topk_weight"] > 0).astype(np.float64)

    def total(inputs: dict[str, Any]) -> Any:
        return mixture_forward(inputs["topk_weight"] * stands, inputs["expert_out"], target)[0] * 0.7

    moved = {"dexpert_out": dout}
    agree(moved, total, given)
    for index in np.ndindex(dweight.shape):  # one by one: a weight of 0 that moves would take part
        if stands[index]:
            direction = np.zeros_like(dweight)
            direction[index] = 1
            numeric = directional(total, given, {"topk_weight": direction})
            assert abs(numeric - dweight[index]) <= CLOSE * (1 + abs(dweight[index]))


@pytest.mark.spec("ROU-10")
def test_mixture_is_what_it_is_on_paper() -> None:
    """The loss where nothing over- or underflows, and responsibilities that sum to one."""
    rng = np.random.default_rng(6)
    p, out, target = rng.random((11, 6)), rng.standard_normal((11, 6, 4)), rng.standard_normal((11, 4))
    likely = p * np.exp(-((out - target[:, None]) ** 2).sum(axis=-1) / 2)
    loss, cache = mixture_forward(p, out, target)
    np.testing.assert_allclose(loss, -np.log(likely.sum(axis=-1)).mean(), rtol=1e-13)
    np.testing.assert_allclose(cache.responsibility, likely / likely.sum(axis=-1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(cache.responsibility.sum(axis=-1), 1, rtol=1e-13)


@pytest.mark.spec("ROU-9")
def test_mixture_is_finite_at_any_distance() -> None:
    """One expert: half the squared distance; a thousand away, where every exp is 0, too."""
    cfg = MoEConfig.from_dict(dense(n_routed_experts=3, hidden_size=2))
    p, target = np.eye(3)[[0, 1]], np.zeros((2, 2))
    out = np.full((2, 3, 2), 1000.0)
    loss = run("mixture_loss", cfg, topk_weight=p, expert_out=out, target=target)["loss"]
    assert loss == 1e6
    back = run("mixture_loss_backward", cfg, topk_weight=p, expert_out=out, target=target, dloss=np.float64(1))
    assert np.array_equal(back["responsibility"], p)
    assert np.array_equal(back["dexpert_out"], p[:, :, None] * out / 2)


@pytest.mark.spec("ROU-1")
@pytest.mark.parametrize("router", ["noisy-topk", "softmax-over-chosen", "hierarchical"])
@pytest.mark.parametrize("how", ["own", "drifted", "holes"])
def test_weights_share_one_whole(router: str, how: str) -> None:
    """Times the scale; a token without an expert has none."""
    cfg = tiny(router, **SHAPES[router]["usual"], routed_scaling_factor=1.5)
    given = numbers(cfg, 50)
    ids = ids_of(cfg, given, how)
    sums = run("gate", cfg, **given, topk_idx=ids)["topk_weight"].sum(axis=-1)
    np.testing.assert_allclose(sums, np.where((ids >= 0).any(axis=-1), 1.5, 0), rtol=1e-14)


@pytest.mark.spec("ROU-4")
def test_both_orders_of_softmax_and_choice_are_one_on_paper() -> None:
    """Softmax over the chosen, and over all divided by the sum of the chosen; noisy top-k without noise, too."""
    chosen, noisy = tiny("softmax-over-chosen"), tiny("noisy-topk")
    all_of_them = MoEConfig.from_dict({**chosen.to_dict(), "softmax_over": "all", "norm_topk_prob": True})
    given = numbers(chosen, 40)
    out, same = run("gate", chosen, **given), run("gate", all_of_them, **given)
    assert np.array_equal(out["topk_idx"], same["topk_idx"])
    np.testing.assert_allclose(out["topk_weight"], same["topk_weight"], rtol=1e-13)
    quiet = run("gate", noisy, **given, noise_weight=numbers(noisy, 40)["noise_weight"])
    assert all(np.array_equal(quiet[name], out[name]) for name in out)


@pytest.mark.spec("ROU-7")
def test_one_group_is_a_softmax_over_the_chosen() -> None:
    """The whole goes to the only group."""
    levels, chosen = tiny("hierarchical", n_group=1, topk_group=1), tiny("softmax-over-chosen")
    given = numbers(chosen, 40)
    out = run("gate", levels, **given, group_weight=np.ones((1, 6)))
    assert all(np.array_equal(out[name], made) for name, made in run("gate", chosen, **given).items())


@pytest.mark.spec("ROU-7")
def test_every_chosen_group_has_equally_many() -> None:
    """K / topk_group experts each, of topk_group groups."""
    cfg = tiny("hierarchical", n_routed_experts=24, n_group=6, topk_group=3, num_experts_per_tok=6)
    for ids in run("gate", cfg, **numbers(cfg, 40))["topk_idx"] // cfg.experts_per_group:
        assert sorted(np.bincount(ids, minlength=6).tolist()) == [0, 0, 0, 2, 2, 2]


@pytest.mark.spec("ROU-5")
@pytest.mark.parametrize(("factor", "each"), [(0.5, 4), (1.0, 8), (1.1, 9), (3.0, 20), (0.001, 1)])
def test_experts_that_choose_are_perfectly_balanced(factor: float, each: int) -> None:
    """Each has ceil(20 * 3 * factor / 8) tokens, at most 20; ids ascend, then -1; no column is empty throughout."""
    cfg = tiny("expert-choice", capacity_factor=factor)
    given = numbers(cfg, 20)
    out = run("gate", cfg, **given)
    ids = out["topk_idx"]
    assert np.bincount(ids[ids >= 0], minlength=8).tolist() == [each] * 8
    assert (ids[:, -1] >= 0).any()
    for row in ids.tolist():
        named = [e for e in row if e >= 0]
        assert row == sorted(named) + [-1] * (len(row) - len(named))
    for e in range(8):
        taken = (ids == e).any(axis=-1)
        assert out["scores"][taken, e].min() > out["scores"][~taken, e].max(initial=-1)


@pytest.mark.spec("ROU-5")
def test_experts_take_the_earlier_of_equal_tokens_and_never_padding() -> None:
    """Twenty equal tokens, four of them padding at the front."""
    cfg = tiny("expert-choice", capacity_factor=0.5)
    given = {**numbers(cfg, 20), "x": np.ones((20, 6))}
    assert (run("gate", cfg, **given)["topk_idx"] >= 0).all(axis=-1).tolist() == [True] * 4 + [False] * 16
    ids = run("gate", cfg, **given, mask=np.arange(20) >= 4)["topk_idx"]
    assert (ids >= 0).all(axis=-1).tolist() == [False] * 4 + [True] * 4 + [False] * 12
    assert run("gate", cfg, **given, mask=np.zeros(20, np.bool))["topk_idx"].tolist() == [[-1]] * 20
    everybody = tiny("expert-choice", capacity_factor=4.0)
    ids, topk_weight, _ = choice_forward(given["x"], given["weight"], np.arange(20) >= 4, everybody)
    assert np.array_equal(ids, np.where(np.arange(20)[:, None] >= 4, np.arange(8), -1))
    assert not topk_weight[:4].any()


@pytest.mark.spec("ROU-5")
def test_expert_choice_is_not_causal() -> None:
    """Later tokens take an earlier one's place."""
    cfg = tiny("expert-choice")
    given = numbers(cfg, 20)
    first = run("gate", cfg, **{**given, "x": given["x"][:10]})["scores"]
    both = run("gate", cfg, **given)
    np.testing.assert_allclose(both["scores"][:10], first, rtol=1e-13)
    alone = run("gate", cfg, **{**given, "x": given["x"][:10]})["topk_idx"]
    assert {tuple(e for e in row if e >= 0) for row in alone.tolist()} != {
        tuple(e for e in row if e >= 0) for row in both["topk_idx"][:10].tolist()
    }


OWN = [
    c.id
    for c in all_cases().values()
    if set(c.profiles) & set(ROUTERS) and c.op == "gate" and "topk_idx" not in c.inputs
]


@pytest.mark.parametrize("name", OWN)
def test_no_case_leaves_a_doubt(name: str) -> None:
    """The chosen stand clear of the rest, bounds included: by token, and where experts choose by expert."""
    assert sure(all_cases()[name])


def test_there_are_cases_of_every_router() -> None:
    """The test above is about something."""
    assert all(sum(f"gate-{router}-" in name for name in OWN) >= 12 for router in ROUTERS)


@pytest.mark.parametrize("name", [n for n, c in all_cases().items() if set(c.profiles) & {*ROUTERS, "jacobs-jordan"}])
def test_no_bound_is_lost(name: str) -> None:
    """Finite, not negative, and not NaN."""
    for output, bound in answer(all_cases()[name]).bounds.items():
        assert np.isfinite(bound).all(), output
        assert (bound >= 0).all(), output


def given(name: str, **changed: Any) -> Any:
    """The verdict on the reference's answer to a case, with changes."""
    case = all_cases()[name]
    right = {n: v if v.dtype.kind in "iu" else v.astype(np.float32) for n, v in answer(case).values.items()}
    return verdict(case, Reply("answered", {**right, **changed}))


@pytest.mark.spec("ROU-5")
def test_slots_may_be_more_and_in_another_order() -> None:
    """The sets count: empty slots anywhere, in more columns than needed, each with weight 0."""
    name = "gate-expert-choice-ordinary"
    right = answer(all_cases()[name]).values
    ids, weight = right["topk_idx"], right["topk_weight"].astype(np.float32)
    wide = {
        "topk_idx": np.concatenate([np.full((len(ids), 2), -1), ids[:, ::-1]], axis=-1),
        "topk_weight": np.concatenate([np.zeros((len(ids), 2), np.float32), weight[:, ::-1]], axis=-1),
    }
    assert given(name, **wide).status == "pass"
    wide["topk_weight"][3, 0] = 1e-30
    assert given(name, **wide).stage == "topk_weight"


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("change", ["another", "fewer", "beyond"])
def test_another_choice_fails(router: str, change: str) -> None:
    """One expert exchanged, left out, or out of range."""
    ids = answer(all_cases()[f"gate-{router}-ordinary"]).values["topk_idx"].copy()
    token, slot = np.argwhere(ids >= 0)[17]
    other = next(e for e in range(16) if e not in ids[token])
    ids[token, slot] = {"another": other, "fewer": -1, "beyond": 16}[change]
    result = given(f"gate-{router}-ordinary", topk_idx=ids)
    assert (result.status, result.kind, result.stage) == ("fail", "selection", "topk_idx")
    assert f"token {token} " in result.message
