"""Capacity: how much room there is, in which order it is given out, and what becomes of those who find none."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

ROOM = "math.ceil(n_tokens * cfg.num_experts_per_tok / n_bins * (cfg.capacity_factor or 1))"

FOUND = (
    Mutant(
        slug="capacity-rounded-down",
        clause="CAP-1",
        symptom="Room is rounded down.",
        edits=(Edit("capacity.capacity_of", "math.ceil(", "math.floor("),),
        cite="guess; an int() around the product",
        trigger="room that is no whole number",
    ),
    Mutant(
        slug="capacity-rounded-early",
        clause="CAP-1",
        symptom="Slots by experts are rounded up before the factor.",
        edits=(
            Edit(
                "capacity.capacity_of",
                ROOM,
                "math.ceil(math.ceil(n_tokens * cfg.num_experts_per_tok / n_bins) * (cfg.capacity_factor or 1))",
            ),
        ),
        cite="AI-Hypercomputer/maxtext",
        trigger="slots that experts do not divide",
    ),
    Mutant(
        slug="capacity-without-k",
        clause="CAP-1",
        symptom="Room is counted by tokens instead of slots: Switch's formula in a model of several slots.",
        edits=(Edit("capacity.capacity_of", "n_tokens * cfg.num_experts_per_tok", "n_tokens"),),
        cite="guess",
        trigger="two slots a token",
    ),
    Mutant(
        slug="capacity-one-more",
        clause="CAP-2",
        symptom="An expert takes one slot more than it has room for.",
        edits=(Edit("capacity.admitted", "place < capacity_of", "place <= capacity_of"),),
        cite="guess",
        trigger="a full expert",
    ),
    Mutant(
        slug="capacity-for-padding",
        clause="CAP-2",
        symptom="Padding takes room, on expert 0.",
        edits=(Edit("capacity.admitted", "bins = topk_idx.reshape(-1)", "bins = np.maximum(topk_idx, 0).reshape(-1)"),),
        cite="NVIDIA/Megatron-LM#5542",
        trigger="empty slots",
    ),
    Mutant(
        slug="capacity-no-effect",
        clause="CAP-2",
        symptom="The mask of who finds room is never used: nobody is dropped.",
        edits=(
            Edit(
                "capacity.admitted",
                "np.where(finds_room | want.protected[:, None], topk_idx, -1)",
                "np.where(finds_room | want.protected[:, None], topk_idx, topk_idx)",
            ),
        ),
        cite="huggingface/transformers, Switch (a cumulative sum over an axis of size 1)",
        trigger="a full expert",
    ),
    Mutant(
        slug="capacity-tokens-before-slots",
        clause="CAP-4",
        symptom="A token's second choice is served before the next token's first.",
        edits=(
            Edit(
                "capacity.queue_of",
                "in_order.reshape(tokens, slots).T.reshape(-1)",
                "in_order",
            ),
        ),
        cite="guess; the order of Megatron's position where GShard's is asked for",
        trigger="drop_policy slot or gshard",
    ),
    Mutant(
        slug="capacity-slots-before-tokens",
        clause="CAP-3",
        symptom="All first choices are served before any second one.",
        edits=(Edit("capacity.queue_of", 'in ("slot", "gshard")', 'in ("slot", "gshard", "position")'),),
        cite="guess; GShard's order where tokens come in turn",
        trigger="drop_policy position",
    ),
    Mutant(
        slug="capacity-last-token-first",
        clause="CAP-3",
        symptom="Of a crowd the last tokens stay: which of equal entries of a 0/1 map are taken is not said.",
        edits=(
            Edit(
                "capacity.queue_of",
                'if cfg.drop_policy == "position":',
                'if cfg.drop_policy == "position":\n    return in_order[::-1]\nif False:',
            ),
        ),
        cite="torch.topk promises no order among equals; NVIDIA/Megatron-LM, drop policy position",
        trigger="drop_policy position, a full expert",
    ),
    Mutant(
        slug="capacity-lightest-first",
        clause="CAP-5",
        symptom="The smallest weights are served first.",
        edits=(Edit("capacity.queue_of", "np.argsort(-want.topk_weight", "np.argsort(want.topk_weight"),),
        cite="guess",
        trigger="drop_policy probs or device_probs",
    ),
    Mutant(
        slug="capacity-later-of-equals",
        clause="CAP-5",
        symptom="Of equal weights the later slot stays.",
        edits=(
            Edit(
                "capacity.queue_of",
                'heaviest = np.argsort(-want.topk_weight.reshape(-1), kind="stable")',
                'heaviest = np.argsort(want.topk_weight.reshape(-1), kind="stable")[::-1]',
            ),
        ),
        cite="guess; an ascending sort read from its end",
        trigger="equal weights",
    ),
    Mutant(
        slug="capacity-renormalised",
        clause="CAP-7",
        symptom="After the drop a token's other slots are scaled up to the whole.",
        edits=(
            Edit(
                "capacity.drop_forward",
                "return new, topk_weight,",
                "left = topk_weight.sum(axis=-1, keepdims=True)\n"
                "whole = want.topk_weight.sum(axis=-1, keepdims=True)\n"
                "topk_weight = topk_weight * np.where(left > 0, whole / np.where(left > 0, left, 1), 0)\n"
                "return new, topk_weight,",
            ),
        ),
        cite="guess; V3's normalisation comes before any drop, and replaying what was left of a token normalises anew",
        trigger="a token that lost some of its slots",
    ),
    Mutant(
        slug="capacity-weight-of-dropped",
        clause="CAP-7",
        symptom="A dropped slot keeps its weight.",
        edits=(
            Edit("capacity.drop_forward", "np.where(new >= 0, want.topk_weight, 0)", "want.topk_weight"),
            Edit("capacity.drop_backward", "np.where(new >= 0, dtopk_weight, 0)", "dtopk_weight"),
        ),
        cite="guess",
        trigger="a full expert",
    ),
    Mutant(
        slug="capacity-gradient-of-dropped",
        clause="CAP-11",
        symptom="A dropped slot's weight has a gradient.",
        edits=(Edit("capacity.drop_backward", "np.where(new >= 0, dtopk_weight, 0)", "dtopk_weight"),),
        cite="guess",
        trigger="a full expert, backward",
        direction="backward",
    ),
    Mutant(
        slug="capacity-first-choice-by-chance",
        clause="CAP-6",
        symptom="The first choice, too, goes out by chance alone.",
        edits=(Edit("capacity.admitted", "goes | first", "goes"),),
        cite="guess",
        trigger="drop_policy gshard with noise",
    ),
    Mutant(
        slug="capacity-room-for-who-stays",
        clause="CAP-6",
        symptom="A second choice that chance keeps at home takes room all the same.",
        edits=(Edit("capacity.admitted", "bins = topk_idx.reshape(-1)", "bins = want.topk_idx.reshape(-1)"),),
        cite="guess",
        trigger="drop_policy gshard with noise",
    ),
    Mutant(
        slug="capacity-chance-without-two",
        clause="CAP-6",
        symptom="A second choice goes out with the chance of its weight, not of twice its weight.",
        edits=(Edit("capacity.admitted", "< 2 * want.topk_weight", "< want.topk_weight"),),
        cite="guess; GShard's algorithm 1 has the 2",
        trigger="drop_policy gshard with noise",
    ),
    Mutant(
        slug="capacity-chance-edge",
        clause="CAP-6",
        symptom="Noise of just twice the weight lets a second choice out.",
        edits=(Edit("capacity.admitted", "< 2 * want.topk_weight", "<= 2 * want.topk_weight"),),
        cite="guess",
        trigger="noise of just twice the weight",
    ),
    Mutant(
        slug="capacity-expert-for-device",
        clause="CAP-8",
        symptom="Room is counted by expert where it is the device's.",
        edits=(
            Edit(
                "capacity.admitted",
                'cfg.n_device if cfg.drop_policy == "device_probs" else cfg.n_routed_experts',
                "cfg.n_routed_experts",
            ),
        ),
        cite="guess; no released code has V2's device capacity",
        trigger="drop_policy device_probs",
    ),
    Mutant(
        slug="capacity-protected-dropped",
        clause="CAP-8",
        symptom="Protected tokens come first, but are dropped when there is no room.",
        edits=(Edit("capacity.admitted", "finds_room | want.protected[:, None]", "finds_room"),),
        cite="guess",
        trigger="more protected tokens than room",
    ),
    Mutant(
        slug="capacity-protected-in-the-queue",
        clause="CAP-8",
        symptom="Protected tokens are not dropped, but stand in the queue like others, and others keep their room.",
        edits=(Edit("capacity.queue_of", 'heaviest[np.argsort(unprotected, kind="stable")]', "heaviest"),),
        cite="guess",
        trigger="protected tokens of small weight",
    ),
    Mutant(
        slug="capacity-rerouted-twice-to-one",
        clause="CAP-9",
        symptom="A slot is moved to an expert that the token has already.",
        edits=(Edit("capacity.rerouted", "if room[other] and other not in mine", "if room[other]"),),
        cite="guess",
        trigger="drop_policy reroute",
    ),
    Mutant(
        slug="capacity-rerouted-by-id",
        clause="CAP-9",
        symptom="A slot is moved to the first expert with room instead of the best.",
        edits=(
            Edit(
                "capacity.rerouted",
                "for other in ranking if",
                "for other in sorted(ranking) if",
            ),
        ),
        cite="guess",
        trigger="drop_policy reroute",
    ),
    Mutant(
        slug="capacity-rerouted-with-old-weight",
        clause="CAP-10",
        symptom="A slot that moved keeps the weight of the expert that was full.",
        edits=(
            Edit("capacity.drop_forward", "want.topk_weight * ratio", "want.topk_weight"),
            Edit("capacity.drop_backward", "dtopk_weight * ratio", "dtopk_weight"),
            Edit(
                "capacity.drop_backward",
                "dratio = np.where(moved, dtopk_weight * want.topk_weight, 0)",
                "dratio = 0 * dtopk_weight",
            ),
        ),
        cite="guess",
        trigger="drop_policy reroute",
    ),
)
