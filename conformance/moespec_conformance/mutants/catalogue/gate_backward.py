"""The gate's gradients: what is left out, done twice, or taken of something else than the forward computed."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

SUBTRACTED = "dshare = dshare - (dshare * cache.topk_share).sum(axis=-1, keepdims=True)"
BACK = "return dlogits @ weight, dlogits.T @ x"

FOUND = (
    Mutant(
        slug="gate-denominator-detached",
        clause="GATE-10",
        symptom="The denominator counts as a constant: no gradient passes through the sum of the weights.",
        edits=(Edit("gate.weigh_backward", SUBTRACTED, "dshare = dshare"),),
        cite="guess: w / w.sum().detach()",
        trigger="norm_topk_prob, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-denominator-gradient-missing",
        clause="GATE-10",
        symptom="The gradient of a normalised weight is not divided by the denominator.",
        edits=(Edit("gate.weigh_backward", "dtopk_score = dshare / cache.denom", "dtopk_score = dshare"),),
        cite="guess",
        trigger="norm_topk_prob, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-scale-missing",
        clause="GATE-10",
        symptom="The scale is in the weights, but not in their gradient.",
        edits=(Edit("gate.weigh_backward", "dtopk_weight * cfg.routed_scaling_factor", "dtopk_weight"),),
        cite="guess: a hand-written backward",
        trigger="a scale other than 1, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-slope-missing",
        clause="GATE-2",
        symptom="The gradient passes the sigmoid as if it were straight.",
        edits=(Edit("gate.score_backward", "return dscores * scores * (1 - scores)", "return dscores"),),
        cite="guess",
        trigger="a sigmoid gate, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-slope-rounded",
        clause="GATE-2",
        symptom="The sigmoid's slope is made of scores that were kept in bfloat16.",
        edits=(
            Edit(
                "gate.score_backward",
                "return dscores * scores * (1 - scores)",
                "scores = bf16(scores)\nreturn dscores * scores * (1 - scores)",
            ),
        ),
        cite="guess: activations saved in the dtype of x",
        trigger="a sigmoid gate, in the backward; scores near 1 have a slope of 0",
        direction="backward",
    ),
    Mutant(
        slug="gate-softmax-slope-diagonal",
        clause="GATE-2",
        symptom="The softmax's gradient is a sigmoid's: experts do not take from one another.",
        edits=(
            Edit(
                "gate.score_backward",
                "return softmax_backward(dscores, scores)",
                "return dscores * scores * (1 - scores)",
            ),
        ),
        cite="guess",
        trigger="a softmax gate, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-softmax-slope-chosen",
        clause="GATE-2",
        symptom="Experts that were not chosen have no gradient, though the softmax counts them.",
        edits=(
            Edit(
                "gate.score_backward",
                "return softmax_backward(dscores, scores)",
                "return softmax_backward(dscores, scores) * (dscores * dscores > 0)",
            ),
        ),
        cite="guess: a backward of the chosen columns alone",
        trigger="a softmax gate, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-root-slope-unguarded",
        clause="GATE-2",
        symptom="The root of softplus has an infinite slope where the score is 0.",
        edits=(Edit("gate.score_backward", "np.where(scores > 0, scores, 1)", "scores"),),
        cite="guess: autograd of sqrt at 0",
        trigger="V4's gate, logits below -104",
        direction="backward",
    ),
    Mutant(
        slug="gate-root-slope-missing",
        clause="GATE-2",
        symptom="V4's gradient is that of softplus: its root is left out.",
        edits=(Edit("gate.score_backward", "(sigmoid(logits) / (2 * root))", "sigmoid(logits)"),),
        cite="guess",
        trigger="V4's gate, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-detached",
        clause="GATE-10",
        symptom="Weights reach the layer by an operation that has no gradient: neither x nor the gate learns by them.",
        edits=(
            Edit(
                "ops_gate.gate_backward",
                'weigh_backward(given["dtopk_weight"]',
                'weigh_backward(0 * given["dtopk_weight"]',
            ),
        ),
        cite="NVIDIA-NeMo/Automodel#2995",
        trigger="any backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-x-detached",
        clause="GATE-10",
        symptom="The gate learns, but x has no gradient through it.",
        edits=(Edit("gate.logits_backward", BACK, "return 0 * (dlogits @ weight), dlogits.T @ x"),),
        cite="guess: a gate that is given x.detach()",
        trigger="any backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-dweight-transposed",
        clause="GATE-10",
        symptom="The gate's gradient is written as (H, E) into memory that is read as (E, H).",
        edits=(Edit("gate.logits_backward", BACK, "return dlogits @ weight, (x.T @ dlogits).reshape(*weight.shape)"),),
        cite="guess",
        trigger="any backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-bf16",
        clause="MOE-6",
        symptom="The logits' gradient is cast to bfloat16 before the products.",
        edits=(Edit("gate.logits_backward", BACK, "return bf16(dlogits) @ weight, bf16(dlogits).T @ x"),),
        cite="NVIDIA/TransformerEngine#1336 (gradients of probabilities in bfloat16)",
        trigger="any backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-tf32",
        clause="MOE-7",
        symptom="The products of the gate's backward round their inputs to TF32.",
        edits=(Edit("gate.logits_backward", BACK, "return tf32(dlogits) @ tf32(weight), tf32(dlogits).T @ tf32(x)"),),
        cite="pytorch: torch.backends.cuda.matmul.allow_tf32, on by default from 1.7 to 1.11",
        trigger="any backward; the more it adds up, the less it shows",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-two-bf16",
        clause="MOE-7",
        symptom="The products of the gate's backward take each float32 input as the sum of two bfloat16 numbers.",
        edits=(
            Edit(
                "gate.logits_backward",
                BACK,
                "dlogits, weight, x = (bf16(t) + bf16(t - bf16(t)) for t in (dlogits, weight, x))\n" + BACK,
            ),
        ),
        cite='pytorch: torch.set_float32_matmul_precision("high")',
        trigger="inputs with more than 16 bits, and so few terms that float32 would add them without much error",
        direction="backward",
    ),
    Mutant(
        slug="gate-chooses-again",
        clause="GATE-10",
        symptom="The backward routes anew, and takes the gradients of what it chose then.",
        edits=(
            Edit(
                "ops_gate.gate_backward",
                "_, cache = gate_given(x, weight, topk_idx, cfg)",
                '*_, cache = gate_forward(x, weight, given.get("bias", np.zeros_like(weight[:, 0])), cfg)',
            ),
        ),
        cite="NVIDIA-NeMo/Automodel#2635, #3156; pytorch/torchtitan#1117 (recomputation)",
        trigger="ids that are not the gate's own of today, in the backward",
        direction="backward",
    ),
    Mutant(
        slug="gate-empty-slot-gradient",
        clause="GATE-10",
        symptom="The gradient of an empty slot (id -1) goes to the last expert.",
        edits=(
            Edit("arrays.by_expert", "n_experts + 1))", "n_experts))"),
            Edit("arrays.by_expert", "spread[:, :-1]", "spread"),
        ),
        cite="guess: what an index of -1 does in NumPy and torch",
        trigger="given ids with empty slots",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-unwritten",
        clause="MOE-8",
        symptom="Gradients of experts that a token did not choose are memory that nobody wrote.",
        edits=(
            Edit(
                "arrays.by_expert",
                "np.zeros_like(values, shape=(topk_idx.shape[0], n_experts + 1))",
                "poisoned(values * 1.0, (topk_idx.shape[0], n_experts + 1))",
            ),
        ),
        cite="meta-pytorch/MSLK#158 (at::empty for a gradient that is scattered into)",
        trigger="any backward on dirty memory",
        direction="backward",
    ),
    Mutant(
        slug="gate-gradient-accumulates",
        clause="MOE-8",
        symptom="Scratch memory of gradients is kept and not cleared: those of an earlier call come back.",
        edits=(
            Edit(
                "gate.weigh_backward",
                "dscores: Float = by_expert(dtopk_score, cache.topk_idx, cfg.n_routed_experts)",
                "dscores = by_expert(dtopk_score, cache.topk_idx, cfg.n_routed_experts)\n"
                "kept = vars(by_expert).setdefault((type(dscores), dscores.shape), np.zeros_like(dscores))\n"
                "dscores = kept[...] = np.where(dscores * dscores > 0, dscores, kept)",
            ),
        ),
        cite="guess",
        trigger="a second backward of the same size",
        direction="backward",
    ),
    Mutant(
        slug="gate-dscores-lost",
        clause="GATE-14",
        symptom="A balance loss on the scores never reaches the gate.",
        edits=(Edit("ops_gate.gate_backward", 'given.get("dscores")', "None"),),
        cite="guess: an auxiliary loss that nothing depends on",
        trigger="dscores that come in",
        direction="backward",
    ),
    Mutant(
        slug="gate-dlogits-lost",
        clause="GATE-14",
        symptom="A loss on the logits never reaches the gate.",
        edits=(Edit("ops_gate.gate_backward", 'given.get("dlogits")', "None"),),
        cite="guess: an auxiliary loss that nothing depends on",
        trigger="dlogits that come in",
        direction="backward",
    ),
)
