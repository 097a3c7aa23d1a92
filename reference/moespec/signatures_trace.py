"""What an op computes on its way: stages with names, for whoever compares two implementations step by step.

Unlike the optional outputs of signatures.py they are compared only where a trace is asked for, and none need be given.
Rows (N) are those of dispatch: by expert, then token (DSP-1).
"""

from moespec.config import MoEConfig
from moespec.signatures import OPS, Tensor, expected, tensors

ROUTER = tensors(
    (("logits", "T E", "router"), ("scores", "T E", "router"), ("group_scores", "T G", "router", "groups"))
)
HALVES = tensors((("gate_out", "N F", "float", "gated"), ("up_out", "N F")))
ROWS = (*tensors((("rows", "N H"),)), *HALVES, *tensors((("h", "N F"),)))
DSCORES = tensors((("dscores", "T E", "router"),))
DWEIGHT = tensors((("dtopk_weight", "T W", "router"),))
LAYER = {"topk_idx": ROUTER}
LAYER_BACKWARD = {"dx": (*ROUTER[:2], *DWEIGHT, *DSCORES)}

# by op: the stages before an output
TRACES: dict[str, dict[str, tuple[Tensor, ...]]] = {
    "gate": {},
    "gate_backward": {"dx": (*ROUTER[:2], *DSCORES)},
    "expert": {"h": HALVES},
    "expert_backward": {"dx": HALVES},
    "moe": {**LAYER, "routed": ROWS},
    "moe_backward": LAYER_BACKWARD,
    "moe_fp8": LAYER,
    "moe_fp8_backward": LAYER_BACKWARD,
}


def stages(op: str, cfg: MoEConfig) -> dict[str, Tensor]:
    """Every named stage of an op by this config, outputs among them, in order of the computation."""
    before = TRACES.get(op, {})
    return expected(tuple(t for out in OPS[op].outputs for t in (*before.get(out.name, ()), out)), cfg)
