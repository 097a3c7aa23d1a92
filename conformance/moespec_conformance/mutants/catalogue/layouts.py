"""Layouts of rows: alignment, padding, ends, and products over rows."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="layout-not-aligned",
        clause="DSP-5",
        symptom="Segments lie one behind another without alignment, so that a block has rows of two experts.",
        edits=(Edit("layouts.aligned", "-(-expert_count // alignment) * alignment", "expert_count * 1"),),
        cite="pytorch/FBGEMM#3949; deepseek-ai/DeepGEMM#98, #113",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-block-too-many",
        clause="DSP-5",
        symptom="A segment that ends on the alignment, an empty one too, gets one block more.",
        edits=(
            Edit(
                "layouts.aligned",
                "-(-expert_count // alignment) * alignment",
                "(expert_count // alignment + 1) * alignment",
            ),
        ),
        cite="guess; pytorch/torchtitan#1166 is the opposite for empty segments, which its kernel wants padded",
        trigger="an expert with no row, or with just as many as the alignment",
    ),
    Mutant(
        slug="layout-padding-as-own-expert",
        clause="DSP-4",
        symptom="Empty places are tagged with the expert before them.",
        edits=(
            Edit(
                "layouts.placed",
                "group += [np.full_like(t, e), empty]",
                "group += [np.full_like(t, e), np.full_like(empty, e)]",
            ),
        ),
        cite="guess; the block of a contiguous product takes the expert of its first row (deepseek-ai/DeepGEMM#98)",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-padding-as-expert-0",
        clause="DSP-4",
        symptom="Empty places are tagged as expert 0.",
        edits=(
            Edit("layouts.placed", "group += [np.full_like(t, e), empty]", "group += [np.full_like(t, e), 0 * empty]"),
        ),
        cite="vllm-project/vllm#35161; sgl-project/sglang#36404",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-padding-of-token-0",
        clause="DSP-4",
        symptom="Empty places claim to be token 0's.",
        edits=(Edit("layouts.placed", "token += [t, empty]", "token += [t, 0 * empty]"),),
        cite="vllm-project/vllm#35161 (a tag of 0 where nothing lies)",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-padding-unwritten",
        clause="DSP-5",
        symptom="Empty places hold whatever memory held.",
        edits=(
            Edit(
                "layouts.lay_out_forward",
                "with_zero_row(x)[places.row_token]",
                "np.concatenate([x, poisoned(x, shape=(1, x.shape[1]))])[places.row_token]",
            ),
        ),
        cite="pytorch/torchtitan#1237; huggingface/transformers#45621",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-padding-of-last-token",
        clause="DSP-5",
        symptom="Token -1 of an empty place reads the last token.",
        edits=(Edit("layouts.lay_out_forward", "with_zero_row(x)[places.row_token]", "x[places.row_token]"),),
        cite="ROCm/aiter#3208, #3995 are of this kind (a -1 wraps)",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-psum-end-aligned",
        clause="DSP-6",
        symptom="expert_end is rounded up: nobody knows how many rows there are.",
        edits=(Edit("layouts.expert_end", "np.cumsum(size) - size + expert_count", "np.cumsum(size)"),),
        cite="deepseek-ai/TileKernels rounds them up",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-psum-starts-unaligned",
        clause="DSP-6",
        symptom="expert_end is a plain running sum of the counts, as if the next expert began just there.",
        edits=(Edit("layouts.expert_end", "np.cumsum(size) - size + expert_count", "np.cumsum(expert_count)"),),
        cite="guess",
        trigger="an alignment above 1",
    ),
    Mutant(
        slug="layout-masked-rows-last",
        clause="DSP-7",
        symptom="An expert's rows lie at the end of its box instead of at its beginning.",
        edits=(
            Edit("layouts.placed", "token += [t, empty]", "token += [empty, t]"),
            Edit("layouts.placed", "slot += [k, empty]", "slot += [empty, k]"),
            Edit("layouts.placed", "group += [np.full_like(t, e), empty]", "group += [empty, np.full_like(t, e)]"),
        ),
        cite="guess",
        trigger="an alignment above 1, or boxes of several sizes",
    ),
    Mutant(
        slug="layout-k-grouped-idle-zero",
        clause="DSP-8",
        symptom="An expert without places has d = 0, and what was in c is lost.",
        edits=(Edit("layouts.k_grouped", "d[e] = c[e] + a[s].T @ b[s]", "d[e] = c[e] + a[s].T @ b[s] if size else 0"),),
        cite="guess; a kernel that returns early for an empty group",
        trigger="an expert without a place",
    ),
    Mutant(
        slug="layout-k-grouped-idle-unwritten",
        clause="DSP-8",
        symptom="An expert without places has in d whatever memory held.",
        edits=(
            Edit("layouts.k_grouped", "np.zeros_like(c)", "poisoned(c)"),
            Edit("layouts.k_grouped", "d[e] = c[e] + a[s].T @ b[s]", "d[e] = c[e] + a[s].T @ b[s] if size else d[e]"),
        ),
        cite="meta-pytorch/MSLK#158",
        trigger="an expert without a place",
    ),
    Mutant(
        slug="layout-k-grouped-overwrites",
        clause="DSP-8",
        symptom="The product takes the place of c instead of being added to it.",
        edits=(Edit("layouts.k_grouped", "c[e] + a[s].T @ b[s]", "a[s].T @ b[s]"),),
        cite="guess",
        trigger="c other than 0",
    ),
    Mutant(
        slug="layout-k-grouped-bf16-c",
        clause="DSP-8",
        symptom="Gradients are added up in bfloat16.",
        edits=(Edit("layouts.k_grouped", "c[e] + a[s].T @ b[s]", "bf16(c[e] + a[s].T @ b[s])"),),
        cite="guess; gradient buffers in bfloat16 are an option of most trainers",
        trigger="any",
    ),
    Mutant(
        slug="layout-k-grouped-last-row-lost",
        clause="DSP-8",
        symptom="The last place of each expert is left out of the sum.",
        edits=(Edit("layouts.k_grouped", "slice(start, start + size)", "slice(start, start + max(size - 1, 0))"),),
        cite="guess",
        trigger="a segment without padding at its end",
    ),
)
