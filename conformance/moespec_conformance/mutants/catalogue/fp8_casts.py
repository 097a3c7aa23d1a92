"""Small formats: how a number becomes a code, and what a code is taken for."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

# tables are made when a file is read, by functions that no case runs through: such edits name the file alone
FOUND = (
    Mutant(
        slug="fp8-cast-truncates",
        clause="FMT-1",
        symptom="A cast cuts bits off instead of rounding to the nearest number.",
        edits=(Edit("formats", "np.rint(np.ldexp(x, -step))", "np.trunc(np.ldexp(x, -step))"),),
        cite="guess",
        trigger="any numbers: the error is twice what it should be, and always toward zero",
    ),
    Mutant(
        slug="fp8-cast-ties-away",
        clause="FMT-1",
        symptom="A cast takes what is halfway between two numbers away from zero.",
        edits=(
            Edit(
                "formats",
                "on_grid: Float = np.ldexp(np.rint(np.ldexp(x, -step)), step)",
                "units = np.ldexp(x, -step)\n"
                "on_grid: Float = np.ldexp(np.trunc(units + np.copysign(0.5, units)), step)",
            ),
        ),
        cite="triton-lang/triton: its interpreter's casts know no even",
        trigger="bfloat16 inputs with powers of two as scales, of which many are halfway",
    ),
    Mutant(
        slug="fp8-cast-flushes",
        clause="FMT-1",
        symptom="A cast makes zero of what should become a subnormal number.",
        edits=(
            Edit(
                "formats",
                "return on_grid",
                "return on_grid * np.where(np.abs(on_grid) < 2.0**fmt.emin, np.float32(0), np.float32(1))",
            ),
        ),
        cite="guess",
        trigger="numbers below 2^-6 of E4M3's unit, beside a large one in their block",
    ),
    Mutant(
        slug="fp8-cast-through-bfloat16",
        clause="FMT-3",
        symptom="A cast rounds to bfloat16 on its way, so twice.",
        edits=(Edit("ops_fp8.cast_op", "encode(x, fmt", "encode(bf16(x), fmt"),),
        cite="triton-lang/triton: float32 to E4M3 by way of a 16-bit float where hardware has no such cast",
        trigger="numbers just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-cast-through-float16",
        clause="FMT-3",
        symptom="A cast to eight bits rounds to float16 on its way, so twice.",
        edits=(
            Edit(
                "ops_fp8.cast_op",
                "return {",
                "if fmt.bits == 8:\n    x = x.astype(np.float16).astype(np.float32)\nreturn {",
            ),
        ),
        cite="triton-lang/triton: float32 to E4M3 by way of a 16-bit float where hardware has no such cast",
        trigger="numbers just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-e5m6-through-float16",
        clause="FMT-3",
        symptom="E5M6 is made of float16, so subnormal numbers are rounded twice.",
        edits=(
            Edit(
                "formats.encode",
                "source = np.ravel(x)",
                "source = np.ravel(x if fmt.mantissa != 6 else x.astype(np.float16).astype(np.float32))",
            ),
        ),
        cite="deepseek-ai/TileKernels per_token_cast_to_e5m6_kernel.py",
        trigger="numbers just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-nan-on-overflow",
        clause="FMT-4",
        symptom="Numbers beyond the largest become NaN or infinity where they should saturate.",
        edits=(Edit("formats.encode", "ROUNDING[fmt, overflow]", 'ROUNDING[fmt, "nan"]'),),
        cite="jax-ml/ml_dtypes#400; huggingface/transformers#42775; NVIDIA/Model-Optimizer#1397",
        trigger="numbers beyond 464 in E4M3: scales that are rounded down, or stale",
    ),
    Mutant(
        slug="fp8-always-saturates",
        clause="FMT-4",
        symptom="Numbers beyond the largest, infinity among them, become the largest though NaN was asked for.",
        edits=(Edit("formats.encode", "ROUNDING[fmt, overflow]", 'ROUNDING[fmt, "saturate"]'),),
        cite="PTX cvt.satfinite against ml_dtypes; pytorch/pytorch#178817",
        trigger="an overflow of `nan`",
    ),
    Mutant(
        slug="fp8-overflow-before-rounding",
        clause="FMT-4",
        symptom="What exceeds the largest number before it is rounded becomes NaN: 449 though it is next to 448.",
        edits=(Edit("formats", "np.where(code > largest, above", "np.where(size > TABLES[fmt][largest], above"),),
        cite="guess",
        trigger="numbers between 448 and 464, with an overflow of `nan`",
    ),
    Mutant(
        slug="fp8-minus-zero-lost",
        clause="FMT-1",
        symptom="Small negative numbers become plus zero.",
        edits=(Edit("formats", "np.where(fmt.minus_zero | (code > 0),", "np.where(code > 0,"),),
        cite="guess",
        trigger="negative numbers below half of the least",
    ),
    Mutant(
        slug="fp8-fnuz-minus-zero",
        clause="FMT-1",
        symptom="In AMD's fnuz formats small negative numbers become 0x80, which is NaN there.",
        edits=(Edit("formats", "np.where(fmt.minus_zero | (code > 0),", "np.where(True,"),),
        cite="vllm-project/vllm#7210; sgl-project/sglang#2637; triton-lang/triton#10745",
        trigger="negative numbers below half of the least, or -0",
    ),
    Mutant(
        slug="fp8-fn-read-as-fnuz",
        clause="FMT-2",
        symptom="E4M3 codes of a checkpoint are read as AMD's fnuz without doubling: all numbers are half as large.",
        edits=(
            Edit(
                "formats.decode",
                "values: Float = np.empty_like",
                'fmt = FORMATS["e4m3fnuz"] if fmt == FORMATS["e4m3"] else fmt\nvalues: Float = np.empty_like',
            ),
        ),
        cite="vllm-project/vllm#7210; sgl-project/sglang#2637, #35111",
        trigger="any codes",
    ),
    Mutant(
        slug="fp8-fnuz-read-as-fn",
        clause="FMT-2",
        symptom="AMD's fnuz codes are read as E4M3: all numbers are twice as large, and 240 is NaN.",
        edits=(
            Edit(
                "formats.decode",
                "values: Float = np.empty_like",
                'fmt = FORMATS["e4m3"] if fmt == FORMATS["e4m3fnuz"] else fmt\nvalues: Float = np.empty_like',
            ),
        ),
        cite="triton-lang/triton#10778; ROCm/DeepEP#17",
        trigger="any codes of e4m3fnuz",
    ),
    Mutant(
        slug="fp8-e4m3-ieee",
        clause="FMT-2",
        symptom="E4M3 is taken for the format with infinities, whose largest number is 240.",
        edits=(Edit("formats", "448.0, nan=0x7F,", "240.0, inf=True, nan=0x7C,"),),
        cite="ml_dtypes: float8_e4m3 beside float8_e4m3fn",
        trigger="a block's largest number, always",
    ),
    Mutant(
        slug="fp8-subnormal-decode",
        clause="FMT-2",
        symptom="Codes whose exponent field is 0 are read as normal numbers.",
        edits=(
            Edit(
                "formats.decode",
                "return values",
                "low = (values != 0) & (np.abs(values) < 2.0**fmt.emin)\n"
                "normal = np.copysign(2.0 ** (fmt.emin - 1) + np.abs(values) / 2, values)\n"
                "return np.where(low, normal, values).astype(np.float32)",
            ),
        ),
        cite="ooples/AiDotNet.Tensors#801",
        trigger="codes below 2^-6 in E4M3: rare in scaled blocks",
    ),
    Mutant(
        slug="fp4-ties-toward-zero",
        clause="FMT-1",
        symptom="E2M1 takes what is halfway toward zero: 0.75, 1.75 and 3.5 become 0.5, 1.5 and 3.",
        edits=(
            Edit(
                "formats",
                "on_grid: Float = np.ldexp(np.rint(np.ldexp(x, -step)), step)",
                "units = np.ldexp(x, -step)\n"
                "down = np.copysign(np.ceil(np.abs(units) - 0.5), units)\n"
                "on_grid: Float = np.ldexp(down if fmt.bits == 4 else np.rint(units), step)",
            ),
        ),
        cite="deepseek-ai/DeepGEMM utils/math.py against deepseek-ai/TileKernels and ml_dtypes",
        trigger="numbers that are exactly halfway",
    ),
)
