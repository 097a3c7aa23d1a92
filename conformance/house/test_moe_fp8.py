"""The layer in FP8: the plain layer where quantising loses nothing, and SPEC's text, op by op, where it does."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec import MoEConfig, ops
from moespec.activation import opened, slopes
from moespec.recipes import RECIPES
from moespec_conformance.cases.inputs import config

f32 = np.float32
# two blocks of 128 along H, ragged; the shared experts wider than one; no groups, so that routing is as given
SMALL: dict[str, Any] = {
    "hidden_size": 160,
    "moe_intermediate_size": 48,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 4,
    "n_group": 1,
    "topk_group": 1,
    "group_score": None,
    "routed_scaling_factor": 1.0,
    "accumulate": "exact",
}
MATRICES = ("gate_proj", "up_proj", "down_proj", "shared_gate_proj", "shared_up_proj", "shared_down_proj")


def config_of(**changed: Any) -> MoEConfig:
    """A small layer."""
    return MoEConfig.from_dict(config(**{**SMALL, **changed}))


def powers(rng: Any, *shape: int) -> Any:
    """1/2, 1 or 2, of either sign: any format holds them, and their products, in any block's scale that is a power."""
    return (2.0 ** rng.integers(-1, 2, shape) * rng.choice([-1, 1], shape)).astype(f32)


def thin(rng: Any, rows: int, columns: int) -> Any:
    """A matrix with at most one number in each row and in each column, so that products are single numbers."""
    few = min(rows, columns)
    matrix = np.zeros((rows, columns), f32)
    matrix[rng.permutation(rows)[:few], rng.permutation(columns)[:few]] = powers(rng, few)
    return matrix


def matrices(cfg: MoEConfig, draw: Any) -> dict[str, Any]:
    """Every expert matrix the config has, by name."""
    f, h, s = cfg.moe_intermediate_size, cfg.hidden_size, cfg.shared_width
    shapes = dict(zip(MATRICES, ((f, h), (f, h), (h, f), (s, h), (s, h), (h, s)), strict=True))
    names = [n for n in MATRICES if (cfg.gated or "gate" not in n) and (s or "shared" not in n)]
    return {
        n: draw(*shapes[n]) if "shared" in n else np.stack([draw(*shapes[n]) for _ in range(cfg.n_routed_experts)])
        for n in names
    }


def stored(cfg: MoEConfig, weights: dict[str, Any]) -> dict[str, Any]:
    """Each matrix as codes and scales, by the op."""
    said = {**cfg.to_dict(), "format": cfg.b_format, "block": cfg.b_block}
    made = dict[str, Any]()
    for name, matrix in weights.items():
        each = [ops.run("quantize", MoEConfig.from_dict(said), x=m) for m in (matrix if matrix.ndim == 3 else [matrix])]
        for kind in ("codes", "scale"):
            stack = np.stack([q[kind] for q in each])
            made[f"{name}_{kind}"] = stack if matrix.ndim == 3 else stack[0]
    return made


def same(got: dict[str, Any], want: dict[str, Any], bits: bool = True) -> None:  # noqa: FBT001, FBT002 - a test's word
    """Equal outputs; without powers of two as scales, but for the scales' own rounding."""
    assert {"y"} <= set(got) & set(want) or {"dx"} <= set(got) & set(want)
    for name, wanted in ((name, want[name]) for name in want if name in got):  # steps that only one names are left out
        assert got[name].dtype == wanted.dtype, name
        allowed = 0 if bits else 2.0**-19 * np.abs(wanted).max(initial=0)  # a dozen roundings of 2^-24
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=allowed, err_msg=name)


