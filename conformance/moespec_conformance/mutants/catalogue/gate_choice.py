"""Which experts the gate chooses: the bias, the groups, equal choices."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

BIAS = 'bias = given.get("bias", np.zeros_like(weight[:, 0]))'

FOUND = (
    Mutant(
        slug="gate-bias-dropped",
        clause="GATE-3",
        symptom="The balancing bias is not loaded: it is no parameter, and whoever copies parameters misses it.",
        edits=(Edit("ops_gate.gate", BIAS, "bias = np.zeros_like(weight[:, 0])"),),
        cite="deepspeedai/DeepSpeed#8358; tenstorrent/tt-metal#47705",
        trigger="a bias other than 0",
    ),
    Mutant(
        slug="gate-bias-by-width",
        clause="CFG-8",
        symptom="There is a bias, and V3's rule for groups, only if the model is 7168 wide.",
        edits=(
            Edit("ops_gate.gate", BIAS, BIAS + "\nbias = bias * (cfg.hidden_size == 7168)"),
            Edit("gate.group_score", "-cfg.n_best", "-(2 if cfg.selection_bias and cfg.hidden_size == 7168 else 1)"),
        ),
        cite="deepseek-ai/DeepSeek-V3 and V3.2-Exp inference/model.py (Gate.__init__)",
        trigger="any small model",
    ),
    Mutant(
        slug="gate-bias-uninitialised",
        clause="GATE-3",
        symptom="A checkpoint without a bias leaves the bias as memory happened to be.",
        edits=(Edit("ops_gate.gate", BIAS, 'bias = given.get("bias", poisoned(weight[:, 0]))'),),
        cite="NVIDIA/TensorRT-LLM#15154; pytorch/torchtitan#2450",
        trigger="a gate without a bias",
    ),
    Mutant(
        slug="gate-bf16-bias",
        clause="GATE-3",
        symptom="The bias is stored in bfloat16, where a common offset swallows what tells experts apart.",
        edits=(Edit("ops_gate.gate", BIAS, BIAS.replace("given.get", "bf16(given.get") + ")"),),
        cite="deepseek-ai/DeepSeek-V3@4592be4; sgl-project/sglang#37133; vllm-project/vllm#50761",
        trigger="a bias of 7 with small differences, as real checkpoints have",
    ),
    Mutant(
        slug="gate-bf16-choice",
        clause="GATE-3",
        symptom="The sum of score and bias is narrowed to bfloat16 before experts are compared.",
        edits=(Edit("gate.select", "choice = choice + bias", "choice = bf16(choice + bias)"),),
        cite="NVIDIA/TensorRT-LLM#13328 (review)",
        trigger="choices that are close",
    ),
    Mutant(
        slug="gate-bias-subtracted",
        clause="GATE-3",
        symptom="The bias is taken off the score: what should attract tokens repels them.",
        edits=(Edit("gate.select", "choice = choice + bias", "choice = choice - bias"),),
        cite="guess",
        trigger="a bias other than 0",
    ),
    Mutant(
        slug="gate-choose-by-logits",
        clause="GATE-3",
        symptom="Experts are ranked by logit plus bias, not by score plus bias.",
        edits=(
            Edit("gate.gate_forward", 'logits if cfg.choose_by == "logits" else scores', "logits"),
            Edit("ops_gate.gate", 'cache.logits if cfg.choose_by == "logits" else cache.scores', "cache.logits"),
        ),
        cite="deepseek-ai/TileKernels (its softmax routers rank so)",
        trigger="a bias, or groups counted by the sum of two",
    ),
    Mutant(
        slug="gate-choose-by-scores",
        clause="CFG-9",
        symptom="Experts are ranked by score plus bias where the config says by logit plus bias.",
        edits=(
            Edit("gate.gate_forward", 'logits if cfg.choose_by == "logits" else scores', "scores"),
            Edit("ops_gate.gate", 'cache.logits if cfg.choose_by == "logits" else cache.scores', "cache.scores"),
        ),
        cite="guess: everybody else's rule in place of TileKernels'",
        trigger="choose_by logits and a bias",
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
        slug="gate-group-top-two",
        clause="GATE-4",
        symptom="A group counts as the sum of its best two experts instead of its best (V3's rule in a V2 model).",
        edits=(Edit("gate.group_score", "-cfg.n_best :", "-2:"),),
        cite="guess: the other direction of NVIDIA/Megatron-LM#1381",
        trigger="V2's gate: a third of random tokens",
    ),
    Mutant(
        slug="gate-group-top-share",
        clause="GATE-4",
        symptom="A group counts as the sum of its best K / topk_group experts, whatever the model.",
        edits=(Edit("gate.group_score", "-cfg.n_best :", "-(cfg.num_experts_per_tok // cfg.topk_group) :"),),
        cite="NVIDIA/Megatron-LM#1441",
        trigger="K / topk_group other than 2, or V2's gate",
    ),
    Mutant(
        slug="gate-group-by-bias",
        clause="CFG-6",
        symptom="Whether there is a bias decides how a group counts: the sum of two with it, the best without.",
        edits=(Edit("gate.group_score", "-cfg.n_best", "-(2 if cfg.selection_bias else 1)"),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py (Gate.forward)",
        trigger="V3's groups without a bias, or V2's with one",
    ),
    Mutant(
        slug="gate-group-unbiased",
        clause="GATE-4",
        symptom="Groups are ranked by scores without the bias, experts with it.",
        edits=(
            Edit("gate.select", "choice = choice + bias", "scores, choice = choice, choice + bias"),
            Edit("gate.select", "group_score(choice, cfg)", "group_score(scores, cfg)"),
            Edit("ops_gate.gate", "group_score(choice + bias, cfg)", "group_score(choice, cfg)"),
        ),
        cite="guess",
        trigger="a bias that differs from group to group",
    ),
    Mutant(
        slug="gate-group-tiled",
        clause="GATE-4",
        symptom="The mask of groups is tiled over the experts, not repeated for each: experts e, e + G, … share one.",
        edits=(
            Edit(
                "gate.select", "stands.repeat(cfg.experts_per_group, axis=-1)", "np.tile(stands, cfg.experts_per_group)"
            ),
        ),
        cite="guess: torch's repeat is NumPy's tile",
        trigger="more than one group",
    ),
    Mutant(
        slug="gate-no-group-limit",
        clause="GATE-4",
        symptom="Experts are taken from all groups: n_group and topk_group are ignored.",
        edits=(Edit("gate.select", "if cfg.n_group > 1:", "if False:"),),
        cite="NVIDIA/TensorRT-Model-Connect#662, #669; ikawrakow/ik_llama.cpp#836; MaxText's deepseek3-671b.yml",
        trigger="more than one group: 86 % of random tokens",
    ),
    Mutant(
        slug="gate-group-mask-kept",
        clause="MOE-8",
        symptom="The groups' mask is scratch memory that is not cleared: groups of an earlier call stand again.",
        edits=(
            Edit(
                "gate.select",
                "stands = np.zeros_like(groups, dtype=np.bool)",
                "stands = vars(select).setdefault(str(groups.shape), np.zeros_like(groups, dtype=np.bool))",
            ),
        ),
        cite="guess",
        trigger="a second call with as many tokens",
    ),
    Mutant(
        slug="gate-bias-in-place",
        clause="GATE-3",
        symptom="The bias is added to the scores in place, and so gets into the weights and the scores themselves.",
        edits=(Edit("gate.select", "choice = choice + bias", "choice += bias"),),
        cite="PaddlePaddle/PaddleFormers#3452 (weights of biased scores)",
        trigger="a bias other than 0",
    ),
    Mutant(
        slug="gate-expert-cap",
        clause="GATE-5",
        symptom="Experts beyond the 256th are never chosen.",
        edits=(Edit("gate.select", "stable_topk(choice, cfg.num", "stable_topk(choice[:, :256], cfg.num"),),
        cite="kekzl/imp#2056; ROCm/aiter#2369; vllm-project/vllm#21079 (review)",
        trigger="more than 256 experts",
    ),
    Mutant(
        slug="gate-tie-higher",
        clause="ARR-2",
        symptom="Of equal choices the higher index is taken.",
        edits=(
            Edit(
                "arrays.stable_topk",
                'np.argsort(-x, axis=-1, kind="stable")[..., :k]',
                'np.argsort(x, axis=-1, kind="stable")[..., ::-1][..., :k]',
            ),
        ),
        cite="vllm-project/vllm#52679, #54403; intel/intel-xpu-backend-for-triton#7580",
        trigger="choices that are exactly equal",
    ),
    Mutant(
        slug="gate-group-tie-higher",
        clause="GATE-4",
        symptom="Of equal groups the higher index stands.",
        edits=(
            Edit(
                "gate.select",
                "stable_topk(groups, cfg.topk_group)",
                "cfg.n_group - 1 - stable_topk(groups[:, ::-1], cfg.topk_group)",
            ),
        ),
        cite="sgl-project/sglang#29922",
        trigger="groups that are exactly equal",
    ),
)
