"""The layer in FP8, backward: what gradients are made of."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="fp8-cache-in-high-precision",
        clause="MFP-4",
        symptom="The backward reads gate and up as they came, not what is left of them in FP8.",
        edits=(Edit("expert_fp8.cached", "values(operand(a, scheme_a(cfg))) if a.shape[1] else a", "a"),),
        cite="NVIDIA/TransformerEngine against DeepSeek-V3, section 3.5.2",
        trigger="any gradient",
        direction="backward",
    ),
    Mutant(
        slug="fp8-gradients-e5m2",
        clause="MFP-5",
        symptom="Gradients are quantised in E5M2.",
        edits=(
            Edit(
                "expert_fp8.expert_backward",
                "dy_codes = operand(dy, sent_scheme(cfg))",
                'dy_codes = operand(dy, sent_scheme(cfg)._replace(format="e5m2"))',
            ),
            Edit(
                "expert_fp8.expert_backward",
                "codes = operand(d, scheme_a(cfg))",
                'codes = operand(d, scheme_a(cfg)._replace(format="e5m2"))',
            ),
        ),
        cite="NVIDIA/TransformerEngine's HYBRID against DeepSeek-V3, section 3.3.2",
        trigger="any gradient",
        direction="backward",
    ),
    Mutant(
        slug="fp8-dy-scale-float32",
        clause="MFP-5",
        symptom="The gradient on its way to the experts has no powers of two as scales.",
        edits=(
            Edit(
                "expert_fp8.expert_backward",
                "dy_codes = operand(dy, sent_scheme(cfg))",
                "dy_codes = operand(dy, scheme_a(cfg))",
            ),
        ),
        cite="DeepSeek-V3, section 3.3.3: the activation before dispatch alone, or its gradient as well",
        trigger="any gradient",
        direction="backward",
    ),
    Mutant(
        slug="fp8-dy-quantised-before-weight",
        clause="MFP-5",
        symptom="The gradient is quantised where it is sent, and weighted at its expert.",
        edits=(
            Edit(
                "expert_fp8.expert_backward",
                "dy_codes = operand(dy, sent_scheme(cfg))",
                "dy_codes = operand(dy / weight if after else dy, sent_scheme(cfg))",
            ),
            Edit(
                "expert_fp8.expert_backward",
                "dh = matmul(dy_codes, transposed(weights.down_proj), how)",
                "dh = matmul(dy_codes, transposed(weights.down_proj), how)\ndh = weight * dh if after else dh",
            ),
        ),
        cite="deepseek-ai/DeepEP#112: where are weights applied?",
        trigger="weights that are no powers of two",
        direction="backward",
    ),
    Mutant(
        slug="fp8-wgrad-from-codes",
        clause="MFP-6",
        symptom="Blocks along the tokens are made of codes where the recipe makes them of values: quantised twice.",
        edits=(Edit("expert_fp8.by_token", 'if codes.scheme.rule.wgrad_from == "codes" else x', "if True else x"),),
        cite="NVIDIA/TransformerEngine#1490",
        trigger="any gradient, in a recipe that quantises from the values",
        direction="backward",
    ),
    Mutant(
        slug="fp8-wgrad-from-values",
        clause="MFP-6",
        symptom="Blocks along the tokens are made of the values where DeepSeek-V3 has only FP8 codes.",
        edits=(Edit("expert_fp8.by_token", 'if codes.scheme.rule.wgrad_from == "codes" else x', "if False else x"),),
        cite="NVIDIA/TransformerEngine Float8BlockScaling against DeepSeek-V3; deepseek-ai/DeepGEMM#10",
        trigger="any gradient, in a recipe that has only codes",
        direction="backward",
    ),
    Mutant(
        slug="fp8-wgrad-square-blocks",
        clause="MFP-6",
        symptom="What enters the gradient of weights is quantised in blocks of 128x128.",
        edits=(
            Edit(
                "expert_fp8.by_token",
                "codes.scheme._replace(block=cfg.a_block)",
                "codes.scheme._replace(block=(128, 128))",
            ),
        ),
        cite="DeepSeek-V3, appendix B.2: a 16B model diverged",
        trigger="channels of different sizes",
        direction="backward",
    ),
    Mutant(
        slug="fp8-wgrad-blocks-along-channels",
        clause="MFP-6",
        symptom="What enters the gradient of weights stays in blocks along the channels.",
        edits=(
            Edit(
                "expert_fp8.by_token",
                "operand(source.T, codes.scheme._replace(block=cfg.a_block))",
                "transposed(operand(source, codes.scheme))",
            ),
        ),
        cite="deepseek-ai/DeepGEMM#10",
        trigger="any gradient",
        direction="backward",
    ),
    Mutant(
        slug="fp8-wgrad-unwritten",
        clause="MFP-6",
        symptom="The gradients of experts without tokens are memory that nobody wrote.",
        edits=(Edit("ops_moe_fp8.gradients", "np.zeros_like(x, shape=shape)", "poisoned(x, shape)"),),
        cite="pytorch/torchtitan#1166; NVIDIA-NeMo/Automodel#532; ROCm/TransformerEngine#161",
        trigger="an expert without tokens",
        direction="backward",
    ),
    Mutant(
        slug="fp8-gradient-of-scale",
        clause="MFP-7",
        symptom="The gradient of x is divided by the scales its codes had.",
        edits=(
            Edit(
                "expert_fp8.expert_backward",
                "return dx, drow_weight",
                "scaled = Quantized(dx, 1 / cache.x_codes.matrix.scale)\n"
                "return values(Operand(scaled, cache.x_codes.scheme)), drow_weight",
            ),
        ),
        cite="guess",
        trigger="scales other than 1",
        direction="backward",
    ),
)