def ids_of(rng: Any, tokens: int, cfg: MoEConfig) -> Any:
    """Distinct experts, the last expert never; every third token with two empty slots, so that weights are powers."""
    k = cfg.num_experts_per_tok
    ids = np.argsort(rng.random((tokens, cfg.n_routed_experts - 1)), axis=-1)[:, :k]
    ids[::3, k // 2 : k - 1] = -1
    ids[::3, -1] = np.where(k > 2, -1, ids[::3, -1])
    return ids


def both_ways(cfg: MoEConfig, tokens: int = 37, bits: bool = True, **routing: Any) -> None:  # noqa: FBT001, FBT002
    """Forward and backward of `moe_fp8` and of `moe`, on numbers that quantising leaves as they are."""
    rng = np.random.default_rng(tokens)
    weights = matrices(cfg, lambda *shape: thin(rng, *shape))
    x, dy = powers(rng, tokens, cfg.hidden_size), powers(rng, tokens, cfg.hidden_size)
    base = {"x": x, "gate_weight": np.zeros((cfg.n_routed_experts, cfg.hidden_size), f32), **routing}
    if cfg.selection_bias:
        base["bias"] = np.zeros(cfg.n_routed_experts, f32)
    if cfg.num_experts_per_tok == 1:
        base["gate_weight"] = (rng.standard_normal(base["gate_weight"].shape) / 16).astype(f32)
    codes = stored(cfg, weights)
    got, want = ops.run("moe_fp8", cfg, **base, **codes), ops.run("moe", cfg, **base, **weights)
    same(got, want, bits)
    assert want["y"].any() == bool(tokens)
    given = {name: tensor for name, tensor in base.items() if name != "mask"} | {"topk_idx": want["topk_idx"], "dy": dy}
    got = ops.run("moe_fp8_backward", cfg, **given, **codes)
    same(got, ops.run("moe_backward", cfg, **given, **weights), bits)


@pytest.mark.spec("MFP-3")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("position", ["after_down", "before_down"])
@pytest.mark.parametrize("gated", [True, False])
def test_without_loss_it_is_the_plain_layer(recipe: str, position: str, gated: bool) -> None:  # noqa: FBT001
    """Every recipe's blocks with powers of two as scales: every bit of the outputs and of the gradients."""
    rule = RECIPES[recipe]
    cfg = config_of(
        recipe=recipe, weight_position=position, hidden_act="relu", gated=gated, scale_format="ue8m0",
        a_block=rule.a_block, b_block=rule.b_block, b_format=rule.b_format, promote_every=32,
    )  # fmt: skip
    both_ways(cfg, topk_idx=ids_of(np.random.default_rng(0), 37, cfg))


@pytest.mark.spec("MFP-2")
@pytest.mark.parametrize("recipe", ["deepseek-v3", "deepgemm", "tilekernels", "transformer-engine", "torchao"])
def test_float32_scales_lose_their_own_rounding_only(recipe: str) -> None:
    """Numbers that are 448 times a power of two, to rounding."""
    cfg = config_of(recipe=recipe, hidden_act="relu", scale_format="float32")
    both_ways(cfg, bits=False, topk_idx=ids_of(np.random.default_rng(0), 37, cfg))


@pytest.mark.spec("MFP-1")
@pytest.mark.parametrize("accumulate", ["float32", "promoted", "exact", "hopper", "ada", "blackwell"])
def test_every_accumulator_serves_the_layer(accumulate: str) -> None:
    """Sums of few bits are the same in all."""
    cfg = config_of(hidden_act="relu", scale_format="ue8m0", accumulate=accumulate)
    both_ways(cfg, topk_idx=ids_of(np.random.default_rng(0), 37, cfg))


@pytest.mark.spec("MFP-1")
@pytest.mark.parametrize("tokens", [0, 1, 37, 130])
@pytest.mark.parametrize("shared", [0, 1])
def test_the_router_is_the_plain_layers(tokens: int, shared: int) -> None:
    """Own choice with one expert a token, whose weight is 1; no tokens; no shared expert; experts without rows."""
    cfg = config_of(num_experts_per_tok=1, n_shared_experts=shared, hidden_act="relu", scale_format="ue8m0")
    both_ways(cfg, tokens)
    both_ways(cfg, tokens, mask=np.arange(tokens) % 3 != 1)


@pytest.mark.spec("MFP-1")
def test_a_table_and_a_capacity_choose_as_in_the_plain_layer() -> None:
    """V4's hash layers, and experts that take no more than their capacity."""
    rng = np.random.default_rng(1)
    one = {"num_experts_per_tok": 1, "hidden_act": "relu", "scale_format": "ue8m0"}
    table = {"token_ids": rng.integers(0, 11, 37), "tid2eid": rng.integers(0, 8, (11, 1))}
    both_ways(config_of(**one, hash_routing=True, selection_bias=False), **table)
    cfg = config_of(**one, capacity_factor=0.5, drop_policy="position")
    both_ways(cfg)


def quantized(cfg: MoEConfig, x: Any, scale_format: str | None = None) -> tuple[Any, Any]:
    """Codes and scales of activations, by the op."""
    said = {**cfg.to_dict(), "format": cfg.a_format, "block": cfg.a_block}
    made = ops.run("quantize", MoEConfig.from_dict({**said, "scale_format": scale_format or cfg.scale_format}), x=x)
    return made["codes"], made["scale"]


def read(cfg: MoEConfig, codes: Any, scale: Any) -> Any:
    """What they stand for."""
    said = {**cfg.to_dict(), "format": cfg.a_format, "block": cfg.a_block}
    return ops.run("dequantize", MoEConfig.from_dict(said), codes=codes, scale=scale)["x"]


def times(cfg: MoEConfig, a: tuple[Any, Any], b: tuple[Any, Any], b_block: tuple[int, int]) -> Any:
    """a times the transpose of b, by the op."""
    said = {**cfg.to_dict(), "b_block": b_block}
    given = {"a_codes": a[0], "a_scale": a[1], "b_codes": b[0], "b_scale": b[1]}
    return ops.run("matmul_fp8", MoEConfig.from_dict(said), **given)["y"]


def along_tokens(cfg: MoEConfig, x: Any, codes: Any, scale_format: str) -> tuple[Any, Any]:
    """MFP-6: from the codes, or from the values."""
    by_values = cfg.recipe in {"transformer-engine", "torchao", "mx-floor", "mx-rceil"}
    return quantized(cfg, (x if by_values else read(cfg, *codes)).T.copy(), scale_format)


def by_the_text(cfg: MoEConfig, x: Any, weight: Any, w: dict[str, tuple[Any, Any]], dy: Any) -> dict[str, Any]:
    """MFP-2 … MFP-7 for one expert that has all tokens with these weights (N,), and its gradients."""
    sent, own = "ue8m0" if cfg.recipe == "deepseek-v3" else cfg.scale_format, cfg.scale_format
    after, block, column = cfg.weight_position == "after_down", cfg.b_block, weight[:, None]
    x_codes = quantized(cfg, x, sent)
    gate, up = (times(cfg, x_codes, w[name], block) for name in ("gate_proj", "up_proj"))
    h = opened(gate, up, cfg)
    y = times(cfg, quantized(cfg, h if after else column * h, own), w["down_proj"], block)
    made = {"y": column * y if after else y}

    gate, up = (read(cfg, *quantized(cfg, each, own)) for each in (gate, up))
    h, by_gate, by_up = slopes(gate, up, cfg)
    dweighted = column * dy if after else dy
    dy_codes = quantized(cfg, dweighted, sent)
    turned = {name: (codes.T, scale.T) for name, (codes, scale) in w.items()}
    dh = times(cfg, dy_codes, turned["down_proj"], block[::-1])
    entered = quantized(cfg, (h if after else column * h).T.copy(), own)
    made["ddown_proj"] = times(cfg, along_tokens(cfg, dweighted, dy_codes, sent), entered, cfg.a_block)
    made["drow_weight"] = (dy * y if after else dh * h).sum(axis=-1)
    dh = dh if after else column * dh
    x_turned = along_tokens(cfg, x, x_codes, sent)
    made["dx"] = np.zeros_like(x)
    for name, d in (("gate_proj", dh * by_gate), ("up_proj", dh * by_up)):
        codes = quantized(cfg, d, own)
        made["dx"] = made["dx"] + times(cfg, codes, turned[name], block[::-1])
        made["d" + name] = times(cfg, along_tokens(cfg, d, codes, own), x_turned, cfg.a_block)
    return made


@pytest.mark.spec("MFP-6")
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "deepseek-v4-fp4"])
@pytest.mark.parametrize("position", ["after_down", "before_down"])
def test_the_text_op_by_op(recipe: str, position: str) -> None:
    """One expert that has every token, and the shared one, on ordinary numbers: every bit."""
    rule, rng = RECIPES[recipe], np.random.default_rng(2)
    cfg = config_of(
        recipe=recipe, weight_position=position, n_routed_experts=2, num_experts_per_tok=1, norm_topk_prob=False,
        swiglu_limit=2.0, scale_format=rule.scale_format, a_block=rule.a_block, b_block=rule.b_block,
    )  # fmt: skip
    x, dy = rng.standard_normal((2, 150, 160)).astype(f32)
    gate_weight, bias = (rng.standard_normal((2, 160)) / 16).astype(f32), np.zeros(2, f32)
    codes = stored(cfg, matrices(cfg, lambda *shape: (rng.standard_normal(shape) / 8).astype(f32)))
    topk_idx = np.full((150, 1), 1)
    routing = {"x": x, "gate_weight": gate_weight, "bias": bias, "topk_idx": topk_idx}
    got = ops.run("moe_fp8", cfg, **routing, **codes)
    back = ops.run("moe_fp8_backward", cfg, **routing, **codes, dy=dy)
    weight = got["topk_weight"][:, 0]
    w = {name: (codes[f"{name}_codes"][1], codes[f"{name}_scale"][1]) for name in MATRICES[:3]}
    w_shared = {name: (codes[f"shared_{name}_codes"], codes[f"shared_{name}_scale"]) for name in MATRICES[:3]}
    routed = by_the_text(cfg, x, weight, w, dy)
    shared = by_the_text(cfg, x, np.ones_like(weight), w_shared, dy)
    assert np.array_equal(got["routed"], routed["y"])
    assert np.array_equal(got["shared"], shared["y"])
    assert np.array_equal(got["y"], routed["y"] + shared["y"])
    for name in MATRICES[:3]:
        assert np.array_equal(back[f"d{name}"][1], routed[f"d{name}"]), name
        assert not back[f"d{name}"][0].any()
        assert np.array_equal(back[f"dshared_{name}"], shared[f"d{name}"]), name
    given = {"x": x, "weight": gate_weight, "bias": bias, "topk_idx": topk_idx}
    through = ops.run("gate_backward", cfg, **given, dtopk_weight=routed["drow_weight"][:, None])
    assert np.array_equal(back["dgate_weight"], through["dweight"])
    assert np.array_equal(back["dx"], through["dx"] + routed["dx"] + shared["dx"])


