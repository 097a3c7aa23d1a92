"""Routers outside DeepSeek's own: noise, the chosen alone, experts that choose, two levels."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

AMONG = "softmax_among(logits, named(topk_idx, cfg.n_routed_experts))"
ALL = "softmax_among(logits, np.zeros_like(logits, dtype=np.bool) == 0)"
SOFTMAX = "softmax(x @ weight.T)"

FOUND = (
    Mutant(
        slug="noisy-no-noise",
        clause="ROU-3",
        symptom="The noise is left out in training as well.",
        edits=(
            Edit("router.noisy_logits", " + noise * softplus(width)", ""),
            Edit("router.noisy_logits_backward", "dlogits * cache.noise *", "0 * dlogits *"),
        ),
        cite="guess",
        trigger="noise",
    ),
    Mutant(
        slug="noisy-width-negative",
        clause="ROU-3",
        symptom="The width of the noise does not pass softplus, and may be negative.",
        edits=(
            Edit("router.noisy_logits", "noise * softplus(width)", "noise * width"),
            Edit("router.noisy_logits_backward", " * sigmoid(cache.width)", ""),
        ),
        cite="guess",
        trigger="noise",
    ),
    Mutant(
        slug="noisy-weights-without-noise",
        clause="ROU-4",
        symptom="Noise decides who is chosen, but the weights come from the logits without it.",
        edits=(
            Edit(
                "router.noisy_given",
                "logits, width = noisy_logits(x, weights, noise)",
                "logits, width = noisy_logits(x, weights, 0 * noise)",
            ),
            Edit("router.noisy_logits_backward", "dlogits * cache.noise *", "0 * dlogits *"),
        ),
        cite="guess: as the bias of DeepSeek-V3, which is for the choice alone",
        trigger="noise",
    ),
    Mutant(
        slug="noisy-width-gradient-straight",
        clause="ROU-3",
        symptom="The gradient passes softplus as if it were straight.",
        edits=(Edit("router.noisy_logits_backward", " * sigmoid(cache.width)", ""),),
        cite="guess",
        trigger="noise, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="noisy-x-misses-noise",
        clause="ROU-3",
        symptom="x has no gradient through the width of the noise.",
        edits=(Edit("router.noisy_logits_backward", " + dwidth @ weights.noise_weight", ""),),
        cite="guess",
        trigger="noise, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="chosen-two-bf16-inputs",
        clause="GATE-1",
        symptom="The router's product takes each float32 input as the sum of two bfloat16 numbers.",
        edits=(
            Edit(
                "router.noisy_logits",
                "return x @ weights.weight.T",
                "rough, learned = (bf16(t) + bf16(t - bf16(t)) for t in (x, weights.weight))\nreturn rough @ learned.T",
            ),
        ),
        cite='pytorch: torch.set_float32_matmul_precision("high")',
        trigger="inputs with more than 16 bits, and so few terms that float32 would add them without much error",
    ),
    Mutant(
        slug="chosen-over-all",
        clause="ROU-4",
        symptom="Weights are a softmax over all experts: those of a token do not add up to 1.",
        edits=(Edit("router.noisy_given", AMONG, f"np.where(named(topk_idx, cfg.n_routed_experts), {ALL}, 0)"),),
        cite="NVIDIA/Megatron-LM (moe_router_pre_softmax where it should be off)",
        trigger="a softmax over the chosen",
    ),
    Mutant(
        slug="chosen-divided",
        clause="ROU-1",
        symptom="A softmax over all is divided by the sum of the chosen: no digits where these lie far below the best.",
        edits=(
            Edit(
                "router.noisy_given",
                f"share = {AMONG}",
                f"share = np.where(named(topk_idx, cfg.n_routed_experts), {ALL}, 0)\n"
                "share = share / np.where(share.sum(axis=-1, keepdims=True) > 0, share.sum(axis=-1, keepdims=True), 1)",
            ),
        ),
        cite="huggingface/transformers Mixtral against mistralai/mistral-inference: equal on paper",
        trigger="given experts that are far below the best one",
    ),
    Mutant(
        slug="chosen-overflow",
        clause="ARR-8",
        symptom="The softmax over the chosen does not take the largest off first.",
        edits=(Edit("arrays.softmax_among", "np.exp(raised - raised.max(axis=-1, keepdims=True))", "np.exp(raised)"),),
        cite="guess",
        trigger="logits of 89 or more",
    ),
    Mutant(
        slug="chosen-nobody",
        clause="ROU-1",
        symptom="A token without any expert has shares of 0 / 0.",
        edits=(
            Edit(
                "arrays.softmax_among",
                "np.where(np.any(stands, axis=-1, keepdims=True), e.sum(axis=-1, keepdims=True), 1)",
                "e.sum(axis=-1, keepdims=True)",
            ),
        ),
        cite="guess: softmax over a row of -inf",
        trigger="a token whose slots are all empty",
    ),
    Mutant(
        slug="chosen-scale-missing",
        clause="ROU-2",
        symptom="The scale is not applied by routers of their own.",
        edits=(
            Edit("router.weigh", "topk_share * cfg.routed_scaling_factor", "topk_share"),
            Edit("router.weigh_backward", "dtopk_weight * cfg.routed_scaling_factor", "dtopk_weight"),
        ),
        cite="sgl-project/sglang#12998 (one backend loses it)",
        trigger="a scale other than 1",
    ),
    Mutant(
        slug="chosen-gradient-diagonal",
        clause="ROU-1",
        symptom="The gradient of a softmax over the chosen is a sigmoid's: they do not take from one another.",
        edits=(
            Edit(
                "arrays.softmax_backward",
                "share * (dshare - (dshare * share).sum(axis=-1, keepdims=True))",
                "share * (dshare - dshare * share)",
            ),
        ),
        cite="guess",
        trigger="any backward of a softmax",
        direction="backward",
    ),
    Mutant(
        slug="expert-choice-over-tokens",
        clause="ROU-6",
        symptom="The softmax runs over the tokens of an expert instead of the experts of a token.",
        edits=(
            Edit("expert_choice.choice_forward", SOFTMAX, "softmax(weight @ x.T).T"),
            Edit("expert_choice.choice_given", "softmax(logits)", "softmax(logits.T).T"),
        ),
        cite="guess: the axis that expert choice suggests",
        trigger="any input",
    ),
    Mutant(
        slug="expert-choice-rounds-down",
        clause="ROU-5",
        symptom="The number of tokens an expert takes is rounded down.",
        edits=(Edit("expert_choice.choose_tokens", "math.ceil(", "math.floor("),),
        cite="guess: int()",
        trigger="a capacity that is not whole",
    ),
    Mutant(
        slug="expert-choice-takes-padding",
        clause="ROU-5",
        symptom="Padding takes up places of experts.",
        edits=(Edit("expert_choice.choose_tokens", "offered = np.where(mask[:, None], share, -1)", "offered = share"),),
        cite="NVIDIA/Megatron-LM#5542 (padding takes capacity)",
        trigger="a mask",
    ),
    Mutant(
        slug="expert-choice-padding-left-out",
        clause="ROU-5",
        symptom="Only real tokens count in how many an expert takes.",
        edits=(Edit("expert_choice.choose_tokens", "even = tokens *", "even = int(mask.sum()) *"),),
        cite="guess",
        trigger="a mask",
    ),
    Mutant(
        slug="expert-choice-normalised",
        clause="ROU-6",
        symptom="The weights of a token are made to share one whole.",
        edits=(
            Edit(
                "expert_choice.choice_given",
                "return weigh(share, topk_idx, cfg),",
                "topk_weight = weigh(share, topk_idx, cfg)\n"
                "return topk_weight * (cfg.routed_scaling_factor / (topk_weight.sum(axis=-1, keepdims=True) + 1e-20)),",
            ),
        ),
        cite="guess: the habit of token choice",
        trigger="any input",
    ),
    Mutant(
        slug="expert-choice-by-tokens",
        clause="ROU-5",
        symptom="Tokens choose their experts, as everywhere else.",
        edits=(
            Edit(
                "expert_choice.choice_forward",
                f"choose_tokens({SOFTMAX}, mask, cfg)",
                f"stable_topk({SOFTMAX}, cfg.num_experts_per_tok)",
            ),
        ),
        cite="guess: a router that falls back",
        trigger="any input",
    ),
    Mutant(
        slug="hierarchical-flat",
        clause="ROU-7",
        symptom="Experts are taken from all groups: the first level does not choose.",
        edits=(
            Edit(
                "hierarchical.hierarchical_forward",
                "choose_twice(x @ weights.weight.T, x @ weights.group_weight.T, cfg)",
                "stable_topk(x @ weights.weight.T, cfg.num_experts_per_tok)",
            ),
        ),
        cite="guess: one level, as of NVIDIA/TensorRT-Model-Connect#662",
        trigger="more than one group",
    ),
    Mutant(
        slug="hierarchical-group-share-missing",
        clause="ROU-8",
        symptom="An expert's share is its share in its group: the groups' own shares are left out.",
        edits=(
            Edit("hierarchical.hierarchical_given", "(group_share[:, :, None] * inner)", "inner"),
            Edit("hierarchical.share_backward", "(dshare * cache.inner).sum(axis=-1)", "0 * cache.group_share"),
            Edit("hierarchical.share_backward", "dshare * cache.group_share[:, :, None]", "dshare"),
        ),
        cite="guess",
        trigger="more than one group",
    ),
    Mutant(
        slug="hierarchical-groups-over-all",
        clause="ROU-8",
        symptom="The groups' softmax runs over all groups, also those that were not chosen.",
        edits=(
            Edit(
                "hierarchical.hierarchical_given",
                "np.any(stands, axis=-1))",
                "np.any(stands, axis=-1) | (np.arange(cfg.n_group) >= 0))",
            ),
        ),
        cite="guess",
        trigger="groups that are not chosen",
    ),
    Mutant(
        slug="hierarchical-inner-over-all",
        clause="ROU-8",
        symptom="An expert's share in its group is a softmax over all of the group's experts, chosen or not.",
        edits=(
            Edit(
                "hierarchical.hierarchical_given",
                "softmax_among(logits.reshape(*shape), stands)",
                "np.where(stands, softmax_among(logits.reshape(*shape), stands == stands), 0)",
            ),
        ),
        cite="guess",
        trigger="groups of which not every expert is chosen",
    ),
    Mutant(
        slug="hierarchical-groups-detached",
        clause="ROU-8",
        symptom="The first level learns nothing: no gradient reaches the groups' logits.",
        edits=(
            Edit(
                "hierarchical.share_backward", "softmax_backward(dgroup_share, cache.group_share)", "0 * dgroup_share"
            ),
        ),
        cite="guess: probabilities gathered without a gradient, as in NVIDIA-NeMo/Automodel#2995",
        trigger="any backward",
        direction="backward",
    ),
)
