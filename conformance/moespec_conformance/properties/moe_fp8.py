"""The layer in FP8: what its blocks know of each other, which should be nothing."""

from functools import partial

import numpy as np
from hypothesis import strategies as st

from moespec.config import MoEConfig
from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.cases.layer_fp8 import tensors_of
from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles, configs
from moespec_conformance.properties.engine.drawing import HANDS, Config
from moespec_conformance.properties.engine.layers import COUNT
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, question
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.properties.engine.splitting import in_parts


@st.composite
def layers(draw: st.DrawFn, profiles: Profiles, op: str) -> Trial:
    """A layer whose experts are quantised in small blocks, with given ids."""
    sizes = {"hidden_size": draw(st.sampled_from((2, 4))), "moe_intermediate_size": draw(st.sampled_from((2, 4)))}
    plain = configs(draw, profiles, **sizes, hash_routing=False)
    blocks: Config = {"a_block": [1, 2], "b_block": [2, 2], "promote_every": 2, "accumulate": "promoted"}
    config, hand, count = fp8_config(**{**plain, **blocks}), draw(HANDS), draw(COUNT)
    held = tensors_of(f"property/{hand.seed}", config, count, None)
    cfg = MoEConfig.from_dict(config)
    held["topk_idx"] = hand.ids(count, cfg.num_experts_per_tok, cfg.n_routed_experts)
    if not op.endswith("backward"):
        del held["dy"]
    return Trial(question(op, config, held), {})


def nowhere_is_the_shared_expert(ask: Ask, trial: Trial) -> None:
    """MFP-3, GATE-8: rows that go nowhere are the shared expert's alone, whatever the scale."""
    case = trial.case
    nowhere = given(case, topk_idx=np.full_like(case.inputs["topk_idx"], -1))
    y, alone = ask(case)["y"].astype(np.float64), ask(nowhere)["y"]
    idle = (case.inputs["topk_idx"] < 0).all(axis=-1)
    near("y of tokens that name no expert", y[idle], alone[idle], 2 * tolerances(nowhere)["y"][idle])
    if not case.cfg.n_shared_experts:
        near("y of a layer without a shared expert", alone, 0)


LAYER, BACK = partial(layers, op="moe_fp8"), partial(layers, op="moe_fp8_backward")

FOUND = (
    any_order("moe_fp8", "T", LAYER, ("MFP-2", "MOE-9")),
    any_order("moe_fp8", "E", LAYER, ("MFP-3", "MOE-9")),
    in_parts("moe_fp8", LAYER, clauses=("MFP-2", "MOE-9")),
    any_order("moe_fp8_backward", "E", BACK, ("MFP-5", "MFP-6", "MOE-9")),
    Property("moe-fp8-nowhere-is-the-shared-expert", ("MFP-3",), ("moe_fp8",), LAYER, nowhere_is_the_shared_expert),
)
