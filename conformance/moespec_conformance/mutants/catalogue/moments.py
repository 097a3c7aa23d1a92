"""AdamW and its moments."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

STORE = 'nearest(moment, FORMATS["bfloat16"]) if cfg.moment_format == "bfloat16" else moment'
SIZE = "np.sqrt(exp_avg_sq / (1 - beta2**step)) + cfg.adam_epsilon"
STEP = "kept - cfg.learning_rate * (mean / size)"
FOUND = (
    Mutant(
        slug="moments-truncated",
        clause="OPT-2",
        symptom="Moments become bfloat16 by cutting off 16 bits.",
        edits=(
            Edit(
                "optim.stored",
                'return nearest(moment, FORMATS["bfloat16"])',
                "part, exponent = np.frexp(moment)\nreturn np.ldexp(np.trunc(part * 256), exponent - 8)",
            ),
        ),
        cite="DeepSeek-V3 names no rounding; ggml-org/llama.cpp and others shift: guess",
        trigger="any moments: all errors are toward zero",
        direction="training",
    ),
    Mutant(
        slug="moments-ties-away",
        clause="OPT-2",
        symptom="A moment halfway between two bfloat16 numbers goes away from zero: half is added, and bits cut off.",
        edits=(
            Edit(
                "optim.stored",
                'return nearest(moment, FORMATS["bfloat16"])',
                "part, exponent = np.frexp(moment)\n"
                "return np.ldexp(np.trunc(part * 256 + np.copysign(0.5, part)), exponent - 8)",
            ),
        ),
        cite="guess",
        trigger="moments of nine digits",
        direction="training",
    ),
    Mutant(
        slug="moments-float32",
        clause="OPT-2",
        symptom="Moments stay in float32 though bfloat16 was asked for.",
        edits=(Edit("optim.stored", STORE, "moment"),),
        cite="guess",
        trigger="any moments in bfloat16",
        direction="training",
    ),
    Mutant(
        slug="moments-always-bfloat16",
        clause="OPT-2",
        symptom="Moments are kept in bfloat16 though float32 was asked for.",
        edits=(Edit("optim.stored", STORE, 'nearest(moment, FORMATS["bfloat16"])'),),
        cite="moments that take the parameter's dtype: PyTorch's optim.AdamW on a bfloat16 model",
        trigger="any moments in float32",
        direction="training",
    ),
    Mutant(
        slug="moments-saturate",
        clause="OPT-2",
        symptom="A moment beyond the largest bfloat16 becomes the largest instead of infinite.",
        edits=(Edit("optim.stored", STORE, 'bf16(moment) if cfg.moment_format == "bfloat16" else moment'),),
        cite="guess",
        trigger="a squared gradient that overflows",
        direction="training",
    ),
    Mutant(
        slug="moments-rounded-before-use",
        clause="OPT-3",
        symptom="The step is made of moments that are rounded already.",
        edits=(
            Edit(
                "optim.adamw",
                "mean = exp_avg /",
                "exp_avg, exp_avg_sq = stored(exp_avg, cfg), stored(exp_avg_sq, cfg)\nmean = exp_avg /",
            ),
        ),
        cite="optimisers that update moments in place: PyTorch's optim.AdamW",
        trigger="moments in bfloat16",
        direction="training",
    ),
    Mutant(
        slug="moments-uncorrected",
        clause="OPT-1",
        symptom="Moments are not corrected for their beginning at 0.",
        edits=(
            Edit("optim.adamw", "exp_avg / (1 - beta1**step)", "exp_avg"),
            Edit("optim.adamw", "exp_avg_sq / (1 - beta2**step)", "exp_avg_sq"),
        ),
        cite="google-research/bert optimization.py",
        trigger="early steps",
        direction="training",
    ),
    Mutant(
        slug="moments-step-from-zero",
        clause="OPT-1",
        symptom="Steps are counted from 0, so that corrections are one step behind.",
        edits=(
            Edit("optim.adamw", "beta1**step", "beta1 ** max(step - 1, 1)"),
            Edit("optim.adamw", "beta2**step", "beta2 ** max(step - 1, 1)"),
        ),
        cite="guess",
        trigger="early steps",
        direction="training",
    ),
    Mutant(
        slug="moments-epsilon-in-root",
        clause="OPT-1",
        symptom="Epsilon stands inside the root.",
        edits=(Edit("optim.adamw", SIZE, "np.sqrt(exp_avg_sq / (1 - beta2**step) + cfg.adam_epsilon)"),),
        cite="google-deepmind/optax: eps_root beside eps",
        trigger="gradients about as small as epsilon",
        direction="training",
    ),
    Mutant(
        slug="moments-epsilon-before-correction",
        clause="OPT-1",
        symptom="Epsilon is added before the correction, as in the short form of Adam.",
        edits=(
            Edit("optim.adamw", SIZE, "(np.sqrt(exp_avg_sq) + cfg.adam_epsilon) / float(np.sqrt(1 - beta2**step))"),
        ),
        cite="tensorflow/tensorflow: epsilon hat of Adam's section 2",
        trigger="gradients about as small as epsilon, early steps",
        direction="training",
    ),
    Mutant(
        slug="moments-decay-in-gradient",
        clause="OPT-1",
        symptom="Weight decay is part of the gradient, so it is divided by the second moment.",
        edits=(
            Edit("optim.adamw", "exp_avg = beta1", "grad = grad + cfg.weight_decay * before.param\nexp_avg = beta1"),
            Edit("optim.adamw", "before.param * (1 - cfg.learning_rate * cfg.weight_decay)", "before.param"),
        ),
        cite="arXiv 1711.05101; PyTorch's optim.Adam beside AdamW",
        trigger="weight decay other than 0",
        direction="training",
    ),
    Mutant(
        slug="moments-decay-without-rate",
        clause="OPT-1",
        symptom="Weight decay is not multiplied with the learning rate.",
        edits=(Edit("optim.adamw", "cfg.learning_rate * cfg.weight_decay", "cfg.weight_decay"),),
        cite="arXiv 1711.05101 against PyTorch's optim.AdamW",
        trigger="weight decay other than 0",
        direction="training",
    ),
    Mutant(
        slug="moments-decay-after-step",
        clause="OPT-1",
        symptom="Weights decay after the step, and the step with them.",
        edits=(
            Edit("optim.adamw", "before.param * (1 - cfg.learning_rate * cfg.weight_decay)", "before.param"),
            Edit("optim.adamw", STEP, f"({STEP}) * (1 - cfg.learning_rate * cfg.weight_decay)"),
        ),
        cite="guess",
        trigger="a learning rate that is not small",
        direction="training",
    ),
    Mutant(
        slug="moments-betas-swapped",
        clause="OPT-1",
        symptom="Each beta is taken for the other.",
        edits=(Edit("optim.adamw", "= cfg.adam_beta1, cfg.adam_beta2", "= cfg.adam_beta2, cfg.adam_beta1"),),
        cite="guess",
        trigger="betas that differ",
        direction="training",
    ),
    Mutant(
        slug="moments-of-bfloat16-gradient",
        clause="OPT-1",
        symptom="Moments are made of a gradient that was rounded to bfloat16.",
        edits=(Edit("optim.adamw", "exp_avg = beta1", "grad = bf16(grad)\nexp_avg = beta1"),),
        cite="gradients that take the parameter's dtype: NVIDIA/Megatron-LM without fp32 accumulation",
        trigger="gradients of more than eight digits",
        direction="training",
    ),
    Mutant(
        slug="moments-bfloat16-weights",
        clause="OPT-1",
        symptom="Master weights are rounded to bfloat16, and small steps are lost.",
        edits=(Edit("optim.adamw", f"Trained({STEP}", f"Trained(bf16({STEP})"),),
        cite="training in bfloat16 without master weights",
        trigger="any step",
        direction="training",
    ),
    Mutant(
        slug="moments-of-old-mean",
        clause="OPT-1",
        symptom="The step is made of the moments before this gradient.",
        edits=(Edit("optim.adamw", "mean = exp_avg / (1 - beta1**step)", "mean = before.exp_avg / (1 - beta1**step)"),),
        cite="guess",
        trigger="a gradient that changes",
        direction="training",
    ),
)
