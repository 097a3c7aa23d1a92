"""Balance losses: what is counted, over what it is averaged, and by what it is multiplied."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

GROUPED = (
    "grouped = scores.reshape(scores.shape[0], cfg.n_group, cfg.experts_per_group)\n"
    "best = stable_topk(grouped.max(axis=-1), cfg.topk_group)\n"
    "group = np.arange(cfg.n_routed_experts) // cfg.experts_per_group\n"
    "kept = np.any(best[:, :, None] == group[None, None, :], axis=1)\n"
)

FOUND = (
    Mutant(
        slug="balance-without-k",
        clause="BAL-3",
        symptom="Uses are not divided by K: the loss is K times too large.",
        edits=(Edit("load.bins_of", "experts / k  #", "experts  #"),),
        cite="huggingface/transformers#43775, #43688; jingyaogong/minimind#797",
        trigger="two slots a token",
    ),
    Mutant(
        slug="balance-without-e",
        clause="BAL-3",
        symptom="Uses are not multiplied by E: even use costs alpha / E.",
        edits=(Edit("load.bins_of", "experts / k  #", "1 / k  #"),),
        cite="guess; one of the constant factors by which published losses differ",
        trigger="any",
    ),
    Mutant(
        slug="balance-raw-sigmoids",
        clause="BAL-8",
        symptom="Mean scores are of sigmoids that do not share one whole: 20 to 30 times too large.",
        edits=(
            Edit("balance.balance_forward", 'if cfg.balance_kind == "sequence":', "if False:"),
            Edit("balance.balance_backward", 'if cfg.balance_kind == "sequence":', "if False:"),
        ),
        cite="PaddlePaddle/PaddleNLP#11160; NVIDIA/TransformerEngine#2720",
        trigger="balance_kind sequence",
    ),
    Mutant(
        slug="balance-softmax-of-scores",
        clause="BAL-8",
        symptom="Scores share one whole by a softmax over them instead of by their sum.",
        edits=(
            Edit(
                "balance.balance_forward",
                "share = scores / denom",
                "share = scores / denom\n"
                'if cfg.balance_kind == "sequence":\n'
                "    e = np.exp(scores)\n"
                "    share = np.where(mask[:, None], e / e.sum(axis=-1, keepdims=True), 0)",
            ),
            Edit(
                "balance.balance_backward",
                "dshare / cache.denom, 0)",
                'dshare * cache.share if cfg.balance_kind == "sequence" else dshare / cache.denom, 0)',
            ),
        ),
        cite="AI-Hypercomputer/maxtext src/maxtext/layers/moe.py",
        trigger="balance_kind sequence",
    ),
    Mutant(
        slug="balance-counts-limited-by-groups",
        clause="BAL-7",
        symptom="Counts are of a choice within the best groups, where they should be of all experts.",
        edits=(
            Edit(
                "balance.balance_forward",
                "topk_idx = stable_topk(scores, cfg.num_experts_per_tok)",
                GROUPED + "topk_idx = stable_topk(np.where(kept, scores, -1), cfg.num_experts_per_tok)",
            ),
        ),
        cite="DeepSeek-V2's modeling_deepseek.py, under a comment that says otherwise",
        trigger="balance_topk unbiased, groups",
    ),
    Mutant(
        slug="balance-counts-of-largest-scores",
        clause="BAL-3",
        symptom="Counts are of the largest scores even where the router's own choice is given.",
        edits=(Edit("balance.balance_forward", 'if cfg.balance_topk == "unbiased"', "if True"),),
        cite="V3's rule (arXiv 2412.19437, eq. 18) where V1's or V2's is asked for",
        trigger="given ids that are not those of the largest scores",
    ),
    Mutant(
        slug="balance-batch-for-sequence",
        clause="BAL-2",
        symptom="All tokens of a batch count as one sequence.",
        edits=(Edit("ops_balance.loss_of", 'given.get("seq_ids", nothing)', "nothing"),),
        cite="HF's Mixtral and MaxText do so; V1's text does, V2's and V3's do not",
        trigger="several sequences",
    ),
    Mutant(
        slug="balance-sum-over-sequences",
        clause="BAL-2",
        symptom="Sequences' losses are added up instead of averaged.",
        edits=(
            Edit("balance.balance_forward", "* cfg.alpha / seqs.used", "* cfg.alpha"),
            Edit("balance.balance_backward", "* cfg.alpha / cache.sequences.used", "* cfg.alpha"),
        ),
        cite="guess; V2's code and Megatron average",
        trigger="several sequences",
    ),
    Mutant(
        slug="balance-by-sequences-not-tokens",
        clause="BAL-4",
        symptom="Scores are divided by the number of sequences instead of that of a sequence's tokens.",
        edits=(
            Edit("balance.balance_forward", "seqs.member @ share / seqs.tokens", "seqs.member @ share / seqs.used"),
            Edit(
                "balance.balance_backward",
                "dmean_score / cache.sequences.tokens",
                "(dmean_score / cache.sequences.used)",
            ),
        ),
        cite="NVIDIA-NeMo/RL#3888",
        trigger="any",
    ),
    Mutant(
        slug="balance-counts-padding",
        clause="BAL-2",
        symptom="Padding is counted like text, in uses and in scores.",
        edits=(Edit("ops_balance.loss_of", 'given.get("mask", nothing == 0)', "nothing == 0"),),
        cite="NVIDIA/Megatron-LM#2142, #2121",
        trigger="padding",
    ),
    Mutant(
        slug="balance-uses-of-padding",
        clause="BAL-2",
        symptom="Padding is left out of the scores, but counted among the uses.",
        edits=(
            Edit(
                "balance.balance_forward",
                "bins_of(np.where(mask[:, None], topk_idx, -1), cfg)",
                "bins_of(topk_idx, cfg)",
            ),
        ),
        cite="NVIDIA/Megatron-LM#2142; pytorch/torchtitan#4168",
        trigger="padding",
    ),
    Mutant(
        slug="balance-divided-by-padding-too",
        clause="BAL-3",
        symptom="What is counted without padding is divided by all tokens.",
        edits=(Edit("load.sequences", "np.where(mask, seq_ids + 1, 0)", "seq_ids + 1"),),
        cite="deepseek-ai/TileKernels aux_fi; NVIDIA/Megatron-LM#7452 item 10",
        trigger="padding",
    ),
    Mutant(
        slug="balance-empty-slot-wraps",
        clause="BAL-3",
        symptom="An empty slot is a use of the last expert.",
        edits=(
            Edit(
                "load.count_ids",
                "np.where(ids >= 0, seq_ids[:, None] * n_ids + ids + 1, 0)",
                "seq_ids[:, None] * n_ids + ids % n_ids + 1",
            ),
        ),
        cite="ROCm/aiter#3208 is of this kind (a -1 wraps)",
        trigger="empty slots",
    ),
    Mutant(
        slug="balance-alpha-twice",
        clause="BAL-1",
        symptom="alpha is multiplied in twice.",
        edits=(
            Edit("balance.balance_forward", "* cfg.alpha / seqs.used", "* cfg.alpha * cfg.alpha / seqs.used"),
            Edit("balance.balance_backward", "dloss * cfg.alpha", "dloss * cfg.alpha * cfg.alpha"),
        ),
        cite="guess",
        trigger="alpha other than 1",
    ),
    Mutant(
        slug="balance-divided-by-ranks",
        clause="BAL-10",
        symptom="The loss is too small by the number of ranks.",
        edits=(
            Edit("balance.balance_forward", "* cfg.alpha / seqs.used", "* cfg.alpha / seqs.used / cfg.n_device"),
            Edit("balance.balance_backward", "dloss * cfg.alpha", "dloss * cfg.alpha / cfg.n_device"),
        ),
        cite="NVIDIA/Megatron-LM#3769, #3672",
        trigger="several ranks",
    ),
    Mutant(
        slug="balance-device-uses-added",
        clause="BAL-5",
        symptom="A device's f is the sum of its experts' instead of their mean.",
        edits=(Edit("load.bins_of", "devices / k", "experts / k if devices > 1 else 1 / k"),),
        cite="guess; the paper's f' is a mean and its P' a sum (arXiv 2401.06066, eq. 16 and 17)",
        trigger="balance_kind device",
    ),
    Mutant(
        slug="balance-slots-for-tokens-sent",
        clause="BAL-6",
        symptom="A token that goes to two experts of a device is counted twice there.",
        edits=(Edit("load.bins_of", "return devices_of(topk_idx, cfg),", "return topk_idx // (experts // devices),"),),
        cite="guess",
        trigger="a token with two experts on a device",
    ),
    Mutant(
        slug="balance-communication-by-k",
        clause="BAL-6",
        symptom="Tokens sent are divided by K instead of device_limit.",
        edits=(Edit("load.bins_of", "devices / cfg.device_limit", "devices / k"),),
        cite="guess; the neighbouring formula has K",
        trigger="balance_kind communication",
    ),
    Mutant(
        slug="balance-eps-1e-6",
        clause="BAL-8",
        symptom="1e-6 is added to the sum of a token's scores instead of 1e-20.",
        edits=(Edit("balance.balance_forward", "+ 1e-20", "+ 1e-6"),),
        cite="guess",
        trigger="tokens whose scores are all small",
    ),
    Mutant(
        slug="balance-z-not-squared",
        clause="BAL-11",
        symptom="The z-loss is the mean of the log-sum-exp instead of its square's.",
        edits=(
            Edit("balance.z_forward", "counted * lse * lse", "counted * lse"),
            Edit("balance.z_backward", "2 * cache.counted * cache.lse", "cache.counted"),
        ),
        cite="guess",
        trigger="balance_kind z",
    ),
    Mutant(
        slug="balance-z-overflows",
        clause="BAL-11",
        symptom="The log-sum-exp is computed as written, and is infinite from 89 on.",
        edits=(
            Edit(
                "balance.z_forward",
                "largest = logits.max(axis=-1, keepdims=True)",
                "largest = 0 * logits.max(axis=-1, keepdims=True)",
            ),
        ),
        cite="guess",
        trigger="logits beyond 88 or below -103",
    ),
    Mutant(
        slug="balance-importance-sample-variance",
        clause="BAL-12",
        symptom="The variance is divided by E - 1, as torch does unless it is told otherwise.",
        edits=(
            Edit(
                "balance.importance_forward",
                "keepdims=True) / cfg.n_routed_experts  # (1,)\n    loss",
                "keepdims=True) / (cfg.n_routed_experts - 1)  # (1,)\nloss",
            ),
            Edit(
                "balance.importance_backward",
                "(2 * off * dvariance + dmean) / cfg.n_routed_experts",
                "2 * off * dvariance / (cfg.n_routed_experts - 1) + dmean / cfg.n_routed_experts",
            ),
        ),
        cite="davidmrau/mixture-of-experts moe.py, cv_squared",
        trigger="balance_kind importance",
    ),
)
