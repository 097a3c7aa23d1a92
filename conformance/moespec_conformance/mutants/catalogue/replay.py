"""Ids that are given: replay, hash layers, padding."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

GIVEN = "topk_idx = topk_idx if mask is None else masked(topk_idx, mask)"

FOUND = (
    Mutant(
        slug="replay-ignored",
        clause="GATE-9",
        symptom="The gate chooses for itself, whatever ids it is given.",
        edits=(Edit("ops_gate.ids_given", "return topk_idx", "return None"),),
        cite="NVIDIA/Megatron-LM#4168 (a tenth of the routers disagree without replay)",
        trigger="given ids that are not the gate's own",
    ),
    Mutant(
        slug="replay-shifted",
        clause="GATE-9",
        symptom="Recorded routes are one token off.",
        edits=(
            Edit(
                "ops_gate.gate",
                "lambda ids: gate_given(x, weight, ids, cfg)",
                "lambda ids: gate_given(x, weight, np.concatenate([ids[-1:], ids[:-1]]), cfg)",
            ),
        ),
        cite="NovaSky-AI/SkyRL#1908; radixark/miles#645; THUDM/slime#1052",
        trigger="given ids that differ from token to token",
    ),
    Mutant(
        slug="replay-own-weights",
        clause="GATE-9",
        symptom="Ids are replayed, but the weights are those of the experts that the gate would choose.",
        edits=(Edit("ops_router.routed", "return topk_idx, *weigh_given(topk_idx)", "return topk_idx, *choose()[1:]"),),
        cite="inclusionAI/AReno#522 (the contract: ids replayed, weights of the present logits at these ids)",
        trigger="given ids that are not the gate's own",
    ),
    Mutant(
        slug="replay-captures-zeros",
        clause="GATE-12",
        symptom="Hash layers report expert 0 for every slot of every token.",
        edits=(
            Edit(
                "ops_gate.gate",
                '"topk_idx": topk_idx, "topk_weight"',
                '"topk_idx": np.zeros_like(topk_idx) if cfg.hash_routing else topk_idx, "topk_weight"',
            ),
        ),
        cite="sgl-project/sglang#29040",
        trigger="a hash layer",
    ),
    Mutant(
        slug="hash-chooses-by-scores",
        clause="GATE-12",
        symptom="Hash layers choose by their scores: the table is not used.",
        edits=(Edit("ops_gate.ids_given", "return look_up(token_ids, tid2eid)", "return None"),),
        cite="anthony-chaudhary/fak#4850; NVIDIA/Megatron-LM#4481 (which layers are hash layers)",
        trigger="a hash layer",
    ),
    Mutant(
        slug="hash-by-position",
        clause="GATE-12",
        symptom="Hash layers look up a token's place in the batch, not its id.",
        edits=(
            Edit("gate.look_up", "tid2eid[token_ids]", "tid2eid[np.arange(token_ids.shape[0]) % tid2eid.shape[0]]"),
        ),
        cite="guess: a layer that is not told the token ids",
        trigger="a hash layer",
    ),
    Mutant(
        slug="mask-ignored",
        clause="GATE-13",
        symptom="Padding is routed like text.",
        edits=(Edit("gate.masked", "np.where(mask[:, None], topk_idx, -1)", "topk_idx"),),
        cite="pytorch/torchtitan#4168; NVIDIA/Megatron-LM#2121, #5542",
        trigger="a mask",
    ),
    Mutant(
        slug="mask-inverted",
        clause="GATE-13",
        symptom="A mask of padding is taken for a mask of text: only padding is routed.",
        edits=(Edit("gate.masked", "topk_idx, -1", "-1, topk_idx"),),
        cite="guess: torch's key_padding_mask is true where padding is",
        trigger="a mask",
    ),
    Mutant(
        slug="mask-to-first-expert",
        clause="GATE-13",
        symptom="Padding goes to expert 0, the value its ids were filled with.",
        edits=(Edit("gate.masked", "topk_idx, -1", "topk_idx, 0"),),
        cite="guess: padding tagged as expert 0 where it should be -1, as in grouped layouts",
        trigger="a mask",
    ),
    Mutant(
        slug="mask-after-weights",
        clause="GATE-13",
        symptom="Padding has no ids, but keeps its weights.",
        edits=(
            Edit("ops_router.routed", GIVEN, "whole = topk_idx\n" + GIVEN),
            Edit("ops_router.routed", "weigh_given(topk_idx)", "weigh_given(whole)"),
        ),
        cite="guess",
        trigger="a mask",
    ),
    Mutant(
        slug="mask-lost-in-replay",
        clause="GATE-13",
        symptom="Padding is masked where the gate chooses, and routed where ids are given.",
        edits=(
            Edit("ops_router.routed", "topk_idx = chosen[0]", "topk_idx = masked(chosen[0], mask)"),
            Edit("ops_router.routed", GIVEN, "topk_idx = topk_idx"),
        ),
        cite="PrimeIntellect-ai/prime-rl#1807 (review: padding in recorded routes)",
        trigger="a mask together with given ids",
    ),
    Mutant(
        slug="mask-in-place",
        clause="MOE-8",
        symptom="The ids of padding are struck out in the caller's own array.",
        edits=(
            Edit(
                "gate.masked", "return np.where(mask[:, None], topk_idx, -1)", "topk_idx[~mask] = -1\nreturn topk_idx"
            ),
        ),
        cite="guess: masked_fill_",
        trigger="a mask together with given ids",
    ),
)
