"""Block-scaled products: scales along the contraction, promotion, many experts."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="fp8-no-promotion",
        clause="LIN-2",
        symptom="The whole contraction stays in the tensor core's accumulator.",
        edits=(
            Edit(
                "linear.tile",
                "term = inner(x[:, k], w, None, formats, how)  # (M, N)",
                "held = total / scale if total is not None and how.accumulate in UNITS else None\n"
                "term = inner(x[:, k], w, held, formats, how)  # (M, N)",
            ),
            Edit("linear.tile", "if total is not None:", "if total is not None and held is None:"),
        ),
        cite="deepseek-ai/DeepGEMM#50, #37; triton-lang/triton#2300; NVIDIA/cutlass#3149",
        trigger="long contractions, numbers of one sign: random ones with bfloat16 outputs hide it",
    ),
    Mutant(
        slug="fp8-promotes-every-instruction",
        clause="LIN-2",
        symptom="The accumulator is promoted after every 32 products, whatever was asked for.",
        edits=(
            Edit(
                "linear.tile",
                "[a_width, b_width, how.promote_every]",
                "[a_width, b_width, min(how.promote_every, 32)]",
            ),
        ),
        cite="triton-lang/triton: max_num_imprecise_acc",
        trigger="the fingerprint; numbers of one sign",
    ),
    Mutant(
        slug="fp8-promotes-by-block-alone",
        clause="LIN-2",
        symptom="The accumulator is promoted where a block ends, and not as often as was asked for.",
        edits=(Edit("linear.tile", "[a_width, b_width, how.promote_every]", "[a_width, b_width]"),),
        cite="triton-lang/triton: by default only the end of tl.dot promotes",
        trigger="promotion every 32 or 64 products",
    ),
    Mutant(
        slug="fp8-scale-after-scale",
        clause="LIN-1",
        symptom="A stretch's sum is multiplied with one scale and then the other: a rounding more, near but not exact.",
        edits=(
            Edit(
                "linear.tile",
                "term *= scale  # (M, N)",
                "term *= a.scale[:, k.start // a_width, None]\nterm *= b.scale[None, :, k.start // b_width]",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3 inference/kernel.py and cuBLAS against deepseek-ai/DeepGEMM",
        trigger="scales that are no powers of two, where the order is promised",
    ),
    Mutant(
        slug="fp8-outer-sum-bfloat16",
        clause="LIN-1",
        symptom="What is promoted is added up in bfloat16.",
        edits=(Edit("linear.tile", "total = term\n    assert", "total = bf16(term)\nassert"),),
        cite="guess",
        trigger="more than one stretch",
    ),
    Mutant(
        slug="fp8-outer-sum-fused",
        clause="LIN-1",
        symptom="Scaling a stretch and adding it is one rounding: near but not exact.",
        edits=(
            Edit("linear.tile", "term *= scale  # (M, N)", "pass"),
            Edit(
                "linear.tile",
                "term += total  # (M, N)",
                "term = (term.astype(np.float64) * scale + total).astype(np.float32)",
            ),
            Edit("linear.tile", "if total is not None:", "if total is None:\n    term *= scale\nelse:"),
        ),
        cite="deepseek-ai/DeepGEMM sm90_fp8_gemm_1d2d.cuh",
        trigger="scales that are no powers of two, where the order is promised",
    ),
    Mutant(
        slug="fp8-c-dropped",
        clause="LIN-1",
        symptom="What the accumulator held before is overwritten.",
        edits=(Edit("linear.tile", "total = c\n    for", "total = None\nfor"),),
        cite="guess",
        trigger="a second product into the same gradient",
    ),
    Mutant(
        slug="fp8-c-scaled",
        clause="LIN-1",
        symptom="What was there before is scaled along with the first stretch.",
        edits=(
            Edit(
                "linear.tile",
                "total = c\n    for",
                "total = c if c is None else c * (a.scale[:, :1] * b.scale[None, :, 0])\nfor",
            ),
        ),
        cite="guess",
        trigger="a second product into the same gradient",
    ),
    Mutant(
        slug="fp8-first-row-scale",
        clause="LIN-1",
        symptom="All rows of a panel have the scale of its first.",
        edits=(Edit("linear.panel", "if rows.start // height == (rows.stop - 1) // height:", "if True:"),),
        cite="vllm-project/vllm#54683: rows of several ranks, one scale",
        trigger="rows of different sizes",
    ),
    Mutant(
        slug="fp8-hidden-not-128",
        clause="QNT-1",
        symptom="There are C // 128 scales along a row, and what is left over takes the last one.",
        edits=(
            Edit(
                "linear.tile",
                "a.scale[:, k.start // a_width, None]",
                "a.scale[:, min(k.start // a_width, max(x.shape[1] // a_width, 1) - 1), None]",
            ),
        ),
        cite="deepseek-ai/DeepEP#413, #454",
        trigger="a hidden size that is no multiple of 128",
    ),
    Mutant(
        slug="fp8-tail-dropped",
        clause="LIN-1",
        symptom="Products behind the last whole stretch are left out.",
        edits=(Edit("linear.stretches", "range(0, size, width)", "range(0, max(size // width, 1) * width, width)"),),
        cite="guess",
        trigger="a contraction that is no multiple of 128",
    ),
    Mutant(
        slug="fp8-next-stretch-scale",
        clause="LIN-1",
        symptom="A stretch is scaled as the next block of the weight.",
        edits=(
            Edit(
                "linear.tile",
                "b.scale[None, :, k.start // b_width]",
                "b.scale[None, :, (k.stop // b_width) % b.scale.shape[1]]",
            ),
        ),
        cite="vllm-project/vllm#53345; flashinfer-ai/flashinfer#4087: equal scales hide it",
        trigger="blocks of different sizes along a row",
    ),
    Mutant(
        slug="fp8-dgrad-grid-not-transposed",
        clause="LIN-4",
        symptom="The transposed weight reads its grid of scales as it stood before.",
        edits=(
            Edit(
                "linear.transposed", "Quantized(codes.T, scale.T)", "Quantized(codes.T, scale.reshape(scale.T.shape))"
            ),
        ),
        cite="pytorch/ao#4229",
        trigger="more than one row and column of blocks, of different sizes",
        direction="backward",
    ),
    Mutant(
        slug="fp8-dgrad-stale",
        clause="LIN-4",
        symptom="The transposed copy of the weights was not made anew after loading: it is zeros, and so is dx.",
        edits=(Edit("linear.transposed", "Quantized(codes.T, scale.T)", "Quantized(np.zeros_like(codes.T), scale.T)"),),
        cite="modelscope/mcore-bridge#125, #126",
        trigger="any gradient",
        direction="backward",
    ),
    Mutant(
        slug="fp8-dispatch-drops-scales",
        clause="MFP-2",
        symptom="Rows reach their experts without their scales.",
        edits=(Edit("linear.rows_of", "operand.matrix.scale[rows])", "np.ones_like(operand.matrix.scale[rows]))"),),
        cite="sgl-project/sglang#31529",
        trigger="scales other than 1",
    ),
    Mutant(
        slug="fp8-group-scale-of-first",
        clause="LIN-5",
        symptom="Every expert's matrix is read with the scales of expert 0.",
        edits=(Edit("linear.expert_of", "stack.matrix.scale[e]", "stack.matrix.scale[0]"),),
        cite="vllm-project/vllm#54683",
        trigger="experts of different sizes",
    ),
    Mutant(
        slug="fp8-group-by-first-row",
        clause="LIN-5",
        symptom="A tile of 128 rows goes through the expert of its first row.",
        edits=(
            Edit(
                "linear.grouped",
                "experts, width = b.shape[:2]",
                "experts, width = b.shape[:2]\ngroup_index = group_index[np.arange(group_index.shape[0]) // 128 * 128]",
            ),
        ),
        cite="pytorch/FBGEMM#3949; deepseek-ai/DeepGEMM#98, #113; vllm-project/vllm#14568",
        trigger="experts whose rows are no multiple of 128",
    ),
    Mutant(
        slug="fp8-psum-ends-as-counts",
        clause="LIN-5",
        symptom="Where experts' rows end is taken for how many they are.",
        edits=(
            Edit("ops_fp8.index_of", "index[start:end]", "index[start : start + end]"),
            Edit("ops_fp8.index_of", "start = -(-end //", "start = start + -(-end //"),
        ),
        cite="guess",
        trigger="more than one expert with rows",
    ),
    Mutant(
        slug="fp8-masked-drops-tail",
        clause="LIN-5",
        symptom="An expert's last rows, fewer than 8, are not computed.",
        edits=(Edit("ops_fp8.boxed", "if count:", "count = count // 8 * 8\nif count:"),),
        cite="guess",
        trigger="counts that are no multiple of 8",
    ),
    Mutant(
        slug="fp8-k-grouped-empty-unwritten",
        clause="LIN-6",
        symptom="The gradient of an expert without tokens is memory that nobody wrote.",
        edits=(Edit("linear.k_grouped", "d = c.copy()", "d = poisoned(c)"),),
        cite="pytorch/torchtitan#1166; NVIDIA-NeMo/Automodel#532; ROCm/TransformerEngine#161",
        trigger="an expert without tokens",
        direction="backward",
    ),
    Mutant(
        slug="fp8-k-grouped-overwrites",
        clause="LIN-6",
        symptom="The gradient of a second batch replaces that of the first.",
        edits=(Edit("linear.k_grouped", "columns_of(b, start, size), how, c[e])", "columns_of(b, start, size), how)"),),
        cite="guess",
        trigger="gradients that are accumulated",
        direction="backward",
    ),
    Mutant(
        slug="fp8-k-grouped-first-scales",
        clause="LIN-6",
        symptom="Every expert's share of the contraction is read with the scales of the first shares.",
        edits=(
            Edit(
                "linear.columns_of",
                "scale[:, start // width : (start + size) // width]",
                "scale[:, : size // width]",
            ),
        ),
        cite="guess",
        trigger="tokens of different sizes",
        direction="backward",
    ),
)