@pytest.mark.spec("MFP-8")
def test_experts_in_e2m1_are_those_in_e4m3() -> None:
    """V4: what is lifted gives every bit of the layer whose weights were lifted by the op; backward too."""
    rng = np.random.default_rng(3)
    cfg = config_of(recipe="deepseek-v4-fp4", a_block=(1, 128), b_block=(1, 32), b_format="e2m1", scale_format="ue8m0")
    wide = config_of(
        recipe="deepseek-v4-fp4", a_block=(1, 128), b_block=(128, 128), b_format="e4m3", scale_format="ue8m0"
    )
    codes = stored(cfg, matrices(cfg, lambda *shape: rng.standard_normal(shape).astype(f32)))
    to_e4m3 = MoEConfig.from_dict(
        {**cfg.to_dict(), "a_format": "e2m1", "a_block": (1, 32), "b_format": "e4m3", "b_block": (128, 128)}
    )
    raised = dict[str, Any]()
    for name in MATRICES:
        both = [codes[f"{name}_codes"], codes[f"{name}_scale"]]
        each = [
            ops.run("lift_fp4", to_e4m3, codes=c, scale=s)
            for c, s in (zip(*both, strict=True) if both[0].ndim == 3 else [both])
        ]
        for kind in ("codes", "scale"):
            raised[f"{name}_{kind}"] = np.stack([q[kind] for q in each]) if both[0].ndim == 3 else each[0][kind]
    x, dy = rng.standard_normal((2, 20, 160)).astype(f32)
    base = {"x": x, "gate_weight": rng.standard_normal((8, 160)).astype(f32), "bias": np.zeros(8, f32)}
    got, want = ops.run("moe_fp8", cfg, **base, **codes), ops.run("moe_fp8", wide, **base, **raised)
    same(got, want)
    base |= {"topk_idx": got["topk_idx"], "dy": dy}
    same(ops.run("moe_fp8_backward", cfg, **base, **codes), ops.run("moe_fp8_backward", wide, **base, **raised))


