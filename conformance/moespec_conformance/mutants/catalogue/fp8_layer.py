"""The layer in FP8: what is quantised where, on the way forward."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="fp8-router-reads-codes",
        clause="MFP-1",
        symptom="The router reads what x's codes stand for, not x.",
        edits=(
            Edit(
                "ops_moe_fp8",
                "from moespec.expert_fp8 import Fp8Expert, scheme_b",
                "from moespec.expert_fp8 import Fp8Expert, operand, scheme_b, sent_scheme, values",
            ),
            Edit(
                "ops_moe_fp8.moe_fp8",
                "noise, x=x, weight=",
                "noise, x=values(operand(x, sent_scheme(cfg))), weight=",
            ),
        ),
        cite="vllm-project/vllm#14027: a router in less precision than its layer's report says",
        trigger="any tokens",
    ),
    Mutant(
        slug="fp8-quantises-to-bfloat16",
        clause="QNT-4",
        symptom="What should be quantised in place is cast to bfloat16 instead of E4M3, and so hardly changes.",
        edits=(
            Edit("quant.quantized_numbers", "rounded(numbers, scheme.fmt)", 'rounded(numbers, FORMATS["bfloat16"])'),
        ),
        cite="deepseek-ai/DeepSeek-V4: one copy of act_quant's in-place branch",
        trigger="any tokens",
    ),
    Mutant(
        slug="fp8-x-per-tensor",
        clause="MFP-2",
        symptom="x has one scale for all tokens.",
        edits=(
            Edit(
                "moe_fp8.layer_forward",
                "x_codes = operand(x, sent_scheme(cfg))",
                "rows, parts = max(x.shape[0], 1), -(-x.shape[1] // cfg.a_block[1])\n"
                "whole = operand(x, sent_scheme(cfg)._replace(block=(rows, x.shape[1])))\n"
                "scale = np.repeat(np.repeat(whole.matrix.scale, rows, axis=0), parts, axis=1)\n"
                "x_codes = whole._replace(matrix=whole.matrix._replace(scale=scale), scheme=sent_scheme(cfg))",
            ),
        ),
        cite="sgl-project/sglang#26133; pytorch/ao: a scale a tensor",
        trigger="tokens of different sizes",
    ),
    Mutant(
        slug="fp8-dispatch-scale-float32",
        clause="MFP-2",
        symptom="What is sent between ranks has no powers of two as scales in DeepSeek-V3's recipe.",
        edits=(Edit("expert_fp8.sent_scheme", "scheme.rule.dispatch_scale or cfg.scale_format", "cfg.scale_format"),),
        cite="DeepSeek-V3, section 3.3.3, against deepseek-ai/DeepEP's float32 scales",
        trigger="tokens whose largest number is not 448 * 2^k",
    ),
    Mutant(
        slug="fp8-ue8m0-not-passed-on",
        clause="MFP-3",
        symptom="The wish for powers of two as scales does not reach the activations.",
        edits=(Edit("expert_fp8.scheme_a", "cfg.scale_format", '"float32"'),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py: scale_fmt is not passed to its parallel Linears",
        trigger="scale_format ue8m0",
    ),
    Mutant(
        slug="fp8-shared-own-codes",
        clause="MFP-2",
        symptom="The shared expert quantises x for itself, with scales that are no powers of two.",
        edits=(
            Edit(
                "moe_fp8",
                "    operand,\n",
                "    operand,\n    scheme_a,\n",
            ),
            Edit(
                "moe_fp8.layer_forward",
                "expert_forward(x, x_codes, np",
                "expert_forward(x, operand(x, scheme_a(cfg)), np",
            ),
        ),
        cite="guess",
        trigger="deepseek-v3 with a shared expert",
    ),
    Mutant(
        slug="fp8-weight-scale-not-found",
        clause="QNT-6",
        symptom="An expert's scales are in another shard of the checkpoint: its codes are taken for weights.",
        edits=(
            Edit(
                "ops_moe_fp8.matrix", 'given[f"{name}_scale"], scheme)', 'np.ones_like(given[f"{name}_scale"]), scheme)'
            ),
        ),
        cite="wuwangzhang1216/abliterix#93, #94; deepseek-ai/DeepSeek-V3@8f1c948",
        trigger="any checkpoint that is split",
    ),
    Mutant(
        slug="fp8-gate-up-scales-swapped",
        clause="MFP-3",
        symptom="gate_proj is read with up_proj's scales, and the other way round.",
        edits=(
            Edit(
                "ops_moe_fp8.matrix",
                'given[f"{name}_scale"]',
                'given[{"gate_proj": "up_proj", "up_proj": "gate_proj"}.get(name, name) + "_scale"]',
            ),
        ),
        cite="sgl-project/sglang#32430; huggingface/transformers#45930: scales of merged matrices",
        trigger="matrices whose scales differ",
    ),
    Mutant(
        slug="fp8-clamp-after-quantisation",
        clause="MFP-3",
        symptom="Gate and up are quantised before they are clamped.",
        edits=(
            Edit(
                "expert_fp8.expert_forward",
                "h = opened(gate, up, cfg)",
                "if cfg.swiglu_limit is not None:\n"
                "    gate, up = cached(gate, cfg), cached(up, cfg)\n"
                "h = opened(gate, up, cfg)",
            ),
        ),
        cite="vllm-project/vllm-ascend#9590",
        trigger="gates and ups beyond the limit, which take the digits of the others in their block",
    ),
    Mutant(
        slug="fp8-forward-reads-cache",
        clause="MFP-4",
        symptom="The forward makes h of the quantised gate and up that are kept for the backward.",
        edits=(
            Edit(
                "expert_fp8.expert_forward",
                "h = opened(gate, up, cfg)",
                "h = opened(cached(gate, cfg) if cfg.gated else gate, cached(up, cfg), cfg)",
            ),
        ),
        cite="DeepSeek-V3, section 3.5.2, read as of both directions: guess",
        trigger="any tokens",
    ),
    Mutant(
        slug="fp8-weight-after-quantisation",
        clause="MFP-3",
        symptom="A weight that should enter before down_proj is multiplied into its product instead.",
        edits=(
            Edit("expert_fp8.expert_forward", "h = row_weight[:, None] * h  # (N, F)", "pass"),
            Edit(
                "expert_fp8.expert_forward",
                'return (y if cfg.weight_position == "before_down" else row_weight[:, None] * y), cache',
                "return row_weight[:, None] * y, cache",
            ),
        ),
        cite="deepseek-ai/DeepGEMM sm100_fp8_fp4_mega_moe.cuh against deepseek-ai/DeepSeek-V3",
        trigger="weights that are no powers of two",
    ),
    Mutant(
        slug="fp4-lift-one-scale",
        clause="MFP-8",
        symptom="FP4 experts are lifted with the scales of expert 0.",
        edits=(
            Edit(
                "ops_moe_fp8.lifted",
                "lift(Quantized(*one), scheme, target)",
                "lift(Quantized(one[0], stored.scale[0]), scheme, target)",
            ),
        ),
        cite="guess",
        trigger="experts of different sizes",
    ),
)
