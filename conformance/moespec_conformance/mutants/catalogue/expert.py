"""One expert: its matrices, its weight, and what its backward must remember."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="expert-gate-up-swapped",
        clause="EXP-2",
        symptom="Stored [up; gate] is read as [gate; up]: the up projection opens the gate projection.",
        edits=(
            Edit("activation.opened", "gate, up = clamped(gate, up, cfg)", "gate, up = clamped(up, gate, cfg)"),
            Edit(
                "activation.slopes",
                "low, mid = clamped(gate, up, cfg)",
                "gate, up = up, gate\nlow, mid = clamped(gate, up, cfg)",
            ),
            Edit("activation.slopes", "return h, by_gate, by_up", "return h, by_up, by_gate"),
        ),
        cite="sgl-project/sglang#32430",
        trigger="any",
    ),
    Mutant(
        slug="expert-interleaved-as-halves",
        clause="EXP-1",
        symptom="Rows stored in turn (gate 0, up 0, gate 1, …) are read as a half of gates and a half of ups.",
        edits=(
            Edit(
                "activation.opened",
                "gate, up = clamped(gate, up, cfg)",
                "shape = gate.shape[0], 2 * gate.shape[1]\n"
                "both = np.concatenate([gate[:, :, None], up[:, :, None]], axis=2).reshape(*shape)\n"
                "gate, up = clamped(both[:, : gate.shape[1]], both[:, gate.shape[1] :], cfg)",
            ),
            Edit(
                "activation.slopes",
                "low, mid = clamped(gate, up, cfg)",
                "shape = gate.shape[0], 2 * gate.shape[1]\n"
                "both = np.concatenate([gate[:, :, None], up[:, :, None]], axis=2).reshape(*shape)\n"
                "gate, up = both[:, : gate.shape[1]], both[:, gate.shape[1] :]\n"
                "low, mid = clamped(gate, up, cfg)",
            ),
            Edit(
                "expert.hidden_backward",
                "dup = dh * by_up  # (N, F)",
                "dup = dh * by_up\n"
                "if dgate.shape[1]:\n"
                "    both = np.concatenate([dgate, dup], axis=1)\n"
                "    dgate, dup = both[:, ::2], both[:, 1::2]",
            ),
        ),
        cite="ROCm/ATOM#885; lightseekorg/tokenspeed#314; vllm-project/vllm#52240",
        trigger="any",
    ),
    Mutant(
        slug="expert-halves-as-interleaved",
        clause="EXP-1",
        symptom="A half of gates and a half of ups are read as if they stood in turn (gate 0, up 0, gate 1, …).",
        edits=(
            Edit(
                "activation.opened",
                "gate, up = clamped(gate, up, cfg)",
                "both = np.concatenate([gate, up], axis=1)\ngate, up = clamped(both[:, ::2], both[:, 1::2], cfg)",
            ),
            Edit(
                "activation.slopes",
                "low, mid = clamped(gate, up, cfg)",
                "both = np.concatenate([gate, up], axis=1)\n"
                "gate, up = both[:, ::2], both[:, 1::2]\n"
                "low, mid = clamped(gate, up, cfg)",
            ),
            Edit(
                "expert.hidden_backward",
                "dup = dh * by_up  # (N, F)",
                "dup = dh * by_up\n"
                "if dgate.shape[1]:\n"
                "    shape = dup.shape[0], 2 * dup.shape[1]\n"
                "    both = np.concatenate([dgate[:, :, None], dup[:, :, None]], axis=2).reshape(*shape)\n"
                "    dgate, dup = both[:, : dup.shape[1]], both[:, dup.shape[1] :]",
            ),
        ),
        cite="Dao-AILab/sonic-moe#45; vllm-project/vllm#52240",
        trigger="any",
    ),
    Mutant(
        slug="expert-weight-twice",
        clause="EXP-6",
        symptom="The routing weight enters before down_proj, and once more after it.",
        edits=(
            Edit(
                "expert.weighted_forward",
                "return mapped(row_weight[:, None] * h, weights.down_proj)",
                "return row_weight[:, None] * mapped(row_weight[:, None] * h, weights.down_proj)",
            ),
        ),
        cite="sgl-project/sglang#37261 (one side's contract changed between DeepEP 2.0 and 2.1)",
        trigger="weight_position before_down, weights other than 0 and 1",
    ),
    Mutant(
        slug="expert-weight-dropped",
        clause="EXP-6",
        symptom="The routing weight never enters: the expert leaves it to combine, and combine to the expert.",
        edits=(
            Edit(
                "expert.weighted_forward",
                "return mapped(row_weight[:, None] * h, weights.down_proj)",
                "return mapped(h, weights.down_proj)",
            ),
        ),
        cite="deepseek-ai/DeepEP#112",
        trigger="weight_position before_down",
    ),
    Mutant(
        slug="expert-grad-unweighted",
        clause="MOE-2",
        symptom="The gradient reaches the expert without the routing weight.",
        edits=(Edit("expert.weighted_backward", "dy = row_weight[:, None] * dy", "dy = dy * 1"),),
        cite="guess",
        trigger="weight_position after_down, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-dw-down-unweighted",
        clause="EXP-6",
        symptom="The gradient of down_proj is made of h as it was before the routing weight.",
        edits=(Edit("expert.weighted_backward", "np.matmul(dy.T, row_weight[:, None] * h,", "np.matmul(dy.T, h,"),),
        cite="guess; TileKernels, Megatron and DeepGEMM keep h with the weight inside, others recompute it",
        trigger="weight_position before_down, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-weight-grad-of-weighted-h",
        clause="EXP-6",
        symptom="The gradient of the routing weight is taken with h after the weight.",
        edits=(
            Edit(
                "expert.weighted_backward",
                "drow_weight = (dweighted * h).sum(axis=-1)",
                "drow_weight = (dweighted * (row_weight[:, None] * h)).sum(axis=-1)",
            ),
        ),
        cite="guess",
        trigger="weight_position before_down, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-weight-grad-of-weighted-dy",
        clause="MOE-2",
        symptom="The gradient of the routing weight is taken with dy times that weight.",
        edits=(
            Edit(
                "expert.weighted_backward",
                "drow_weight = (dy * plain).sum(axis=-1)",
                "drow_weight = (row_weight[:, None] * dy * plain).sum(axis=-1)",
            ),
        ),
        cite="guess",
        trigger="weight_position after_down, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-weight-grad-bf16",
        clause="MOE-2",
        symptom="What is added up to the gradient of a routing weight is rounded to bfloat16 first.",
        edits=(
            Edit("expert.weighted_backward", "drow_weight = (dy * plain).sum", "drow_weight = bf16(dy * plain).sum"),
        ),
        cite="NVIDIA/TransformerEngine#1336",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-dx-of-up-alone",
        clause="EXP-1",
        symptom="The second product of dx overwrites the first instead of adding to it.",
        edits=(Edit("expert.hidden_backward", "dx += dup @ weights.up_proj", "dx = dup @ weights.up_proj"),),
        cite="guess",
        trigger="a gated expert, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-bf16-h",
        clause="EXP-2",
        symptom="What enters down_proj is rounded to bfloat16 in a float32 layer.",
        edits=(Edit("expert.hidden_forward", "return opened(gate, up, cfg)", "return bf16(opened(gate, up, cfg))"),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py (all in bfloat16); V4 computes in float32 up to here",
        trigger="any",
    ),
    Mutant(
        slug="expert-bf16-h-in-wgrad",
        clause="EXP-3",
        symptom="h is kept in bfloat16 for the gradient of down_proj.",
        edits=(Edit("expert.expert_backward", "np.matmul(dy.T, h,", "np.matmul(dy.T, bf16(h),"),),
        cite="guess; activations saved in bfloat16 are common",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-tf32-products",
        clause="EXP-1",
        symptom="A tensor core rounds both factors of the gate's product to 10 bits.",
        edits=(
            Edit("expert.hidden_forward", "mapped(x, weights.gate_proj)", "mapped(tf32(x), tf32(weights.gate_proj))"),
        ),
        cite="torch.backends.cuda.matmul.allow_tf32, which was true by default before PyTorch 1.12",
        trigger="any",
    ),
    Mutant(
        slug="expert-strides-ignored",
        clause="MOE-8",
        symptom="x is read as if its rows lay one behind another, wherever they lie.",
        edits=(
            Edit(
                "expert.hidden_forward",
                "gate = mapped(x, weights.gate_proj)",
                "if isinstance(x, np.ndarray):\n"
                "    x = np.lib.stride_tricks.as_strided(x, strides=(x.shape[1] * x.itemsize, x.itemsize))\n"
                "gate = mapped(x, weights.gate_proj)",
            ),
        ),
        cite="guess; a kernel that takes a pointer and no strides",
        trigger="an x that is a part of another array",
    ),
    Mutant(
        slug="expert-grad-accumulated",
        clause="MOE-8",
        symptom="The gradient of down_proj is added to what an earlier backward left in its buffer.",
        edits=(
            Edit(
                "ops.expert_backward_op",
                "dw = ExpertWeights(*map(np.zeros_like, w))",
                "kept, key = expert_backward_op.__dict__, str([m.shape for m in w])\n"
                "dw = kept[key] = ExpertWeights(*map(np.array, kept.get(key, map(np.zeros_like, w))))",
            ),
            Edit(
                "expert.expert_backward",
                "np.matmul(dy.T, h, out=dweights.down_proj)",
                "dweights.down_proj[...] += dy.T @ h",
            ),
        ),
        cite="guess",
        trigger="a second call",
        direction="training",
    ),
)
