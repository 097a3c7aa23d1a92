"""The shared expert: added once, to every token, as it is."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

PLAIN = 'type(cfg).from_dict({**cfg.to_dict(), "swiglu_limit": None})'
FORWARD = "expert_forward(x, shared_of(w), cfg)"
BACKWARD = "expert_backward(dy, cache.shared, shared_of(weights), shared_of(dweights), cfg)"

FOUND = (
    Mutant(
        slug="shared-left-out",
        clause="MOE-1",
        symptom="The shared expert is never added.",
        edits=(
            Edit("ops.moe", '"y": routed + shared', '"y": routed'),
            Edit("moe.layer_backward", BACKWARD, BACKWARD.replace("dy,", "0 * dy,")),
        ),
        cite="sgl-project/sglang#38963",
        trigger="any",
    ),
    Mutant(
        slug="shared-scaled",
        clause="GATE-8",
        symptom="routed_scaling_factor multiplies the shared expert, too.",
        edits=(
            Edit("ops.moe", '"y": routed + shared', '"y": routed + cfg.routed_scaling_factor * shared'),
            Edit("moe.layer_backward", BACKWARD, BACKWARD.replace("dy,", "cfg.routed_scaling_factor * dy,")),
        ),
        cite="sgl-project/sglang#28237 is of this kind (the shared expert at 0.4 of its size)",
        trigger="a scale other than 1",
    ),
    Mutant(
        slug="shared-divided",
        clause="GATE-8",
        symptom="The shared expert is divided by routed_scaling_factor, for a factor outside that never comes.",
        edits=(
            Edit("ops.moe", '"y": routed + shared', '"y": routed + shared / cfg.routed_scaling_factor'),
            Edit("moe.layer_backward", BACKWARD, BACKWARD.replace("dy,", "dy / cfg.routed_scaling_factor,")),
        ),
        cite="sgl-project/sglang#28237 (0.4 of it, which is 1 / 2.5)",
        trigger="a scale other than 1",
    ),
    Mutant(
        slug="shared-averaged",
        clause="MOE-3",
        symptom="Two shared experts are averaged instead of added.",
        edits=(
            Edit("ops.moe", '"y": routed + shared', '"y": routed + shared / max(cfg.n_shared_experts, 1)'),
            Edit("moe.layer_backward", BACKWARD, BACKWARD.replace("dy,", "dy / max(cfg.n_shared_experts, 1),")),
        ),
        cite="guess",
        trigger="two shared experts",
    ),
    Mutant(
        slug="shared-first-alone",
        clause="MOE-3",
        symptom="Of several shared experts only the first is computed.",
        edits=(
            Edit(
                "moe.shared_of",
                "return ExpertWeights(weights.shared_gate_proj, weights.shared_up_proj, weights.shared_down_proj)",
                "f = weights.up_proj.shape[1]\n"
                "gate, up, down = weights.shared_gate_proj, weights.shared_up_proj, weights.shared_down_proj\n"
                "return ExpertWeights(gate[:f], up[:f], down[:, :f])",
            ),
        ),
        cite="guess",
        trigger="two shared experts",
    ),
    Mutant(
        slug="shared-weighted",
        clause="MOE-1",
        symptom="The shared expert has the mean weight of a token's slots, as if it were one of them.",
        edits=(
            Edit(
                "ops.moe",
                '"y": routed + shared',
                '"y": routed + sent_weight.sum(axis=-1, keepdims=True) / sent_weight.shape[1] * shared',
            ),
        ),
        cite="guess; servers that treat the shared expert as one more slot have to undo its weight",
        trigger="any",
    ),
    Mutant(
        slug="shared-no-swiglu-limit",
        clause="EXP-5",
        symptom="swiglu_limit holds for routed experts alone.",
        edits=(
            Edit("ops.moe", FORWARD, FORWARD.replace("cfg", PLAIN)),
            Edit("moe.layer_forward", "shared_of(weights), cfg)", f"shared_of(weights), {PLAIN})"),
            Edit("moe.layer_backward", BACKWARD, BACKWARD.replace("cfg", PLAIN)),
        ),
        cite="sgl-project/sglang#23776; Blaizzy/mlx-vlm#1469; huggingface/transformers#46018",
        trigger="pre-activations beyond the limit of 10",
    ),
    Mutant(
        slug="shared-not-for-padding",
        clause="GATE-13",
        symptom="The shared expert passes over tokens that go to no expert.",
        edits=(
            Edit(
                "ops.moe",
                '"y": routed + shared',
                '"y": routed + np.where(np.any(sent_idx >= 0, axis=-1)[:, None], shared, 0)',
            ),
        ),
        cite="guess",
        trigger="padding, or tokens whose slots were all dropped",
    ),
)
