"""From tokens to rows by expert: where rows begin, whose they are, and how many there are."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="dispatch-last-row-lost",
        clause="DSP-1",
        symptom="An expert's last row is left out.",
        edits=(Edit("dispatch.segments", "slice(start, start + count)", "slice(start, start + max(count - 1, 0))"),),
        cite="guess",
        trigger="any",
    ),
    Mutant(
        slug="dispatch-segments-one-late",
        clause="DSP-1",
        symptom="Segments begin one row late: each expert's first row goes to the expert before.",
        edits=(Edit("dispatch.segments", "start = 0", "start = 1"),),
        cite="guess",
        trigger="any",
    ),
    Mutant(
        slug="dispatch-inclusive-offsets",
        clause="DSP-1",
        symptom="The running sum of the counts has an expert's own count in it: segments begin where they should end.",
        edits=(
            Edit(
                "dispatch.segments",
                "s = slice(start, start + count)",
                "s = slice(start + count, start + 2 * count)",
            ),
        ),
        cite="guess",
        trigger="any",
    ),
    Mutant(
        slug="dispatch-idle-expert-takes-a-row",
        clause="EXP-4",
        symptom="An expert without rows moves the segments of those behind it by one.",
        edits=(Edit("dispatch.segments", "start += count", "start += max(count, 1)"),),
        cite="pytorch/torchtitan#1166; NVIDIA-NeMo/Automodel#532; deepseek-ai/DeepGEMM#20",
        trigger="an expert without a token",
    ),
    Mutant(
        slug="dispatch-empty-slot-wraps",
        clause="DSP-2",
        symptom="The id -1 of an empty slot names the last expert.",
        edits=(Edit("dispatch.rows_by_expert", "topk_idx.reshape(-1)", "topk_idx.reshape(-1) % n_routed_experts"),),
        cite="ROCm/aiter#3995, #3208",
        trigger="empty slots",
    ),
    Mutant(
        slug="dispatch-empty-slot-to-expert-0",
        clause="DSP-2",
        symptom="Empty slots are tagged as expert 0.",
        edits=(Edit("dispatch.rows_by_expert", "topk_idx.reshape(-1)", "np.maximum(topk_idx, 0).reshape(-1)"),),
        cite="vllm-project/vllm#35161; sgl-project/sglang#36404",
        trigger="empty slots",
    ),
    Mutant(
        slug="dispatch-counts-of-another-source",
        clause="DSP-2",
        symptom="Counts include the empty slots, and rows do not: every segment is in the wrong place.",
        edits=(
            Edit("dispatch.rows_by_expert", "(expert[order], ids", "(np.maximum(expert[order], 0), ids"),
            Edit("dispatch.rows_by_expert", "order.shape[0] - sum(sizes)", "(expert < 0).sum()"),
        ),
        cite="InternLM/xtuner#2053",
        trigger="empty slots",
    ),
    Mutant(
        slug="dispatch-latest-first",
        clause="DSP-1",
        symptom="Within an expert the last token comes first.",
        edits=(
            Edit(
                "dispatch.rows_by_expert",
                'order = np.argsort(expert, kind="stable")',
                'order = expert.shape[0] - 1 - np.argsort(expert[::-1], kind="stable")',
            ),
        ),
        cite="guess; an atomic counter for each expert gives any order, this one among them",
        trigger="two tokens on an expert",
    ),
    Mutant(
        slug="dispatch-slots-first",
        clause="DSP-1",
        symptom="Row numbers are read as slot * T + token where they are token * K + slot.",
        edits=(
            Edit(
                "dispatch.rows_by_expert",
                "Rows(order // topk_idx.shape[1], order % topk_idx.shape[1],",
                "Rows(order % topk_idx.shape[0], order // topk_idx.shape[0],",
            ),
        ),
        cite="pytorch/torchtitan#1237, #1340 (rows and their token indices in different orders)",
        trigger="two slots a token",
    ),
    Mutant(
        slug="dispatch-counts-aligned",
        clause="DSP-2",
        symptom="expert_count is rounded up to the alignment.",
        edits=(
            Edit(
                "layouts.placed",
                "np.concatenate(slot), rows.expert_count)",
                "np.concatenate(slot), np.array(sizes, like=rows.expert_count))",
            ),
            Edit(
                "ops_layout.layout",
                '{"expert_count": rows.expert_count}',
                '{"expert_count": aligned(rows.expert_count, cfg.alignment)}',
            ),
        ),
        cite="deepseek-ai/TileKernels and DeepEP round them up (expert_alignment)",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="combine-unweighted",
        clause="DSP-3",
        symptom="Rows are added without their weights: whoever calls believes that combine applies them.",
        edits=(
            Edit("dispatch.combine_forward", "topk_weight[:, k][:, None] * padded", "padded"),
            Edit("expert.weighted_forward", "return row_weight[:, None] * y,", "return y,"),
        ),
        cite="deepseek-ai/DeepEP#112; sgl-project/sglang#37261",
        trigger="weight_position after_down",
    ),
    Mutant(
        slug="combine-weighted-twice",
        clause="DSP-3",
        symptom="Weights are applied by the expert, and by combine again.",
        edits=(
            Edit(
                "dispatch.combine_forward", "topk_weight[:, k][:, None]", "(topk_weight * topk_weight)[:, k][:, None]"
            ),
            Edit(
                "expert.weighted_forward",
                "return row_weight[:, None] * y,",
                "return row_weight[:, None] * (row_weight[:, None] * y),",
            ),
        ),
        cite="sgl-project/sglang#37261 (DeepEP 2.0 and 2.1 differ in who applies them)",
        trigger="weights other than 0 and 1",
    ),
    Mutant(
        slug="combine-weights-in-row-order",
        clause="DSP-3",
        symptom="The weights stay in the order of the tokens while the rows have that of the experts.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "topk_weight[:, k][:, None]",
                "topk_weight.reshape(-1)[row_of[:, k] % (row_of.shape[0] * row_of.shape[1])][:, None]",
            ),
        ),
        cite="pytorch/torchtitan#1237, #1340",
        trigger="weights that differ",
    ),
    Mutant(
        slug="combine-last-slot-alone",
        clause="DSP-3",
        symptom="A slot overwrites what the slots before it left: the local sum over slots is skipped.",
        edits=(Edit("dispatch.combine_forward", "y += topk_weight", "y = topk_weight"),),
        cite="deepspeedai/DeepSpeed#8213 is of this kind (the local sum is skipped on one rank)",
        trigger="two slots a token",
    ),
    Mutant(
        slug="combine-eight-slots",
        clause="DSP-3",
        symptom="A kernel with eight registers leaves out the ninth slot and those behind it.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "for k in range(topk_weight.shape[1]):",
                "for k in range(min(topk_weight.shape[1], 8)):",
            ),
        ),
        cite="guess; kekzl/imp#2056 is of this kind (256 experts, and no more)",
        trigger="ten slots a token",
    ),
    Mutant(
        slug="combine-bf16-sum",
        clause="DSP-3",
        symptom="The sum over slots is rounded to bfloat16 at each step.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "y += topk_weight[:, k][:, None] * padded[row_of[:, k]]",
                "y = bf16(y + topk_weight[:, k][:, None] * padded[row_of[:, k]])",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py; TileKernels adds in float32",
        trigger="two slots a token",
    ),
    Mutant(
        slug="combine-padding-nan",
        clause="MOE-6",
        symptom="A slot without a row reads memory that nobody wrote: 0 times NaN is NaN.",
        edits=(Edit("dispatch.with_zero_row", "np.zeros_like(rows, shape=(1,", "poisoned(rows, shape=(1,"),),
        cite="huggingface/transformers#48205, #45621; NVIDIA/TransformerEngine#3116",
        trigger="empty slots",
    ),
    Mutant(
        slug="combine-padding-to-last-slot",
        clause="DSP-3",
        symptom="A padding row's token -1 and slot -1 name the last slot of the last token.",
        edits=(Edit("dispatch.row_of_slot", "shape=(n_tokens + 1, n_slots)", "shape=(n_tokens, n_slots)"),),
        cite="ROCm/aiter#4636, #4839 are of this kind (a -1 wraps)",
        trigger="padding rows, and a last token with weights",
    ),
    Mutant(
        slug="combine-buffer-not-cleared",
        clause="MOE-8",
        symptom="Rows are added to what the last call left.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "return y",
                "kept, key = combine_forward.__dict__, str(y.shape)\n"
                "kept[key] = y + kept.get(key, 0)\n"
                "return kept[key]",
            ),
        ),
        cite="guess; huggingface/transformers#48205 shows from the second step on",
        trigger="a second call",
        direction="training",
    ),
    Mutant(
        slug="combine-buffer-reused",
        clause="MOE-8",
        symptom="All calls write into one output: a later one changes the answer of an earlier one.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "return y",
                "kept = combine_forward.__dict__.setdefault(str(y.shape), np.zeros_like(y))\n"
                "kept[...] = y\n"
                "return kept",
            ),
        ),
        cite="guess; outputs in static memory are usual under CUDA graphs",
        trigger="an answer that is kept across calls",
        direction="training",
    ),
    Mutant(
        slug="combine-weights-in-place",
        clause="MOE-8",
        symptom="Rows are multiplied by their weights where they lie: the caller's rows change.",
        edits=(
            Edit(
                "dispatch.combine_forward",
                "row_of = row_of_slot(rows, *topk_weight.shape)",
                "values *= topk_weight[rows.row_token, rows.row_slot][:, None]\n"
                "topk_weight = np.ones_like(topk_weight)\n"
                "row_of = row_of_slot(rows, *topk_weight.shape)",
            ),
        ),
        cite="guess",
        trigger="any",
        direction="training",
    ),
)
