"""Section 5: a config, checked, with the fields it leaves out."""

from math import isfinite
from typing import Any

Config = dict[str, Any]

SIZES = ("hidden_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_group")
RULES = ("topk_group", "group_score", "scoring_func", "norm_topk_prob", "routed_scaling_factor", "selection_bias")
FIELDS = {*SIZES, "n_shared_experts", *RULES}
NEUTRAL: Config = {  # CFG-9
    "router": "topk",
    "choose_by": "scores",
    "softmax_over": "all",
    "norm_when_k1": True,
    "hash_routing": False,
    "hidden_act": "silu",
    "gated": True,
    "swiglu_limit": None,
    "weight_position": "after_down",
    "capacity_factor": None,
    "drop_policy": None,
    "n_device": 1,
    "device_limit": 1,
    "alignment": 1,
    "layout": "contiguous",
    "balance_kind": None,
    "alpha": 0,
    "balance_topk": "given",
    "bias_update": "sign",
    "bias_update_rate": 0,
    "rms_norm_eps": 1e-6,
    "recipe": "deepseek-v3",  # CFG-17 to CFG-20
    "overflow": "saturate",
    "accumulate": "promoted",
    "promote_every": 128,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "learning_rate": 2.2e-4,
    "weight_decay": 0.1,
    "moment_format": "bfloat16",
}
BLOCKED = ("format", "a_format", "b_format", "block", "a_block", "b_block", "scale_format")  # CFG-18
POWERS = ("deepseek-v3.1", "transformer-engine", "mx-floor", "mx-rceil", "deepseek-v4-fp4")
RECIPES = ("deepseek-v3", "deepgemm", "tilekernels", "torchao", *POWERS)
FORMATS = ("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e5m6", "bfloat16")
MULTIPLIED = {"hopper": ("e4m3", "e5m2"), "ada": ("e4m3", "e5m2"), "blackwell": ("e4m3", "e5m2", "e2m1")}  # CFG-19
FLAGS = ("norm_topk_prob", "selection_bias", "norm_when_k1", "hash_routing", "gated")
WORDS = {
    "scoring_func": ("CFG-11", ("softmax", "sigmoid", "sqrtsoftplus")),
    "choose_by": ("CFG-11", ("scores", "logits")),
    "softmax_over": ("CFG-11", ("all", "chosen")),
    "router": ("CFG-12", ("topk", "noisy_topk", "expert_choice", "hierarchical")),
    "hidden_act": ("CFG-13", ("silu", "gelu_pytorch_tanh", "relu")),
    "weight_position": ("CFG-13", ("after_down", "before_down")),
    "drop_policy": ("CFG-14", (None, "position", "slot", "probs", "gshard", "device_probs", "reroute")),
    "layout": ("CFG-15", ("contiguous", "psum", "masked", "k_grouped")),
    "balance_kind": ("CFG-16", (None, "expert", "device", "communication", "sequence", "z", "importance")),
    "balance_topk": ("CFG-16", ("given", "unbiased")),
    "bias_update": ("CFG-16", ("sign", "sign_centred")),
    "recipe": ("CFG-17", RECIPES),
    **dict.fromkeys(("format", "a_format", "b_format"), ("CFG-17", FORMATS)),
    "scale_format": ("CFG-17", ("float32", "ue8m0")),
    "overflow": ("CFG-17", ("saturate", "nan")),
    "accumulate": ("CFG-19", ("exact", "float32", "promoted", "hopper", "ada", "blackwell")),
    "moment_format": ("CFG-20", ("float32", "bfloat16")),
}


def require(holds: object, broken: str) -> None:
    """Reject what breaks a clause, whose id heads the message."""
    if not holds:
        raise ValueError(broken)


def whole(value: object, least: int) -> bool:
    """Whether a value is a whole number and large enough."""
    return type(value) is int and value >= least


