"""The layer over ranks, all of them simulated: who owns what, what is sent, and what is added up how often."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

EVERYONE = "everyone = Everyone(*(a[i] for a in told))"
MINE = "(everyone.token_rank == rank)[:, None]"
GRADIENT = "dtopk_weight = [np.zeros_like(w) for w in cache.tokens.topk_weight]"

FOUND = (
    Mutant(
        slug="ranks-shared-on-every-rank",
        clause="RNK-4",
        symptom="Every rank adds the shared expert to a sum over ranks: it counts as often as there are ranks.",
        edits=(Edit("moe_ranks.moe_ranks_forward", "[r + s for r, s", "[r + comm.size * s for r, s"),),
        cite="sgl-project/sglang#35535, #26845; vllm-project/vllm#49378; lightseekorg/tokenspeed#1713",
        trigger="two ranks",
    ),
    Mutant(
        slug="ranks-shared-part-alone",
        clause="RNK-4",
        symptom="The shared expert is divided among the ranks, and its parts are never added up.",
        edits=(Edit("moe_ranks.moe_ranks_forward", "[r + s for r, s", "[r + s / comm.size for r, s"),),
        cite="vllm-project/tpu-inference#3435",
        trigger="two ranks",
    ),
    Mutant(
        slug="ranks-same-shard-everywhere",
        clause="RNK-1",
        symptom="Every rank holds the first rank's experts: a global id indexes local matrices.",
        edits=(Edit("moe_ranks.shard", "r * owned + e", "e"),),
        cite="ROCm/aiter#3995, #3208 are of this kind",
        trigger="two ranks",
    ),
    Mutant(
        slug="ranks-global-ids-sent",
        clause="RNK-1",
        symptom="A rank is told the global ids of its experts.",
        edits=(Edit("ranks.local_ids", "topk_idx - rank * owned", "topk_idx"),),
        cite="ROCm/aiter#4636, #4839",
        trigger="two ranks",
    ),
    Mutant(
        slug="ranks-foreign-slots-kept",
        clause="RNK-2",
        symptom="Other ranks' slots are not emptied: their ids wrap into the rank's own.",
        edits=(
            Edit("ranks.local_ids", "np.where(topk_idx // owned == rank,", "np.where(topk_idx >= 0,"),
            Edit("ranks.local_ids", "topk_idx - rank * owned", "topk_idx % owned"),
        ),
        cite="ROCm/aiter#3995",
        trigger="a token with experts on two ranks",
    ),
    Mutant(
        slug="ranks-foreign-weights-kept",
        clause="RNK-2",
        symptom="Other ranks' slots keep their weights.",
        edits=(
            Edit("ops_ranks.dispatch_ranks", "np.where(local >= 0, received(topk_weight), 0)", "received(topk_weight)"),
        ),
        cite="guess",
        trigger="a token with experts on two ranks",
    ),
    Mutant(
        slug="ranks-sent-for-each-slot",
        clause="RNK-2",
        symptom="A token is sent once for each of its slots instead of once to a rank.",
        edits=(
            Edit(
                "ranks.wanted",
                "np.flatnonzero(np.any(topk_idx // owned == rank, axis=-1))",
                "np.nonzero(topk_idx // owned == rank)[0]",
            ),
        ),
        cite="Megatron-Core's all-to-all and DeepEP's low-latency mode do so, DeepEP's normal mode does not",
        trigger="a token with two experts on one rank",
    ),
    Mutant(
        slug="ranks-counts-of-what-was-sent",
        clause="RNK-2",
        symptom="recv_count tells how many tokens a rank has sent.",
        edits=(Edit("ops_ranks.dispatch_ranks", "h.source.shape[0]", "sum(t.shape[0] for t in h.sent)"),),
        cite="guess",
        trigger="ranks that send and receive differently many",
    ),
    Mutant(
        slug="ranks-combine-weighted",
        clause="RNK-3",
        symptom="combine applies the weights again that the experts have applied.",
        edits=(
            Edit(
                "ops_ranks.combine_ranks",
                "end = [0,",
                "rows = rows * recv_topk_weight.sum(axis=-1, keepdims=True)\nend = [0,",
            ),
        ),
        cite="deepseek-ai/DeepEP#112; sgl-project/sglang#37261",
        trigger="any",
    ),
    Mutant(
        slug="ranks-first-part-twice",
        clause="RNK-3",
        symptom="What the first rank made is in the sum before the ranks are added up.",
        edits=(Edit("ranks.add_by_rank", "y[t] += p", "y[t] += 2 * p if p is partial[0] else p"),),
        cite="sgl-project/sglang#25285, #35535",
        trigger="tokens with an expert on the first rank",
    ),
    Mutant(
        slug="ranks-last-part-alone",
        clause="RNK-3",
        symptom="A rank's part overwrites those before it.",
        edits=(Edit("ranks.add_by_rank", "y[t] += p", "y[t] = p"),),
        cite="deepspeedai/DeepSpeed#8213 is of this kind",
        trigger="a token with experts on two ranks",
    ),
    Mutant(
        slug="ranks-bf16-sum",
        clause="RNK-3",
        symptom="Ranks' parts are added up in bfloat16.",
        edits=(
            Edit("ranks.add_by_rank", "y[t] += p", "y[t] = bf16(y[t] + p)"),
            Edit(
                "ranks.add_rows_forward",
                "y[t] += v[start : start + t.shape[0]]",
                "y[t] = bf16(y[t] + v[start : start + t.shape[0]])",
            ),
        ),
        cite="DeepEP's elastic mode rounds at each stage (deepseek-ai/DeepEP, combine)",
        trigger="a token with experts on two ranks",
    ),
    Mutant(
        slug="ranks-last-row-alone",
        clause="RNK-4",
        symptom="A token keeps the last of its rows that came home.",
        edits=(Edit("ranks.add_rows_forward", "y[t] += v[start", "y[t] = v[start"),),
        cite="guess",
        trigger="two experts a token",
    ),
    Mutant(
        slug="ranks-experts-grad-times-ranks",
        clause="RNK-5",
        symptom="Gradients of experts are too large by the number of ranks: the divisor was that of the other ranks.",
        edits=(
            Edit(
                "moe_ranks.routed_ranks_backward",
                GRADIENT,
                "for m in [m for dw in dweights for dexpert in dw.experts for m in dexpert]:\n    m *= comm.size\n"
                + GRADIENT,
            ),
        ),
        cite="NVIDIA/Megatron-LM#5956; pytorch/pytorch#160285; deepspeedai/DeepSpeed#5259; databricks/megablocks#20",
        trigger="two ranks, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-router-grad-local",
        clause="RNK-6",
        symptom="A rank's router learns of its own tokens alone.",
        edits=(
            Edit(
                "moe_ranks.moe_ranks_backward",
                EVERYONE,
                EVERYONE + f"\neveryone = everyone._replace(dtopk_weight=np.where({MINE}, everyone.dtopk_weight, 0))",
            ),
        ),
        cite="pytorch/torchtitan#2387, #2416; NVIDIA/Megatron-LM#619",
        trigger="two ranks, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-shared-grad-local",
        clause="RNK-6",
        symptom="A rank's shared expert learns of its own tokens alone.",
        edits=(
            Edit(
                "moe_ranks.moe_ranks_backward",
                EVERYONE,
                EVERYONE + f"\neveryone = everyone._replace(dy=np.where({MINE}, everyone.dy, 0))",
            ),
        ),
        cite="pytorch/torchtitan#2416 (the same of the router)",
        trigger="two ranks, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-router-grad-averaged",
        clause="RNK-6",
        symptom="The router's gradient is divided by the number of ranks.",
        edits=(
            Edit(
                "moe_ranks.moe_ranks_backward",
                "mine = everyone.token_rank == rank",
                "dweights[i].gate_weight[...] = dweights[i].gate_weight / comm.size\n"
                "mine = everyone.token_rank == rank",
            ),
        ),
        cite="NVIDIA/Megatron-LM#3769, #5047 are of this kind (of balance losses)",
        trigger="two ranks, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-router-detached",
        clause="RNK-5",
        symptom="Weights come back from the other ranks without a gradient.",
        edits=(
            Edit(
                "moe_ranks.routed_ranks_backward",
                "d[h.home.row_token, h.home.row_slot] = values",
                "d[h.home.row_token, h.home.row_slot] = 0 * values",
            ),
        ),
        cite="NVIDIA-NeMo/Automodel#2995",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-weight-grads-not-sent-home",
        clause="RNK-5",
        symptom="Only a token's own rank adds to the gradients of its weights.",
        edits=(
            Edit(
                "moe_ranks.routed_ranks_backward",
                "rows_home([dw for _, dw in made]",
                "rows_home([np.where(h.source[h.rows.row_token] == r, made[r][1], 0) for r, h in enumerate(handles)]",
            ),
        ),
        cite="huggingface/transformers#48205",
        trigger="a token with an expert on another rank, backward",
        direction="backward",
    ),
    Mutant(
        slug="ranks-shared-dx-times-ranks",
        clause="MOE-5",
        symptom="The shared expert's gradient of x is scaled by the number of ranks.",
        edits=(
            Edit(
                "moe_ranks.moe_ranks_backward",
                "dx_routed[i] + dx_shared[mine]",
                "dx_routed[i] + comm.size * dx_shared[mine]",
            ),
        ),
        cite="guess; sgl-project/sglang#35535 has the forward of it",
        trigger="two ranks, backward",
        direction="backward",
    ),
)
