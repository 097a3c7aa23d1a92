"""Configs drawn from the family: rules of a model that an implementation says it is made for, at any small size."""

from typing import Any

from hypothesis import strategies as st

from moespec_conformance.cases.inputs import config
from moespec_conformance.cases.models import ALIASES, MODELS
from moespec_conformance.properties.engine.drawing import Config, picked
from moespec_conformance.protocol import DEFAULT

Profiles = tuple[str, ...]

FREE = "variants"  # the profile of switches that no model combines
UNLIMITED: Config = {"capacity_factor": None, "drop_policy": None}


def base_of(model: str) -> Config:
    """The tiny twin of a model, without a capacity: whatever is asked of it here, a token is by itself."""
    return config(DEFAULT if model == FREE else model, **UNLIMITED)


def members(profiles: Profiles, fixed: Config) -> tuple[str, ...]:
    """The models that an implementation of these profiles knows, DeepSeek-V3 if it names none.

    Only those whose rules are the `fixed` ones; where switches are free, they are set.
    """
    named = [model for model in MODELS if {model, *ALIASES.get(model, ())} & set(profiles)]
    known = (*named, *([FREE] if FREE in profiles else [])) or (DEFAULT,)
    rules = {name: value for name, value in fixed.items() if name in SWITCHES}
    known = tuple(m for m in known if base_of(m)["n_group"] > 1 or "n_group" not in fixed)
    return tuple(m for m in known if m == FREE or all(base_of(m)[name] == value for name, value in rules.items()))


SIZE = {most: st.integers(1, most) for most in range(1, 6)}
SHARED = {least: st.integers(least, 2) for least in (0, 1)}
# any values of the fields in which members of the family differ
SWITCHES: dict[str, st.SearchStrategy[Any]] = {
    "scoring_func": st.sampled_from(("sigmoid", "softmax", "sqrtsoftplus")),
    "norm_topk_prob": st.booleans(),
    "norm_when_k1": st.booleans(),
    "routed_scaling_factor": st.sampled_from((1.0, 2.5, 0.3)),
    "selection_bias": st.booleans(),
    "group_score": st.sampled_from(("top2_sum", "max")),
    "gated": st.booleans(),
    "hidden_act": st.sampled_from(("silu", "gelu_pytorch_tanh", "relu")),
    "swiglu_limit": st.sampled_from((None, 1.0)),
    "weight_position": st.sampled_from(("after_down", "before_down")),
    "hash_routing": st.booleans(),
}
ALL_SWITCHES: st.SearchStrategy[Config] = st.fixed_dictionaries(SWITCHES)


def configs(draw: st.DrawFn, profiles: Profiles, **fixed: Any) -> Config:  # noqa: ANN401 - config values
    """A layer's config: sizes first. `fixed` holds fields that a property needs as they are."""
    model = picked(draw, members(profiles, fixed))
    base = base_of(model)
    sizes = {"hidden_size": draw(SIZE[5]), "moe_intermediate_size": draw(SIZE[4]), **grouping(draw, base, fixed)}
    if base["n_shared_experts"]:
        sizes["n_shared_experts"] = draw(SHARED[0 if model == FREE else 1])
    if model == FREE:
        sizes |= draw(ALL_SWITCHES)
    if model.startswith("deepseek-v4"):
        sizes["hash_routing"] = draw(st.booleans())
    if fixed.get("selection_bias"):
        sizes["hash_routing"] = False  # a table has no bias beside it
    return consistent({**base, **sizes, **fixed})


def grouping(draw: st.DrawFn, model: Config, fixed: Config) -> Config:
    """How many experts, in groups if the model has them, and how many of them a token takes."""
    rule = model["num_experts_per_tok"]
    few = rule if rule in (1, 2) else 0  # Switch, Mixtral: as much a rule as the rest
    groups = fixed.get("n_group") or (draw(SIZE[3]) if model["n_group"] > 1 else 1)
    kept, each = draw(SIZE[groups]), max(draw(SIZE[3]), few, 2 if groups > 1 else 1)
    return {
        "n_group": groups,
        "topk_group": kept,
        "n_routed_experts": groups * each,
        "num_experts_per_tok": few or draw(SIZE[min(kept * each, 4)]),
    }


def consistent(made: Config) -> Config:
    """What rules itself out put right: a limit needs a gate, a table has no bias beside it, one group no score."""
    if not made["gated"]:
        made = {**made, "swiglu_limit": None}
    if made["hash_routing"]:
        made = {**made, "selection_bias": False}
    return made if made["n_group"] > 1 else {**made, "group_score": None}
