"""What lies between an expert's products: activations, their slopes, and V4's limit."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

# Abramowitz and Stegun 7.1.26: the Gaussian's distribution to 1e-7
CDF = (
    "z = np.maximum(x, -x) * 0.7071067811865476\n"
    "r = 1 / (1 + 0.3275911 * z)\n"
    "r = r * (0.254829592 + r * (r * (1.421413741 + r * (r * 1.061405429 - 1.453152027)) - 0.284496736))\n"
    "r = r * np.exp(-z * z)\n"
    "cdf = np.where(x >= 0, 2 - r, r) / 2\n"
)
# of [gate; up], cut in the middle, each half is split into a gate and an up again
CUT = (
    "half = (up.shape[1] + 1) // 2\n"
    "own = np.concatenate([gate[:, :half], up[:, : up.shape[1] - half]], axis=1)\n"
    "gate, up = own, np.concatenate([gate[:, half:], up[:, up.shape[1] - half :]], axis=1)\n"
)
PLAIN = 'cfg = type(cfg).from_dict({**cfg.to_dict(), "swiglu_limit": None})\n'

FOUND = (
    Mutant(
        slug="expert-fused-shard",
        clause="EXP-1",
        symptom="Two ranks cut the stacked [gate; up] in the middle: one has all gates, the other all ups.",
        edits=(
            Edit("activation.opened", "gate, up = clamped(gate, up, cfg)", CUT + "gate, up = clamped(gate, up, cfg)"),
            Edit("activation.slopes", "low, mid = clamped(gate, up, cfg)", CUT + "low, mid = clamped(gate, up, cfg)"),
            Edit(
                "expert.hidden_backward",
                "dup = dh * by_up  # (N, F)",
                "dup = dh * by_up\nif dgate.shape[1]:\n"
                "    half = (dup.shape[1] + 1) // 2\n"
                "    own = np.concatenate([dgate[:, :half], dup[:, : dup.shape[1] - half]], axis=1)\n"
                "    dgate, dup = own, np.concatenate([dgate[:, half:], dup[:, dup.shape[1] - half :]], axis=1)",
            ),
        ),
        cite="sgl-project/sglang#15432",
        trigger="any expert split over two ranks",
    ),
    Mutant(
        slug="expert-no-swiglu-limit",
        clause="EXP-5",
        symptom="Routed experts have lost their swiglu_limit.",
        edits=(
            Edit("expert.weighted_forward", "if cfg.weight_position", PLAIN + "if cfg.weight_position"),
            Edit("expert.weighted_backward", "expert, row_weight, plain", PLAIN + "expert, row_weight, plain"),
        ),
        cite="vllm-project/vllm-ascend#14363, #14364",
        trigger="pre-activations beyond the limit of 10, which ordinary numbers do not reach",
    ),
    Mutant(
        slug="expert-limit-gate-symmetric",
        clause="EXP-5",
        symptom="The gate is limited from below as well.",
        edits=(
            Edit(
                "activation.clamped",
                "return np.minimum(gate, limit), up",
                "return np.maximum(np.minimum(gate, limit), -limit), up",
            ),
            Edit(
                "activation.slopes",
                "np.where(gate > limit, 0, by_gate)",
                "np.where(gate > limit, 0, np.where(gate < -limit, 0, by_gate))",
            ),
        ),
        cite="guess; torch.clamp(x, -limit, limit) for both is the obvious reading of a limit",
        trigger="gates below -limit",
    ),
    Mutant(
        slug="expert-limit-after-activation",
        clause="EXP-5",
        symptom="The limit holds for silu(gate) instead of for the gate.",
        edits=(
            Edit(
                "activation.opened",
                "gate, up = clamped(gate, up, cfg)  # (N, F)\n    h = activation(gate)",
                "h, up = clamped(activation(gate), up, cfg)",
            ),
            Edit(
                "activation.slopes",
                "by_up, by_gate = slope(low)",
                "gate, by_gate = slope(gate)\nby_up, _ = clamped(gate, up, cfg)",
            ),
        ),
        cite="guess; the order is spelled out in TileKernels' swiglu and DeepSeek-V4's Expert",
        trigger="gates a little below and beyond the limit",
    ),
    Mutant(
        slug="expert-limit-up-above-only",
        clause="EXP-5",
        symptom="The up projection is limited from above alone, as the gate is.",
        edits=(
            Edit("activation.clamped", "np.maximum(np.minimum(up, limit), -limit)", "np.minimum(up, limit)"),
            Edit("activation.slopes", "np.where(up < -limit, 0, by_up)", "by_up"),
        ),
        cite="guess",
        trigger="ups below -limit",
    ),
    Mutant(
        slug="expert-limit-gradient-stops-at-it",
        clause="EXP-5",
        symptom="At the limit itself no gradient passes.",
        edits=(
            Edit("activation.slopes", "gate > limit", "gate >= limit"),
            Edit("activation.slopes", "up > limit", "up >= limit"),
            Edit("activation.slopes", "up < -limit", "up <= -limit"),
        ),
        cite="guess; TileKernels, Megatron and torch.clamp let it pass",
        trigger="pre-activations just at the limit",
        direction="backward",
    ),
    Mutant(
        slug="expert-limit-gradient-passes",
        clause="EXP-5",
        symptom="Gradients pass beyond the limit as if it were not there.",
        edits=(Edit("activation.slopes", "if limit is not None:", "if False:"),),
        cite="guess",
        trigger="pre-activations beyond the limit, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-limit-forgotten-in-recompute",
        clause="EXP-5",
        symptom="The backward computes its activations anew, and from gates and ups without the limit.",
        edits=(Edit("activation.slopes", "low, mid = clamped(gate, up, cfg)", "low, mid = gate, up"),),
        cite="guess; TileKernels computes them anew",
        trigger="pre-activations beyond the limit, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-silu-by-tanh",
        clause="EXP-2",
        symptom="sigmoid is 0.5 * tanh(x / 2) + 0.5: no digits are left of a small one.",
        edits=(
            Edit("activation.silu", "x / (1 + np.exp(-x))", "x * (0.5 * np.tanh(x / 2) + 0.5)"),
            Edit("activation.silu_slope", "1 / (1 + np.exp(-x))", "0.5 * np.tanh(x / 2) + 0.5"),
        ),
        cite="flashinfer-ai/flashinfer#3803 (the same sigmoid, in a gate)",
        trigger="gates below about -8",
    ),
    Mutant(
        slug="expert-silu-overflows",
        clause="EXP-2",
        symptom="silu is x * exp(x) / (1 + exp(x)): NaN from x = 89 on.",
        edits=(
            Edit("activation.silu", "x / (1 + np.exp(-x))", "x * np.exp(x) / (1 + np.exp(x))"),
            Edit("activation.silu_slope", "1 / (1 + np.exp(-x))", "np.exp(x) / (1 + np.exp(x))"),
        ),
        cite="guess",
        trigger="gates beyond 89",
    ),
    Mutant(
        slug="expert-silu-slope-of-sigmoid",
        clause="EXP-2",
        symptom="The slope of silu is sigmoid alone, as if that were a constant.",
        edits=(Edit("activation.silu_slope", "s + a * (1 - s)", "s"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-gelu-erf",
        clause="EXP-2",
        symptom="gelu_pytorch_tanh is computed as gelu, by the Gaussian itself.",
        edits=(
            Edit(
                "activation.gelu",
                "a: Float = x / 2 * (1 + np.tanh(c * (x + cubic * (x * x * x))))",
                CDF + "a: Float = x * cdf",
            ),
            Edit("activation.gelu_slope", "t = np.tanh(c * (x + cubic * (x * x * x)))", CDF + "t = 2 * cdf - 1"),
            Edit(
                "activation.gelu_slope",
                "bell = x / 2 * (1 - t * t) * c",
                "bell, cubic = x * 0.3989422804014327 * np.exp(-z * z), 0",
            ),
        ),
        cite="guess; both are called gelu, and torch's default is the other one",
        trigger="any input of gelu experts",
    ),
    Mutant(
        slug="expert-gelu-quick",
        clause="EXP-2",
        symptom="gelu is x * sigmoid(1.702 x).",
        edits=(
            Edit(
                "activation.gelu",
                "a: Float = x / 2 * (1 + np.tanh(c * (x + cubic * (x * x * x))))",
                "a: Float = x / (1 + np.exp(-1.702 * x))",
            ),
            Edit("activation.gelu_slope", "c * (x + cubic * (x * x * x))", "0.851 * x"),
            Edit("activation.gelu_slope", "* (1 - t * t) * c", "* (1 - t * t) * 0.851"),
            Edit("activation.gelu_slope", "3 * cubic *", "0 *"),
        ),
        cite="guess; quick_gelu of CLIP, and gpt-oss's gate",
        trigger="any input of gelu experts",
    ),
    Mutant(
        slug="expert-relu-slope-one-at-zero",
        clause="EXP-2",
        symptom="The slope of relu at 0 is 1.",
        edits=(Edit("activation.relu_slope", "x > 0", "x >= 0"),),
        cite="guess",
        trigger="pre-activations of just 0, backward",
        direction="backward",
    ),
    Mutant(
        slug="expert-activation-ignored",
        clause="CFG-13",
        symptom="Whatever hidden_act says, experts open by silu.",
        edits=(
            Edit("activation.opened", "ACTIVATIONS[cfg.hidden_act]", 'ACTIVATIONS["silu"]'),
            Edit("activation.slopes", "ACTIVATIONS[cfg.hidden_act]", 'ACTIVATIONS["silu"]'),
        ),
        cite="guess; PrimeIntellect-ai/prime-rl#2681 is of this kind (a config field under another name is not seen)",
        trigger="Grok-1, GLaM, Switch",
    ),
)