@pytest.mark.spec("MFP-2")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a_block": (2, 128)}, "MFP-2: moe_fp8: a_block must be one row high, not 2"),
        ({"promote_every": 0}, "LIN-3: moe_fp8: scales differ along C, so promote_every must not be 0"),
        ({"b_block": (48, 128)}, "MFP-5: moe_fp8: CFG-19: widths"),
        (
            {"b_format": "e2m1", "b_block": (1, 48), "a_block": (1, 48), "promote_every": 48},
            "MFP-5: moe_fp8: CFG-19: widths",
        ),
    ],
)
def test_blocks_that_do_not_suit_are_refused(changed: dict[str, Any], message: str) -> None:
    """Rather than read with the wrong scale."""
    cfg = config_of(scale_format="ue8m0", **changed)
    codes = stored(cfg, matrices(cfg, lambda *shape: np.ones(shape, f32)))
    base = {"x": np.ones((3, 160), f32), "gate_weight": np.ones((8, 160), f32), "bias": np.zeros(8, f32)}
    with pytest.raises(ValueError, match="^" + message):
        ops.run("moe_fp8", cfg, **base, **codes)


@pytest.mark.spec("MFP-8")
def test_experts_that_cannot_be_lifted_are_refused() -> None:
    """Scales in one block of 128x128 that lie more than 2^14 apart, in one expert of the stack."""
    cfg = config_of(recipe="deepseek-v4-fp4", a_block=(1, 128), b_block=(1, 32), b_format="e2m1", scale_format="ue8m0")
    codes = stored(cfg, matrices(cfg, lambda *shape: np.ones(shape, f32)))
    base = {"x": np.ones((3, 160), f32), "gate_weight": np.ones((8, 160), f32), "bias": np.zeros(8, f32)}
    assert ops.run("moe_fp8", cfg, **base, **codes)["y"].shape == (3, 160)
    scale = codes["down_proj_scale"].astype(f32)
    scale[3, 5, 0] = scale[3, 6, 0] * f32(2.0**15)
    with pytest.raises(ValueError, match=r"^QNT-8: moe_fp8: scales in a block are more than 2\^14 times apart"):
        ops.run("moe_fp8", cfg, **base, **codes | {"down_proj_scale": scale.astype(ml_dtypes.float8_e8m0fnu)})