def finite(value: object) -> bool:
    """Whether a value is a finite number, and not below 0."""
    return (type(value) is int or type(value) is float) and isfinite(value) and value >= 0


def check_sizes(c: Config) -> None:
    """Check CFG-1 to CFG-5."""
    require(all(whole(c[f], 1) for f in SIZES) and whole(c["n_shared_experts"], 0), "CFG-1: a size is too small")
    E, G, K, kept = (c[f] for f in ("n_routed_experts", "n_group", "num_experts_per_tok", "topk_group"))
    require(K <= E, "CFG-2: K exceeds E")
    require(E % G == 0, "CFG-3: G does not divide E")
    require(whole(kept, 1) and kept <= G, "CFG-4: topk_group is outside 1 ... G")
    require(kept * E // G >= K, "CFG-5: the kept groups hold fewer than K experts")


def check_groups(c: Config) -> None:
    """Check CFG-6."""
    if c["n_group"] == 1 or c["router"] != "topk":
        require(c["group_score"] is None, "CFG-6: a group_score without groups")
    else:
        require(c["group_score"] in ("max", "top2_sum"), "CFG-6: no such group_score")
        alone = c["n_routed_experts"] == c["n_group"]
        require(c["group_score"] == "max" or not alone, "CFG-6: a group has no two experts")


def check_router(c: Config) -> None:
    """Check the rest of CFG-11, CFG-12, and what ROU-7 says of K."""
    if c["softmax_over"] == "chosen":
        require(c["scoring_func"] == "softmax" and not c["norm_topk_prob"], "CFG-11: the chosen share one whole")
    alone = c["router"] == "topk" and not c["selection_bias"]
    require(alone or not c["hash_routing"], "CFG-12: a hash layer has the router topk, and no bias")
    if c["router"] == "topk" and c["softmax_over"] == "all":
        return
    require(c["scoring_func"] == "softmax" and not c["selection_bias"], "CFG-12: a softmax router without a bias")
    require(not c["norm_topk_prob"], "CFG-12: norm_topk_prob")
    require(c["n_group"] == 1 or c["router"] == "hierarchical", "CFG-12: groups")
    require((c["softmax_over"] == "chosen") == (c["router"] in {"topk", "noisy_topk"}), "CFG-12: softmax_over")
    require(c["capacity_factor"] is not None or c["router"] != "expert_choice", "CFG-12: no capacity_factor")
    fits = c["num_experts_per_tok"] % c["topk_group"] == 0
    require(fits or c["router"] != "hierarchical", "ROU-7: K is no multiple of topk_group")


def check_expert(c: Config) -> None:
    """Check the rest of CFG-13."""
    limit = c["swiglu_limit"]
    require(limit is None or (finite(limit) and limit > 0 and c["gated"]), "CFG-13: swiglu_limit")


def check_places(c: Config) -> None:
    """Check the rest of CFG-14 and CFG-15; experts that choose keep no capacity, they fill it (ROU-5)."""
    room = c["capacity_factor"]
    require(room is None or (finite(room) and room > 0), "CFG-14: capacity_factor")
    kept = room is not None and c["router"] != "expert_choice"
    require((c["drop_policy"] is not None) == kept, "CFG-14: a drop_policy and a capacity to keep go together")
    ranked = c["router"] == "topk" and c["softmax_over"] == "all"
    require(ranked or c["drop_policy"] not in {"gshard", "reroute"}, "CFG-14: a policy that goes by all scores")
    devices, reached = c["n_device"], c["device_limit"]
    require(whole(devices, 1) and c["n_routed_experts"] % devices == 0, "CFG-15: n_device does not divide E")
    require(whole(reached, 1) and reached <= devices, "CFG-15: device_limit is outside 1 ... n_device")
    require(whole(c["alignment"], 1), "CFG-15: alignment")


def recipe_fields(recipe: str) -> Config:
    """CFG-18: what a recipe means by itself."""
    c: Config = dict.fromkeys(("format", "a_format", "b_format"), "e4m3")
    c |= {"block": (1, 128), "a_block": (1, 128), "b_block": (128, 128)}
    c["scale_format"] = "ue8m0" if recipe in POWERS else "float32"
    if recipe in ("mx-floor", "mx-rceil"):
        c |= dict.fromkeys(("block", "a_block", "b_block"), (1, 32))
    if recipe == "deepseek-v4-fp4":
        c |= {"format": "e2m1", "b_format": "e2m1", "block": (1, 32), "b_block": (1, 32)}
    return c


def block_of(c: Config, name: str) -> tuple[int, int]:
    """Check CFG-18."""
    require(isinstance(c[name], list | tuple), f"CFG-18: {name} is not two sizes")
    sizes = list[int](c[name])
    two = len(sizes) == len(("rows", "columns"))
    require(two and all(whole(size, 1) for size in sizes), f"CFG-18: {name} is not two sizes")
    return sizes[0], sizes[1]


def with_blocks(c: Config) -> Config:
    """CFG-18: complete formats and blocks, the sides' from the short ones, and all from the recipe."""
    require(c["recipe"] in RECIPES, "CFG-17: no such recipe")
    sides = {f"{side}_{n}": c[n] for n in ("format", "block") if n in c for side in "ab"}
    c = {**recipe_fields(c["recipe"]), **sides, **c}
    return {**c, **{n: block_of(c, n) for n in ("block", "a_block", "b_block")}}


def check_products(c: Config) -> None:
    """Check the rest of CFG-19."""
    every, kind = c["promote_every"], c["accumulate"]
    require(whole(every, 0) and (every or kind != "promoted"), "CFG-19: promote_every")
    widths = [n for n in (c["a_block"][1], c["b_block"][1], every) if n]
    require(all(n % min(widths) == 0 for n in widths), "CFG-19: widths that are no multiples of the least")
    powers = c["scale_format"] == "ue8m0"
    require(powers or not c["recipe"].startswith("mx-"), "CFG-19: the scales of MX are powers of two")
    able = MULTIPLIED.get(kind, FORMATS)
    require(c["a_format"] in able and c["b_format"] in able, f"CFG-19: {kind} does not multiply such formats")


def check_moments(c: Config) -> None:
    """Check the rest of CFG-20."""
    for field in ("adam_beta1", "adam_beta2", "adam_epsilon", "learning_rate", "weight_decay"):
        require(finite(c[field]), f"CFG-20: {field} is not finite and 0 or more")
    betas = c["adam_beta1"], c["adam_beta2"]
    require(max(betas) < 1, "CFG-20: a beta is not below 1")
    require(max(betas) <= 1 - 2**-8 or c["moment_format"] == "float32", "CFG-20: moments that would never decay")


def check_config(given: Config) -> Config:
    """Check every clause, the presence of the fields first, and fill in what is left out."""
    known = FIELDS | set(NEUTRAL) | set(BLOCKED)
    require(set(given) >= FIELDS and set(given) <= known, "CFG-10: unknown or missing fields")
    c = with_blocks({**NEUTRAL, **given})
    require(all(type(c[f]) is bool for f in FLAGS), "CFG-8: a flag is neither true nor false")
    for field, (clause, words) in WORDS.items():
        require(c[field] in words, f"{clause}: no such {field}")
    check_sizes(c)
    check_groups(c)
    check_router(c)
    check_expert(c)
    check_places(c)
    check_products(c)
    check_moments(c)
    for field, clause in (("routed_scaling_factor", "CFG-7"), ("rms_norm_eps", "NRM-4")):
        require(finite(c[field]) and c[field] > 0, f"{clause}: {field} is not finite and above 0")
    for field in ("alpha", "bias_update_rate"):
        require(finite(c[field]), f"CFG-16: {field} is not finite and 0 or more")
    return c
