"""A block's scale, and what its numbers are divided by."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

CEILING = "np.where(part > top_part, high, low)"
FLOOR = 'floor = np.float32(rule.floor_fp4 if scheme.format == "e2m1" else rule.floor)'
FOUND = (
    Mutant(
        slug="fp8-scale-floor",
        clause="QNT-3",
        symptom="Powers of two are rounded down, so that the largest numbers of a block saturate.",
        edits=(Edit("quant.power_of_two", CEILING, "low"),),
        cite="pytorch/ao#1643; ROCm/aiter#3212",
        trigger="any block whose largest magnitude is above 1.75 in its binade",
    ),
    Mutant(
        slug="fp8-scale-nearest",
        clause="QNT-3",
        symptom="Powers of two are rounded to the nearest, as casts to E8M0 do.",
        edits=(
            Edit(
                "quant.power_of_two",
                CEILING,
                "np.where(part > 1.5 * top_part, high, np.where(part < 0.75 * top_part, low / 2, low))",
            ),
        ),
        cite="ml_dtypes and PyTorch: casts to float8_e8m0fnu; pytorch/ao#1643",
        trigger="any blocks",
    ),
    Mutant(
        slug="fp8-scale-even",
        clause="QNT-3",
        symptom="The largest magnitude is rounded to the format's digits before its power of two is taken.",
        edits=(
            Edit(
                "quant.power_of_two",
                "np.frexp(amax)",
                "np.frexp(rounded(amax, scheme.fmt._replace(bias=127, largest=2.0**128)))",
            ),
            Edit("quant.power_of_two", CEILING, "low"),
        ),
        cite="pytorch/ao#1643 (mode EVEN); ROCm/FlyDSL#590",
        trigger="any blocks",
    ),
    Mutant(
        slug="fp8-scale-by-logarithm",
        clause="QNT-3",
        symptom="The ceiling of a float32 logarithm is one too small just above a power of two.",
        edits=(
            Edit(
                "quant.power_of_two",
                CEILING,
                "np.exp2(np.maximum(np.ceil(np.log2(amax / np.float32(scheme.fmt.largest))), -127))",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3 inference/kernel.py",
        trigger="float32 numbers up to nine places above 448 * 2^k; never a bfloat16 number",
    ),
    Mutant(
        slug="fp8-scale-from-126",
        clause="QNT-3",
        symptom="The least scale is 2^-126 instead of 2^-127.",
        edits=(
            Edit("quant.power_of_two", "exponent - top_exponent, -127", "exponent - top_exponent, -126"),
            Edit("quant.power_of_two", "exponent - top_exponent + 1, -127", "exponent - top_exponent + 1, -126"),
        ),
        cite="deepseek-ai/DeepGEMM ceil_to_ue8m0",
        trigger="blocks of next to nothing, or of zeros, in a recipe without a floor",
    ),
    Mutant(
        slug="fp8-scale-rounded-after",
        clause="QNT-4",
        symptom="Codes are made with the quotient of magnitudes, and its power of two is stored as their scale.",
        edits=(Edit("quant.scales", "factor = 1 / scale  # (I, J)", "factor = top / amax  # (I, J)"),),
        cite="huggingface/transformers#46763; sgl-project/sglang#26766, #28418, #28307",
        trigger="any blocks but those whose largest magnitude is 448 * 2^k",
    ),
    Mutant(
        slug="fp8-scale-bfloat16",
        clause="QNT-2",
        symptom="Scales are kept in bfloat16.",
        edits=(
            Edit(
                "quant.scales",
                'scale = 1 / inverse if rule.scale_of == "inverse" else amax / top',
                'scale = bf16(1 / inverse if rule.scale_of == "inverse" else amax / top)',
            ),
        ),
        cite="guess",
        trigger="any blocks, with float32 scales",
    ),
    Mutant(
        slug="fp8-scale-by-reciprocal-of-top",
        clause="QNT-2",
        symptom="The largest magnitude is multiplied with 1/448 instead of divided by 448.",
        edits=(Edit("quant.scales", "else amax / top", "else amax * np.float32(1 / top)"),),
        cite="deepseek-ai/DeepGEMM sm100_fp8_fp4_mega_moe.cuh; pytorch/ao mx_tensor.py",
        trigger="half of all blocks, by one place of float32",
    ),
    Mutant(
        slug="fp8-zero-block-nan",
        clause="QNT-2",
        symptom="A block of zeros has scale 0, and its codes are 0 / 0.",
        edits=(Edit("quant.scales", FLOOR, "floor = np.float32(0)"),),
        cite="deepseek-ai/DeepSeek-V3@b15f0db; THUDM/slime#2256; NVIDIA/Megatron-LM#7523",
        trigger="blocks of zeros: padding, an expert nobody uses",
    ),
    Mutant(
        slug="fp8-floor-1e-10",
        clause="QNT-2",
        symptom="A block's largest magnitude counts as at least 1e-10 instead of 1e-4.",
        edits=(Edit("recipes", "floor: float = 1e-4  # QNT-2", "floor: float = 1e-10  # QNT-2"),),
        cite="THUDM/slime#2256; huggingface/kernels-community#680; deepseek-ai/DeepGEMM#109",
        trigger="blocks whose largest magnitude is below 1e-4",
    ),
    Mutant(
        slug="fp8-floor-on-scale",
        clause="QNT-2",
        symptom="The floor of 1e-4 is laid under the scale, not under the largest magnitude.",
        edits=(Edit("quant.scales", FLOOR, f"{FLOOR}\nfloor = np.float32(floor * top)"),),
        cite="deepseek-ai/FlashMLA tests",
        trigger="blocks whose largest magnitude is below 0.0448",
    ),
    Mutant(
        slug="fp4-floor-of-fp8",
        clause="QNT-2",
        symptom="FP4 blocks have the floor of FP8, 1e-4.",
        edits=(Edit("quant.scales", 'rule.floor_fp4 if scheme.format == "e2m1" else rule.floor', "rule.floor"),),
        cite="deepseek-ai/DeepGEMM utils/math.py against deepseek-ai/TileKernels",
        trigger="FP4 blocks whose largest magnitude is below 1e-4",
    ),
    Mutant(
        slug="fp8-amax-signed",
        clause="QNT-2",
        symptom="The largest number of a block is taken for its largest magnitude.",
        edits=(
            Edit("quant.largest_of", "np.abs(tiled)", "np.maximum(tiled, 0)"),
            Edit("quant.largest_float32", "np.abs(tiled)", "np.maximum(tiled, 0)"),
        ),
        cite="guess",
        trigger="blocks whose largest magnitude is of a negative number",
    ),
    Mutant(
        slug="fp8-amax-of-padding",
        clause="QNT-1",
        symptom="A ragged edge is filled up with memory that nobody wrote, and its amax counts.",
        edits=(
            Edit("quant.tiles", "np.zeros_like(x, shape=(down, n))", "poisoned(x, (down, n))"),
            Edit("quant.tiles", "np.zeros_like(x, shape=(m + down, right))", "poisoned(x, (m + down, right))"),
        ),
        cite="sgl-project/sglang#26133",
        trigger="sizes that are no multiples of the block",
    ),
    Mutant(
        slug="fp8-amax-of-tensor",
        clause="QNT-1",
        symptom="All blocks have one scale, that of the largest number of the matrix.",
        edits=(
            Edit(
                "quant.scales",
                "amax = np.maximum(np.where(largest < np.inf, largest, 1), floor)",
                "amax = np.maximum(np.where(largest < np.inf, largest, 1), floor)\n"
                "amax = amax if 0 in amax.shape else np.maximum(amax, np.amax(np.amax(amax, axis=1), axis=0))",
            ),
        ),
        cite="a scale a tensor: NVIDIA/TransformerEngine's delayed scaling, pytorch/ao's dynamic one",
        trigger="blocks of different sizes: the small ones lose their digits",
    ),
    Mutant(
        slug="fp8-amax-of-last-call",
        clause="MOE-8",
        symptom="Scales are those of the call before, as delayed scaling has it.",
        edits=(
            Edit(
                "quant",
                "def quantize(\n",
                "HELD = {}\n\n\n"
                "def remembered(tiled):\n"
                "    now = largest_float32(tiled)\n"
                "    before, HELD[now.shape] = HELD.get(now.shape, now), now\n"
                "    return before\n\n\n"
                "def quantize(\n",
            ),
            Edit("quant.quantize", "scaled(x[rows], scheme, largest_float32)", "scaled(x[rows], scheme, remembered)"),
        ),
        cite="NVIDIA/TransformerEngine DelayedScaling",
        trigger="a second call",
    ),
    Mutant(
        slug="fp8-amax-skips-nan",
        clause="QNT-5",
        symptom="A block's NaN does not count, and only that number is lost instead of the block.",
        edits=(
            Edit(
                "quant.scaled",
                "np.where(np.isnan(tiled), 0, tiled) if scheme.rule.skips_nan else tiled",
                "np.where(np.isnan(tiled), 0, tiled)",
            ),
        ),
        cite="triton-lang/triton: tl.max drops NaN; NVIDIA/TransformerEngine: fmaxf",
        trigger="NaN in a block",
    ),
    Mutant(
        slug="fp8-infinity-comes-back-finite",
        clause="QNT-5",
        symptom="A block with an infinity is quantised as if its largest magnitude were 1, and infinity saturates.",
        edits=(Edit("quant.special", "np.where(largest < np.inf, scale,", "np.where(~np.isnan(largest), scale,"),),
        cite="guess",
        trigger="infinity in a block",
    ),
    Mutant(
        slug="fp8-top-240",
        clause="QNT-4",
        symptom="E4M3 is scaled to 240, the largest number of AMD's fnuz, instead of 448.",
        edits=(
            Edit(
                "quant.scales",
                "scheme.rule, scheme.fmt.largest",
                'scheme.rule, min(scheme.fmt.largest, 240.0) if scheme.format == "e4m3" else scheme.fmt.largest',
            ),
        ),
        cite="ROCm/DeepEP#17; vllm-project/vllm#7210",
        trigger="any blocks, with float32 scales",
    ),
    Mutant(
        slug="fp8-fnuz-top-224",
        clause="QNT-2",
        symptom="AMD's fnuz is scaled to 224, half of E4M3's 448, instead of its own 240.",
        edits=(
            Edit(
                "quant.scales",
                "scheme.rule, scheme.fmt.largest",
                'scheme.rule, 224.0 if scheme.format == "e4m3fnuz" else scheme.fmt.largest',
            ),
        ),
        cite="ROCm/DeepEP#17; vllm-project/vllm",
        trigger="any blocks of e4m3fnuz, with float32 scales",
    ),
    Mutant(
        slug="fp8-codes-of-bfloat16",
        clause="FMT-3",
        symptom="Quotients are rounded to bfloat16 before they become codes.",
        edits=(
            Edit(
                "quant.scaled",
                "numbers = tiled / each if divides else tiled * each",
                "numbers = bf16(tiled / each if divides else tiled * each)",
            ),
        ),
        cite="triton-lang/triton: float32 to E4M3 by way of a 16-bit float where hardware has no such cast",
        trigger="quotients just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-early-saturation",
        clause="QNT-4",
        symptom="Codes saturate one number below the largest.",
        edits=(
            Edit(
                "quant.scaled",
                "numbers = numbers.reshape(i * bm, j * bn)",
                "most = scheme.fmt.largest * 15 / 16\n"
                "numbers = np.minimum(np.maximum(numbers, -most), most).reshape(i * bm, j * bn)",
            ),
        ),
        cite="guess",
        trigger="every block's largest number",
    ),
)
