"""One recipe's rule under another's name."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

OF_TE = "NVIDIA/TransformerEngine Float8BlockScaling"
OF_MX = "OCP Microscaling Formats 1.0 against cuBLAS and NVIDIA/TransformerEngine; pytorch/ao#1643"
V3, GEMM, TILE = '"deepseek-v3": Recipe(', 'Recipe(apply="reciprocal",', '"tilekernels": Recipe(apply="inverse")'
FOUND = (
    Mutant(
        slug="fp8-v3-multiplies",
        clause="QNT-4",
        symptom="DeepSeek-V3's quantiser multiplies with one over the scale, as DeepGEMM's does.",
        edits=(Edit("recipes", V3, V3 + 'apply="reciprocal", '),),
        cite="deepseek-ai/DeepGEMM utils/math.py against deepseek-ai/DeepSeek-V3 inference/kernel.py",
        trigger="quotients just beside the middle between two codes: 5 of 10,000",
    ),
    Mutant(
        slug="fp8-v3-multiplies-with-quotient",
        clause="QNT-4",
        symptom="DeepSeek-V3's quantiser multiplies with 448 / amax, as TileKernels' does.",
        edits=(Edit("recipes", V3, V3 + 'apply="inverse", '),),
        cite="deepseek-ai/TileKernels quant/common.py against deepseek-ai/DeepSeek-V3 inference/kernel.py",
        trigger="quotients just beside the middle between two codes: 3 of 10,000",
    ),
    Mutant(
        slug="fp8-deepgemm-divides",
        clause="QNT-4",
        symptom="DeepGEMM's quantiser divides by the scale, as DeepSeek-V3's does.",
        edits=(Edit("recipes", GEMM, "Recipe("),),
        cite="deepseek-ai/DeepSeek-V3 inference/kernel.py against deepseek-ai/DeepGEMM utils/math.py",
        trigger="quotients just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-tilekernels-reciprocal",
        clause="QNT-4",
        symptom="TileKernels' quantiser multiplies with one over the scale, as DeepGEMM's does.",
        edits=(Edit("recipes", TILE, TILE.replace("inverse", "reciprocal")),),
        cite="deepseek-ai/DeepGEMM utils/math.py against deepseek-ai/TileKernels quant/common.py",
        trigger="quotients just beside the middle between two codes",
    ),
    Mutant(
        slug="fp8-te-ratio",
        clause="QNT-2",
        symptom="TransformerEngine's scale is amax / 448 instead of one over 448 / amax.",
        edits=(
            Edit(
                "recipes",
                'scale_of="inverse",\n        apply="inverse",\n        odd_scale',
                'apply="inverse",\n    odd_scale',
            ),
        ),
        cite=f"{OF_TE} against deepseek-ai/DeepSeek-V3",
        trigger="a quarter of all blocks, by one place of float32",
    ),
    Mutant(
        slug="fp8-te-zero-block",
        clause="QNT-2",
        symptom="TransformerEngine's scale of a block of zeros is not 1.",
        edits=(Edit("recipes", "        zero_scale=1.0,\n", ""),),
        cite=f"{OF_TE} against deepseek-ai/DeepSeek-V3",
        trigger="blocks of zeros",
    ),
    Mutant(
        slug="fp8-te-odd-block",
        clause="QNT-5",
        symptom="TransformerEngine's scale of a block with an infinity is NaN instead of 1.",
        edits=(Edit("recipes", "        odd_scale=1.0,\n", ""),),
        cite=f"{OF_TE} against deepseek-ai/DeepGEMM",
        trigger="infinity in a block",
    ),
    Mutant(
        slug="fp8-te-counts-nan",
        clause="QNT-5",
        symptom="In TransformerEngine's recipe NaN makes a block's scale 1, though it should not count.",
        edits=(Edit("recipes", "        skips_nan=True,\n", ""),),
        cite=f"{OF_TE} against pytorch/pytorch: amax propagates NaN",
        trigger="NaN in a block",
    ),
    Mutant(
        slug="fp8-torchao-floor",
        clause="QNT-2",
        symptom="torchao's floor is 1e-4 instead of 1e-12.",
        edits=(Edit("recipes", "floor=1e-12, ", ""),),
        cite="pytorch/ao blockwise_fp8_training against deepseek-ai/DeepGEMM#109",
        trigger="blocks whose largest magnitude is below 1e-4",
    ),
    Mutant(
        slug="fp8-torchao-ratio",
        clause="QNT-2",
        symptom="torchao's scale is amax / 448 instead of one over 448 / amax.",
        edits=(Edit("recipes", 'floor_fp4=1e-12, scale_of="inverse"', "floor_fp4=1e-12"),),
        cite="pytorch/ao blockwise_fp8_training against deepseek-ai/DeepSeek-V3",
        trigger="a quarter of all blocks, by one place of float32",
    ),
    Mutant(
        slug="fp8-mx-floor-rounds-up",
        clause="QNT-3",
        symptom="OCP's power of two is that above instead of that below.",
        edits=(Edit("recipes", '"mx-floor": MX._replace(scale_of="floor")', '"mx-floor": MX'),),
        cite=OF_MX,
        trigger="any blocks",
    ),
    Mutant(
        slug="fp8-mx-rceil-rounds-down",
        clause="QNT-3",
        symptom="The power of two above is that below, as OCP has it.",
        edits=(Edit("recipes", '"mx-rceil": MX,', '"mx-rceil": MX._replace(scale_of="floor"),'),),
        cite=OF_MX,
        trigger="any blocks",
    ),
    Mutant(
        slug="fp4-v4-rounds-down",
        clause="QNT-3",
        symptom="FP4 scales of DeepSeek-V4 are OCP's powers of two below, not those above.",
        edits=(Edit("recipes", 'Recipe(format="e2m1",', 'Recipe(scale_of="floor", format="e2m1",'),),
        cite="vllm-project/vllm#43557; ROCm/aiter#3212",
        trigger="most blocks",
    ),
    Mutant(
        slug="fp4-v4-floor",
        clause="QNT-2",
        symptom="FP4 blocks of DeepSeek-V4 have DeepGEMM's floor, 1e-4.",
        edits=(Edit("recipes", 'Recipe(format="e2m1",', 'Recipe(floor_fp4=1e-4, format="e2m1",'),),
        cite="deepseek-ai/DeepGEMM utils/math.py against deepseek-ai/TileKernels",
        trigger="FP4 blocks whose largest magnitude is below 1e-4",
    ),
)
