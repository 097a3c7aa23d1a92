"""With what weight the gate's chosen experts count: where it starts, the denominator, the scale."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

SCALE = "cfg.routed_scaling_factor"


def denominator(new: str) -> Edit:
    """What a token's weights are divided by."""
    return Edit("gate.weigh", "topk_score.sum(axis=-1, keepdims=True) + 1e-20", new)


def normalises(when: str) -> tuple[Edit, Edit]:
    """Another condition on which weights share one whole, forward and backward."""
    return (
        Edit("gate.weigh", "if cfg.normalises:", f"if {when}:"),
        Edit("gate.weigh_backward", "if cfg.normalises:", f"if {when}:"),
    )


def scaled(by: str) -> tuple[Edit, Edit]:
    """Another factor in place of the scale, forward and backward."""
    return (
        Edit("gate.weigh", f"topk_share * {SCALE}", f"topk_share * {by}"),
        Edit("gate.weigh_backward", f"dtopk_weight * {SCALE}", f"dtopk_weight * {by}"),
    )


FOUND = (
    Mutant(
        slug="gate-bias-in-weights",
        clause="GATE-6",
        symptom="The balancing bias leaks into the weights of the chosen experts.",
        edits=(Edit("gate.gate_forward", "weigh(scores, topk_idx, cfg)", "weigh(scores + bias, topk_idx, cfg)"),),
        cite="vllm-project/vllm#12002; PaddlePaddle/PaddleFormers#3452",
        trigger="a bias other than 0, which is how every checkpoint begins",
    ),
    Mutant(
        slug="gate-bias-cancelled",
        clause="GATE-6",
        symptom="Weights are made of the biased scores, the bias taken off again: a small score has lost its digits.",
        edits=(
            Edit("gate.gate_forward", "weigh(scores, topk_idx, cfg)", "weigh(scores + bias - bias, topk_idx, cfg)"),
        ),
        cite="guess: kernels that keep only the biased score",
        trigger="a bias much larger than the scores",
    ),
    Mutant(
        slug="gate-weights-out-of-order",
        clause="GATE-6",
        symptom="Weights stand in ascending order of their experts, the ids in another.",
        edits=(
            Edit(
                "gate.weigh",
                "np.take_along_axis(scores, topk_idx, axis=-1)",
                "np.take_along_axis(scores, np.sort(topk_idx, axis=-1), axis=-1)",
            ),
        ),
        cite="guess: ids sorted apart from their weights (torch.topk with sorted=False)",
        trigger="more than one slot",
    ),
    Mutant(
        slug="gate-empty-slot-reads-last",
        clause="GATE-6",
        symptom="An empty slot (id -1) has the weight of the last expert.",
        edits=(
            Edit(
                "gate.weigh",
                "np.where(topk_idx >= 0, np.take_along_axis(scores, topk_idx, axis=-1), 0)",
                "np.take_along_axis(scores, topk_idx, axis=-1)",
            ),
        ),
        cite="guess: what an index of -1 does in NumPy and torch",
        trigger="given ids with empty slots",
    ),
    Mutant(
        slug="gate-no-renorm",
        clause="GATE-7",
        symptom="The weights of a token are not made to share one whole.",
        edits=normalises("False"),
        cite="pytorch/torchtitan#1418, #1419",
        trigger="norm_topk_prob",
    ),
    Mutant(
        slug="gate-always-renorm",
        clause="GATE-7",
        symptom="Weights are normalised though the model does not say so: a softmax over the chosen alone.",
        edits=normalises("True"),
        cite="NVIDIA/Megatron-LM's default (moe_router_pre_softmax false) with V1 or V2",
        trigger="a softmax gate without norm_topk_prob",
    ),
    Mutant(
        slug="gate-one-slot-not-normalised",
        clause="GATE-7",
        symptom="With one expert a token nothing is normalised, and the weight is the score.",
        edits=normalises("cfg.norm_topk_prob and cfg.num_experts_per_tok > 1"),
        cite="jingyaogong/minimind#859; NVIDIA/Megatron-LM (topk_routing_with_score_function)",
        trigger="K = 1",
    ),
    Mutant(
        slug="gate-one-slot-normalised",
        clause="GATE-7",
        symptom="With one expert a token the weight is the scale whatever the score, and the gate learns nothing.",
        edits=normalises("cfg.norm_topk_prob"),
        cite="jingyaogong/minimind#858",
        trigger="K = 1 and norm_when_k1 false",
    ),
    Mutant(
        slug="gate-no-epsilon",
        clause="GATE-7",
        symptom="Nothing guards the denominator: a token whose scores are all 0 has weights of NaN.",
        edits=(denominator("topk_score.sum(axis=-1, keepdims=True)"),),
        cite="flashinfer-ai/flashinfer#3803, #3946; deepseek-ai/DeepSeek-V3 inference/model.py",
        trigger="logits of -104 or less",
    ),
    Mutant(
        slug="gate-hash-no-epsilon",
        clause="GATE-7",
        symptom="Only the hash layers' denominator is not guarded.",
        edits=(denominator("topk_score.sum(axis=-1, keepdims=True) + (0 if cfg.hash_routing else 1e-20)"),),
        cite="sgl-project/sglang#34459; its HashTopK (torch path)",
        trigger="a hash layer, and a token whose scores are all 0, or whose slots are all empty",
    ),
    Mutant(
        slug="gate-epsilon-as-floor",
        clause="GATE-7",
        symptom="1e-20 is the least denominator, not a summand.",
        edits=(denominator("np.maximum(topk_score.sum(axis=-1, keepdims=True), 1e-20)"),),
        cite="deepseek-ai/TileKernels (torch/topk.py: clamp)",
        trigger="scores of about 1e-20",
    ),
    Mutant(
        slug="gate-large-floor",
        clause="GATE-7",
        symptom="The least denominator is 2^-14, the smallest normal float16.",
        edits=(denominator("np.maximum(topk_score.sum(axis=-1, keepdims=True), 2.0**-14)"),),
        cite="ggml-org/llama.cpp (build_moe_ffn)",
        trigger="sigmoids of logits below -11",
    ),
    Mutant(
        slug="gate-softmax-epsilon",
        clause="GATE-7",
        symptom="Softmax gates add 1e-6 to the denominator.",
        edits=(
            denominator('topk_score.sum(axis=-1, keepdims=True) + (1e-6 if cfg.scoring_func == "softmax" else 1e-20)'),
        ),
        cite="guess",
        trigger="few additions behind a sum that is not large",
    ),
    Mutant(
        slug="gate-scale-missing",
        clause="GATE-8",
        symptom="The scale of routed experts is never applied.",
        edits=scaled("1"),
        cite="vllm-project/vllm#43769; sgl-project/sglang#8364",
        trigger="a scale other than 1",
    ),
    Mutant(
        slug="gate-scale-twice",
        clause="GATE-8",
        symptom="The scale is in the weights, and applied once more after them.",
        edits=scaled(f"{SCALE}**2"),
        cite="vllm-project/vllm#24119; sgl-project/sglang#35152",
        trigger="a scale other than 1",
    ),
    Mutant(
        slug="gate-scale-or-norm",
        clause="GATE-8",
        symptom="Weights are normalised or scaled, never both (the rule of V2's code).",
        edits=scaled(f"(1 if cfg.normalises else {SCALE})"),
        cite="huggingface/candle deepseek2.rs@0040b9a; huggingface/transformers#36400",
        trigger="norm_topk_prob and a scale other than 1",
    ),
    Mutant(
        slug="gate-hash-scale-missing",
        clause="GATE-12",
        symptom="Hash layers leave the scale out.",
        edits=scaled(f"(1 if cfg.hash_routing else {SCALE})"),
        cite="sgl-project/sglang's HashTopK (torch path)",
        trigger="a hash layer with a scale other than 1",
    ),
    Mutant(
        slug="gate-bf16-weights",
        clause="GATE-8",
        symptom="Weights are handed out in bfloat16.",
        edits=(Edit("gate.weigh", f"return topk_share * {SCALE}", f"return bf16(topk_share * {SCALE})"),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py (weights.type_as(x))",
        trigger="any input",
    ),
    Mutant(
        slug="gate-denominator-unwritten",
        clause="MOE-8",
        symptom="Where nothing is normalised the denominator is memory that nobody wrote.",
        edits=(Edit("gate.weigh", "denom = np.ones_like(scores[:, :1])", "denom = poisoned(scores[:, :1])"),),
        cite="guess: at::empty for at::ones",
        trigger="norm_topk_prob false",
    ),
    Mutant(
        slug="gate-weights-overwritten",
        clause="MOE-8",
        symptom="Weights are returned in a buffer that the next call of the same size writes over.",
        edits=(
            Edit(
                "gate.weigh",
                f"return topk_share * {SCALE}, topk_share, denom",
                "out = vars(weigh).setdefault((type(denom), topk_idx.shape), np.zeros_like(topk_share))\n"
                f"out[...] = topk_share * {SCALE}\n"
                "return out, topk_share, denom",
            ),
        ),
        cite="guess: outputs of a captured CUDA graph",
        trigger="two calls, the first one's result read after the second",
    ),
)
