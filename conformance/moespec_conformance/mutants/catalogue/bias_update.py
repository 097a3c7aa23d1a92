"""The bias after a step: which way it goes, by which counts, and when."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

COUNTED = "counted = mask & (pass_kind == TRAINING)[:, None]"
DIRECTION = "np.sign(count.sum(axis=-1, keepdims=True) - cfg.n_routed_experts * count)"

FOUND = (
    Mutant(
        slug="bias-update-reversed",
        clause="BAL-13",
        symptom="Experts with more than their share become more attractive.",
        edits=(Edit("bias_update.bias_update", "return bias + delta", "return bias - delta"),),
        cite="guess",
        trigger="any step",
        direction="training",
    ),
    Mutant(
        slug="bias-update-always-centred",
        clause="BAL-14",
        symptom="The mean step is always taken off.",
        edits=(Edit("bias_update.bias_update", 'if cfg.bias_update == "sign_centred":', "if True:"),),
        cite="pytorch/torchtitan#1506; MoonshotAI/Moonlight#21",
        trigger="not as many experts above the mean as below",
        direction="training",
    ),
    Mutant(
        slug="bias-update-never-centred",
        clause="BAL-14",
        symptom="The mean step is not taken off where the config says so.",
        edits=(Edit("bias_update.bias_update", 'if cfg.bias_update == "sign_centred":', "if False:"),),
        cite="pytorch/torchtitan#1506; arXiv 2408.15664, algorithm 1",
        trigger="bias_update sign_centred",
        direction="training",
    ),
    Mutant(
        slug="bias-update-by-size",
        clause="BAL-13",
        symptom="The step is as large as the expert's distance from the mean load, not one size for all.",
        edits=(
            Edit(
                "bias_update.bias_update",
                DIRECTION,
                "(count.sum(axis=-1, keepdims=True) - cfg.n_routed_experts * count) / cfg.n_routed_experts",
            ),
        ),
        cite="arXiv 2408.15664 (its variant without the sign)",
        trigger="any step",
        direction="training",
    ),
    Mutant(
        slug="bias-update-whole-mean",
        clause="BAL-13",
        symptom="The mean load is rounded down to a whole number.",
        edits=(
            Edit(
                "bias_update.bias_update",
                DIRECTION,
                "np.sign(count.sum(axis=-1, keepdims=True) // cfg.n_routed_experts - count)",
            ),
        ),
        cite="guess: integer division",
        trigger="a mean between two whole numbers",
        direction="training",
    ),
    Mutant(
        slug="bias-update-float32-counts",
        clause="BAL-13",
        symptom="Loads are counted in float32: beyond 2^24 tokens neighbours are equal.",
        edits=(
            Edit(
                "bias_update.bias_update",
                "np.zeros_like(expert_count, dtype=np.int64) + expert_count",
                "expert_count.astype(np.float32)",
            ),
        ),
        cite="guess: a counter that is a float buffer (pytorch/torchtitan's tokens_per_expert)",
        trigger="loads beyond 2^24",
        direction="training",
    ),
    Mutant(
        slug="bias-update-mean-moves",
        clause="BAL-13",
        symptom="An expert whose load is just the mean moves up, as one below it.",
        edits=(
            Edit(
                "bias_update.bias_update",
                DIRECTION,
                "np.where(cfg.n_routed_experts * count <= count.sum(axis=-1, keepdims=True), 1, -1)",
            ),
        ),
        cite="guess: where(load <= mean, 1, -1)",
        trigger="a load that is the mean, or no load at all",
        direction="training",
    ),
    Mutant(
        slug="bias-update-bf16",
        clause="BAL-13",
        symptom="The bias is kept in bfloat16, where a step of 0.001 is lost from 0.5 on.",
        edits=(Edit("bias_update.bias_update", "return bias + delta", "return bf16(bias + delta)"),),
        cite="NVIDIA/Megatron-LM#1482",
        trigger="a bias of 7",
        direction="training",
    ),
    Mutant(
        slug="bias-update-per-micro-batch",
        clause="BAL-15",
        symptom="The bias moves after every micro-batch, not once a step.",
        edits=(
            Edit(
                "ops_balance.bias_steps_op",
                'return {"step_count": step_count, "bias": bias_steps(bias, step_count, cfg)}',
                "one_each = np.arange(pass_step.shape[0])\n"
                "micro_count = step_counts(topk_idx, mask, pass_kind, one_each, cfg.n_routed_experts)\n"
                'last = np.searchsorted(pass_step, np.arange(step_count.shape[0]), side="right") - 1\n'
                'return {"step_count": step_count, "bias": bias_steps(bias, micro_count, cfg)[last]}',
            ),
        ),
        cite="pytorch/torchtitan#1304",
        trigger="several micro-batches a step",
        direction="training",
    ),
    Mutant(
        slug="bias-update-counts-evaluation",
        clause="BAL-15",
        symptom="Loads of evaluations leak into the next step.",
        edits=(Edit("bias_update.step_counts", "pass_kind == TRAINING", "pass_kind != 1"),),
        cite="pytorch/torchtitan#4148",
        trigger="an evaluation between steps",
        direction="training",
    ),
    Mutant(
        slug="bias-update-counts-twice",
        clause="BAL-15",
        symptom="A forward that is computed again for the backward is counted again.",
        edits=(Edit("bias_update.step_counts", "pass_kind == TRAINING", "pass_kind != 2"),),
        cite="pytorch/torchtitan (the note on activation checkpointing at its load-balancing hook)",
        trigger="some passes recomputed, others not",
        direction="training",
    ),
    Mutant(
        slug="bias-update-counts-padding",
        clause="BAL-15",
        symptom="Padding counts as load.",
        edits=(Edit("bias_update.step_counts", COUNTED, COUNTED.replace("mask &", "np.ones_like(mask) &")),),
        cite="pytorch/torchtitan#4168; NVIDIA/Megatron-LM#2121, #2142, #5542",
        trigger="padded batches",
        direction="training",
    ),
    Mutant(
        slug="bias-update-counts-empty-slots",
        clause="BAL-15",
        symptom="Empty slots (id -1) count as load of the last expert.",
        edits=(
            Edit(
                "bias_update.step_counts",
                "np.where(counted[:, :, None], topk_idx, -1)",
                "np.where(counted[:, :, None], topk_idx % n_routed_experts, -1)",
            ),
        ),
        cite="guess: what an index of -1 does in NumPy and torch",
        trigger="slots that are empty",
        direction="training",
    ),
    Mutant(
        slug="bias-update-one-rank",
        clause="BAL-15",
        symptom="Loads are not added up over the ranks: each goes by its own.",
        edits=(
            Edit(
                "ops_balance.bias_steps_op",
                "step_count = step_counts(topk_idx, mask,",
                'step_count = step_counts(topk_idx, mask & (given["pass_rank"] == 0)[:, None],',
            ),
        ),
        cite="NVIDIA/TransformerEngine#3471 (review); pytorch/torchtitan#3386 (review)",
        trigger="more than one rank",
        direction="training",
    ),
    Mutant(
        slug="bias-update-counts-kept",
        clause="BAL-15",
        symptom="Loads are not reset after a step: the bias goes by those of all steps so far.",
        edits=(Edit("bias_update.bias_steps", "step_count[u]", "step_count[: u + 1].sum(axis=0)"),),
        cite="guess: a counter that nobody zeroes",
        trigger="a second step",
        direction="training",
    ),
    Mutant(
        slug="bias-update-late",
        clause="BAL-15",
        symptom="A step goes by the loads of the step before it.",
        edits=(Edit("bias_update.bias_steps", "step_count[u]", "step_count[u - 1] * (u > 0)"),),
        cite="guess: the update hooked in before the counts are gathered",
        trigger="any step",
        direction="training",
    ),
)