@pytest.mark.spec("MFP-1")
def test_x_is_float32() -> None:
    """Whatever the other tensors are."""
    cfg = config_of()
    codes = stored(cfg, matrices(cfg, lambda *shape: np.ones(shape, f32)))
    base = {"x": np.ones((3, 160)), "gate_weight": np.ones((8, 160)), "bias": np.zeros(8)}
    with pytest.raises(ValueError, match=r"^MFP-1: moe_fp8: x must be float32, not float64"):
        ops.run("moe_fp8", cfg, **base, **codes)


@pytest.mark.spec("CFG-18")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_config_comes_back_and_takes_short_forms(recipe: str) -> None:
    """to_dict says what from_dict needs, and `format` and `block` added to it mean both operands."""
    cfg = MoEConfig.from_dict({**config(), "recipe": recipe, "b_block": (64, 128)})
    assert MoEConfig.from_dict(cfg.to_dict()) == cfg
    plain = MoEConfig.from_dict({**config(), "recipe": recipe})
    assert MoEConfig.from_dict(plain.to_dict()) == plain
    short = MoEConfig.from_dict({**plain.to_dict(), "format": "e5m2", "block": [1, 64]})
    assert (short.a_format, short.b_format, short.a_block, short.b_block) == ("e5m2", "e5m2", (1, 64), (1, 64))
