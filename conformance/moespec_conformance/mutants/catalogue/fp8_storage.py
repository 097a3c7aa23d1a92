"""Codes and scales as others store them: nibbles, bytes of E8M0, grids of scales."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="fp4-nibble-order",
        clause="FMT-5",
        symptom="The first of two FP4 numbers is sought, and put, in the high half of a byte.",
        edits=(
            Edit(
                "storage.pack",
                "codes[..., ::2] | codes[..., 1::2] << codes.dtype.type(4)",
                "codes[..., 1::2] | codes[..., ::2] << codes.dtype.type(4)",
            ),
            Edit("storage.unpack", "packed & 15", "packed >> 4"),
            Edit("storage.unpack", "1::2] = packed >> 4", "1::2] = packed & 15"),
        ),
        cite="pytorch/ao#2939; triton-lang/triton#5197; Comfy-Org/comfy-kitchen#41",
        trigger="any FP4 numbers",
    ),
    Mutant(
        slug="fp4-split-order",
        clause="FMT-5",
        symptom="Byte j of a block of 32 is taken to hold numbers j and j + 16, as in GGUF.",
        edits=(
            Edit(
                "storage.unpack",
                "return codes",
                "halves = codes.reshape(*codes.shape[:-1], codes.shape[-1] // 32, 16, 2)\n"
                "return halves.swapaxes(-1, -2).reshape(codes.shape)",
            ),
        ),
        cite="kekzl/imp#567",
        trigger="any FP4 numbers",
    ),
    Mutant(
        slug="fp8-e8m0-as-integer",
        clause="FMT-6",
        symptom="The byte of an E8M0 scale is taken for a number: 127 is 127 and not 1.",
        edits=(
            Edit(
                "storage.scale_inside",
                "SCALES[scale.view(np.uint8)]",
                "scale.view(np.uint8).astype(np.float32)",
            ),
        ),
        cite="local-inference-lab/b12x#61",
        trigger="any scales that come as bytes",
    ),
    Mutant(
        slug="fp8-e8m0-shifted",
        clause="FMT-6",
        symptom="An E8M0 byte is shifted into float32's exponent: byte 0 is 0 instead of 2^-127, NaN is infinity.",
        edits=(
            Edit(
                "storage.scale_inside",
                "SCALES[scale.view(np.uint8)]",
                "(scale.view(np.uint8).astype(np.uint32) << 23).view(np.float32)",
            ),
        ),
        cite="deepseek-ai/DeepGEMM fast_pow2",
        trigger="the least scale, and NaN",
    ),
    Mutant(
        slug="fp8-e8m0-packed-backwards",
        clause="FMT-6",
        symptom="Four E8M0 scales that share an int32 are read in the wrong order.",
        edits=(
            Edit(
                "storage.scale_inside",
                "return SCALES[scale.view(np.uint8)]",
                "last = scale.shape[-1] - 1\n"
                "return SCALES[scale.view(np.uint8)[..., np.minimum(np.arange(last + 1) ^ 3, last)]]",
            ),
        ),
        cite="sgl-project/sglang#9946; local-inference-lab/vllm#188: one side packs what the other does not",
        trigger="more than one block along a row, of different sizes",
    ),
    Mutant(
        slug="fp8-scale-exponent-only",
        clause="QNT-3",
        symptom="A kernel for powers of two keeps only the exponent of float32 scales that are given.",
        edits=(
            Edit(
                "storage.scale_inside",
                "e8m0fnu:\n        return scale",
                "e8m0fnu:\n    return scale / (2 * np.frexp(scale)[0])",
            ),
        ),
        cite="sgl-project/sglang#39193, #39289; deepseek-ai/DeepGEMM#112",
        trigger="scales that are no powers of two",
    ),
    Mutant(
        slug="fp8-scale-inverse",
        clause="QNT-6",
        symptom="What checkpoints call weight_scale_inv is divided by, though it is the multiplier.",
        edits=(Edit("quant.dequantize", "numbers * spread", "numbers / spread"),),
        cite="unslothai/unsloth-zoo#803",
        trigger="scales other than 1",
    ),
    Mutant(
        slug="fp8-scale-not-found",
        clause="QNT-6",
        symptom="Scales under another name are not found, and a checkpoint's codes are taken for the weights.",
        edits=(
            Edit(
                "quant.dequantize",
                "numbers * spread(quantized.scale, ",
                "numbers * spread(np.ones_like(quantized.scale), ",
            ),
        ),
        cite="wuwangzhang1216/abliterix#93, #94; deepseek-ai/DeepSeek-V3@8f1c948",
        trigger="scales other than 1",
    ),
    Mutant(
        slug="fp8-dequantized-to-bfloat16",
        clause="QNT-6",
        symptom="What codes and scales stand for is rounded to bfloat16, and quantised again from there.",
        edits=(
            Edit(
                "quant.dequantize",
                "return numbers * spread(quantized.scale, scheme.block, numbers.shape)",
                "return bf16(numbers * spread(quantized.scale, scheme.block, numbers.shape))",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3 inference/fp8_cast_bf16.py",
        trigger="scales that are no powers of two",
    ),
    Mutant(
        slug="fp8-grid-column-major",
        clause="QNT-1",
        symptom="The grid of scales is read column by column.",
        edits=(
            Edit(
                "quant.dequantize",
                "spread(quantized.scale, ",
                "spread(quantized.scale.T.reshape(quantized.scale.shape), ",
            ),
        ),
        cite="pytorch/ao#4229",
        trigger="more than one row and column of blocks, of different sizes",
    ),
    Mutant(
        slug="fp8-blocks-floor",
        clause="QNT-1",
        symptom="A ragged edge has no scale of its own, and takes that of the block before it.",
        edits=(
            Edit(
                "quant.spread",
                "return np.repeat(np.repeat(scale, bm, axis=0)[:m], bn, axis=1)[:, :n]",
                "down = np.minimum(np.arange(m) // bm, max(m // bm, 1) - 1)\n"
                "return scale[down][:, np.minimum(np.arange(n) // bn, max(n // bn, 1) - 1)]",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3 inference/kernel.py (its docstring says //); deepseek-ai/DeepEP#413, #454",
        trigger="sizes that are no multiples of the block",
    ),
    Mutant(
        slug="fp8-next-scale",
        clause="QNT-6",
        symptom="Each block along a row is read with the scale of the next one.",
        edits=(
            Edit(
                "quant.dequantize",
                "spread(quantized.scale, ",
                "spread(quantized.scale[:, np.arange(1, 1 + quantized.scale.shape[1]) % quantized.scale.shape[1]], ",
            ),
        ),
        cite="vllm-project/vllm#53345; flashinfer-ai/flashinfer#4087: equal scales hide it",
        trigger="blocks of different sizes",
    ),
    Mutant(
        slug="fp8-checkpoint-not-requantised",
        clause="QNT-7",
        symptom="A checkpoint's scales are rounded up to powers of two, and its codes stay as they are.",
        edits=(
            Edit(
                "quant.requantize",
                "return quantize(",
                "if scheme.block == target.block and scheme.format == target.format:\n"
                "    return Quantized(quantized.codes, power_of_two(quantized.scale * target.fmt.largest, target))\n"
                "return quantize(",
            ),
        ),
        cite="huggingface/transformers#47030; sgl-project/sglang#28662",
        trigger="scales that are no powers of two",
    ),
    Mutant(
        slug="fp4-lift-counts-zeros",
        clause="QNT-8",
        symptom="The scale of a part of zeros counts when FP4 is lifted to FP8, and the others' numbers are lost.",
        edits=(
            Edit(
                "quant.lift",
                "np.where(numbers != 0, spread(quantized.scale, scheme.block, numbers.shape), 0)",
                "spread(quantized.scale, scheme.block, numbers.shape)",
            ),
        ),
        cite="guess",
        trigger="parts of zeros whose scale is far above the others'",
    ),
    Mutant(
        slug="fp4-lift-keeps-codes",
        clause="QNT-8",
        symptom="FP4 becomes FP8 with one scale for all parts of a block, though their own scales differ.",
        edits=(Edit("quant.lift", "numbers * (each / spread(scale, target.block, numbers.shape))", "numbers * 64"),),
        cite="guess",
        trigger="parts of different sizes in one block",
    ),
    Mutant(
        slug="fp4-lift-without-subnormals",
        clause="QNT-8",
        symptom="What FP4 leaves for E4M3's subnormal numbers is lost when it is lifted.",
        edits=(
            Edit(
                "quant.lift",
                "return Quantized(encode(numbers,",
                "numbers = np.where(np.abs(numbers) < 2.0**target.fmt.emin, 0 * numbers, numbers)\n"
                "return Quantized(encode(numbers,",
            ),
        ),
        cite="deepseek-ai/TileKernels per_block_cast_lossless_kernel.py asks for scales within 2^11",
        trigger="scales of one block that are more than 2^11 apart",
    ),
)
