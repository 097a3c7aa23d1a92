"""DeepSeek's gate: what is chosen, and with what weight."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="gate-bias-in-weights",
        clause="GATE-6",
        symptom="The balancing bias leaks into the weights of the chosen experts.",
        edits=(
            Edit(
                "gate.gate_forward",
                "weigh(scores, topk_idx, cfg)",
                "weigh(scores + bias, topk_idx, cfg)",
            ),
        ),
        cite="vllm-project/vllm#12002; PaddlePaddle/PaddleFormers#3452",
        trigger="a bias other than 0, which is how every checkpoint begins",
    ),
    Mutant(
        slug="gate-mask-zero",
        clause="GATE-4",
        symptom="Experts of a group that fell are masked with 0 instead of -inf, and win over negative scores.",
        edits=(Edit("gate.select", "choice, -np.inf)", "choice, 0)"),),
        cite="deepseek-ai/DeepSeek-V3@1398800; vllm-project/vllm#13474; sgl-project/sglang#3705",
        trigger="kept groups with fewer than K experts above 0: a strongly negative bias",
    ),
    Mutant(
        slug="gate-group-max",
        clause="GATE-4",
        symptom="A group counts as its best expert instead of the sum of its best two (V2's rule in a V3 model).",
        edits=(Edit("gate.group_score", "-cfg.n_best :", "-1:"),),
        cite="vllm-project/vllm#13474; NVIDIA/Megatron-LM#1381",
        trigger="more than one group",
    ),
    Mutant(
        slug="gate-no-renorm",
        clause="GATE-7",
        symptom="The weights of a token are not made to share one whole.",
        edits=(
            Edit("gate.weigh", "if cfg.normalises:", "if False:"),
            Edit("gate.weigh_backward", "if cfg.normalises:", "if False:"),
        ),
        cite="pytorch/torchtitan#1418, #1419",
        trigger="norm_topk_prob",
    ),
    Mutant(
        slug="gate-bf16-logits",
        clause="GATE-1",
        symptom="Logits are rounded to bfloat16 before experts are chosen.",
        edits=(Edit("gate.logits_forward", "return x @ weight.T", "return bf16(x @ weight.T)"),),
        cite="vllm-project/vllm#14027; NVIDIA-NeMo/Automodel#2201; ROCm/ATOM#746",
        trigger="scores that are close: 2 to 3 % of random tokens",
    ),
)
