"""The gate's logits and scores: their precision, and formulas that are equal only on paper."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FAST = " * 1.4426950408889634 * 0.6931471805599453)"  # exp(x) as a power of two: x in units of log 2, rounded, and back

FOUND = (
    Mutant(
        slug="gate-bf16-logits",
        clause="GATE-1",
        symptom="Logits are rounded to bfloat16 before experts are chosen.",
        edits=(Edit("gate.logits_forward", "return x @ weight.T", "return bf16(x @ weight.T)"),),
        cite="vllm-project/vllm#14027; NVIDIA-NeMo/Automodel#2201; ROCm/ATOM#746",
        trigger="scores that are close: 2 to 3 % of random tokens",
    ),
    Mutant(
        slug="gate-bf16-inputs",
        clause="GATE-1",
        symptom="The gate's product takes x and weight in bfloat16, as the other linear maps do.",
        edits=(Edit("gate.logits_forward", "return x @ weight.T", "return bf16(x) @ bf16(weight).T"),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py (Gate.forward; V3.2-Exp has x.float())",
        trigger="any input with more than 8 bits: 9 to 17 % of random tokens go elsewhere",
    ),
    Mutant(
        slug="gate-tf32-inputs",
        clause="GATE-1",
        symptom="The gate's product rounds its inputs to TF32.",
        edits=(Edit("gate.logits_forward", "return x @ weight.T", "return tf32(x) @ tf32(weight).T"),),
        cite="pytorch: torch.backends.cuda.matmul.allow_tf32, on by default from 1.7 to 1.11",
        trigger="any input with more than 10 bits; the more it adds up, the less it shows",
    ),
    Mutant(
        slug="gate-two-bf16-inputs",
        clause="GATE-1",
        symptom="The gate's product takes each float32 input as the sum of two bfloat16 numbers.",
        edits=(
            Edit(
                "gate.logits_forward",
                "return x @ weight.T",
                "x, weight = (bf16(t) + bf16(t - bf16(t)) for t in (x, weight))\nreturn x @ weight.T",
            ),
        ),
        cite='pytorch: torch.set_float32_matmul_precision("high")',
        trigger="inputs with more than 16 bits, and so few terms that float32 would add them without much error",
    ),
    Mutant(
        slug="gate-bf16-scores",
        clause="GATE-2",
        symptom="Scores are cast back to bfloat16 before they are compared and weighed.",
        edits=(
            Edit("gate.gate_forward", "scores = score(logits, cfg)", "scores = bf16(score(logits, cfg))"),
            Edit("gate.gate_given", "scores = score(logits, cfg)", "scores = bf16(score(logits, cfg))"),
        ),
        cite="NVIDIA-NeMo/Automodel#2201",
        trigger="any input; saturated scores then tie",
    ),
    Mutant(
        slug="gate-softmax-for-sigmoid",
        clause="GATE-2",
        symptom="A gate whose metadata does not say how it scores falls back to softmax.",
        edits=(
            Edit("gate.score", '== "softmax"', 'in ("softmax", "sigmoid")'),
            Edit("gate.score_backward", '== "softmax"', 'in ("softmax", "sigmoid")'),
        ),
        cite="ggml-org/llama.cpp#18980; ikawrakow/ik_llama.cpp#1174; EricLBuehler/mistral.rs#1091",
        trigger="any sigmoid gate",
    ),
    Mutant(
        slug="gate-sigmoid-for-sqrtsoftplus",
        clause="GATE-2",
        symptom="V4 is served by V3's routing method: the sigmoid in place of the root of softplus.",
        edits=(
            Edit("gate.score", '== "sigmoid"', 'in ("sigmoid", "sqrtsoftplus")'),
            Edit("gate.score_backward", '== "sigmoid"', 'in ("sigmoid", "sqrtsoftplus")'),
        ),
        cite="flashinfer-ai/flashinfer#5190, #5211",
        trigger="any V4 gate",
    ),
    Mutant(
        slug="gate-softplus-without-root",
        clause="GATE-2",
        symptom="V4's score is softplus itself: its root is left out.",
        edits=(
            Edit("gate.score", "np.sqrt(softplus(logits))", "softplus(logits)"),
            Edit("gate.score_backward", "(sigmoid(logits) / (2 * root))", "sigmoid(logits)"),
        ),
        cite="guess",
        trigger="any V4 gate",
    ),
    Mutant(
        slug="gate-softplus-naive",
        clause="ARR-7",
        symptom="softplus is written log(1 + exp(x)): 0 below about -17, and infinite from 89 on.",
        edits=(
            Edit(
                "arrays.softplus",
                "np.where(x >= 0, x, 0) + np.log1p(np.exp(np.where(x >= 0, -x, x)))",
                "np.log(1 + np.exp(x))",
            ),
        ),
        cite="sgl-project/sglang#34459",
        trigger="logits far from 0 on either side",
    ),
    Mutant(
        slug="gate-softplus-overflow",
        clause="ARR-7",
        symptom="softplus is written log1p(exp(x)): right for small x, infinite from 89 on.",
        edits=(
            Edit(
                "arrays.softplus",
                "np.where(x >= 0, x, 0) + np.log1p(np.exp(np.where(x >= 0, -x, x)))",
                "np.log1p(np.exp(x))",
            ),
        ),
        cite="sgl-project/sglang#34459",
        trigger="logits of 89 or more",
    ),
    Mutant(
        slug="gate-sigmoid-by-tanh",
        clause="ARR-1",
        symptom="The sigmoid is tanh(x / 2) / 2 + 1 / 2: a small score has few digits, and below -18 none.",
        edits=(Edit("arrays.sigmoid", "np.where(x >= 0, 1, e) / (1 + e)", "np.tanh(x / 2) / 2 + 0.5"),),
        cite="flashinfer-ai/flashinfer#3803 (a token whose scores are all 0)",
        trigger="logits of -8 or less",
    ),
    Mutant(
        slug="gate-sigmoid-overflow",
        clause="ARR-1",
        symptom="The sigmoid is exp(x) / (1 + exp(x)) on both sides: NaN from 89 on.",
        edits=(
            Edit("arrays.sigmoid", "np.exp(np.where(x >= 0, -x, x))", "np.exp(x)"),
            Edit("arrays.sigmoid", "np.where(x >= 0, 1, e)", "e"),
        ),
        cite="guess",
        trigger="logits of 89 or more",
    ),
    Mutant(
        slug="gate-softmax-overflow",
        clause="ARR-8",
        symptom="The softmax does not take the row's largest off first.",
        edits=(Edit("arrays.softmax", "np.exp(x - x.max(axis=-1, keepdims=True))", "np.exp(x)"),),
        cite="guess",
        trigger="logits of 89 or more, or all below -104",
    ),
    Mutant(
        slug="gate-fast-sigmoid",
        clause="ARR-1",
        symptom="The sigmoid's exp is a power of two of x / log 2, rounded once: an error that grows with x.",
        edits=(Edit("arrays.sigmoid", "np.exp(np.where(x >= 0, -x, x))", "np.exp(np.where(x >= 0, -x, x)" + FAST),),
        cite="CUDA's __expf and -use_fast_math: 2 + floor(|1.173 x|) units in the last place",
        trigger="logits far below 0 that are themselves exact",
    ),
    Mutant(
        slug="gate-fast-softplus",
        clause="ARR-7",
        symptom="The exp of softplus is a power of two of x / log 2, rounded once: an error that grows with x.",
        edits=(Edit("arrays.softplus", "np.where(x >= 0, -x, x)))", "np.where(x >= 0, -x, x)" + FAST + ")"),),
        cite="CUDA's __expf and -use_fast_math: 2 + floor(|1.173 x|) units in the last place",
        trigger="logits far below 0 that are themselves exact",
    ),
)
