"""The layer: whose output is added where, and which way gradients take."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="layer-next-expert",
        clause="MOE-2",
        symptom="Rows meet the matrices of the next expert: ids are off by one.",
        edits=(
            Edit(
                "moe.expert_of",
                "return ExpertWeights(",
                "e = (e + 1) % weights.up_proj.shape[0]\nreturn ExpertWeights(",
            ),
        ),
        cite="guess",
        trigger="any",
    ),
    Mutant(
        slug="layer-replica-counts-twice",
        clause="MOE-2",
        symptom="An expert that is kept twice adds its output twice.",
        edits=(Edit("moe.routed_forward", "routed[t] += y_e", "routed[t] += 2 * y_e if e % 5 == 0 else y_e"),),
        cite="sgl-project/sglang#32962, #25285; deepseek-ai/EPLB#22",
        trigger="any token of such an expert",
    ),
    Mutant(
        slug="layer-last-slot-lost",
        clause="MOE-2",
        symptom="The last slot is overwritten by the shared expert, and a chosen expert is lost.",
        edits=(
            Edit(
                "ops.moe",
                "routed_forward(x, sent_idx, sent_weight, w, cfg)",
                "routed_forward(x, sent_idx[:, :-1], sent_weight[:, :-1], w, cfg)",
            ),
        ),
        cite="sgl-project/sglang#8125, #36515",
        trigger="any",
    ),
    Mutant(
        slug="layer-output-overwritten",
        clause="MOE-2",
        symptom="A token's last expert overwrites what the others made.",
        edits=(Edit("moe.routed_forward", "routed[t] += y_e", "routed[t] = y_e"),),
        cite="guess",
        trigger="two experts a token",
    ),
    Mutant(
        slug="layer-rows-limited",
        clause="MOE-2",
        symptom="An expert's buffer has room for 128 rows, and those behind them are lost.",
        edits=(
            Edit(
                "moe.routed_forward",
                "y_e, cache = weighted_forward(",
                "t, k = t[:128], k[:128]\ny_e, cache = weighted_forward(",
            ),
            Edit(
                "moe.routed_backward",
                "w, dw = expert_of(weights, e)",
                "t, k = t[:128], k[:128]\nw, dw = expert_of(weights, e)",
            ),
        ),
        cite="guess; DeepEP's low-latency boxes are of a size that the caller fixes beforehand",
        trigger="129 tokens on one expert",
    ),
    Mutant(
        slug="layer-dispatch-by-product",
        clause="MOE-9",
        symptom="Rows are made by a product with a matrix of 0 and 1, in which a NaN spoils the rows of all tokens.",
        edits=(
            Edit(
                "moe.routed_forward",
                "y_e, cache = weighted_forward(x[t],",
                "pick = np.zeros_like(x, shape=(t.shape[0], x.shape[0]))\n"
                "np.put_along_axis(pick, t[:, None], values=1, axis=1)\n"
                "y_e, cache = weighted_forward(pick @ x,",
            ),
        ),
        cite="guess; GShard's and Switch's einsum dispatch (Mesh TensorFlow)",
        trigger="a token of NaN",
    ),
    Mutant(
        slug="layer-bf16-sum",
        clause="MOE-7",
        symptom="The sum over experts is rounded to bfloat16 at each step.",
        edits=(Edit("moe.routed_forward", "routed[t] += y_e", "routed[t] = bf16(routed[t] + y_e)"),),
        cite="deepseek-ai/DeepSeek-V3 inference/model.py (zeros_like of a bfloat16 x); V3.2 and V4 add in float32",
        trigger="any",
    ),
    Mutant(
        slug="layer-weight-of-next-slot",
        clause="MOE-2",
        symptom="Ids were sorted and the weights were not: a slot has its neighbour's weight.",
        edits=(
            Edit(
                "moe.routed_forward",
                "topk_weight[t, k]",
                "topk_weight[t, (k + 1) % topk_weight.shape[1]]",
            ),
        ),
        cite="guess; pytorch/torchtitan#1237 is of this kind (rows and their indices permuted differently)",
        trigger="two experts a token, of different weights",
    ),
    Mutant(
        slug="layer-dx-without-router",
        clause="MOE-5",
        symptom="dx lacks the way through the router.",
        edits=(Edit("ops.moe_backward_op", 'through["dx"] + dx_routed + dx_shared', "dx_routed + dx_shared"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="layer-dx-without-shared",
        clause="MOE-5",
        symptom="dx lacks the way through the shared expert.",
        edits=(Edit("ops.moe_backward_op", "dx_routed + dx_shared", "dx_routed"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="layer-router-detached",
        clause="MOE-2",
        symptom="The weights are constants in the backward: the router learns nothing.",
        edits=(Edit("moe.routed_backward", "dtopk_weight[t, k] = drow_weight", "dtopk_weight[t, k] = 0"),),
        cite="NVIDIA-NeMo/Automodel#2995",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="layer-router-learns-of-first-slot",
        clause="MOE-2",
        symptom="Only the first slot's weight has a gradient.",
        edits=(
            Edit(
                "moe.routed_backward",
                "dtopk_weight[t, k] = drow_weight",
                "dtopk_weight[t, k] = np.where(k == 0, drow_weight, 0)",
            ),
        ),
        cite="huggingface/transformers#48205 (partial gradients of the scores were not added up)",
        trigger="two experts a token, backward",
        direction="backward",
    ),
    Mutant(
        slug="layer-dw-of-idle-expert",
        clause="MOE-4",
        symptom="The gradients of an expert without a token are whatever memory held.",
        edits=(
            Edit("ops.moe_backward_op", "MoEWeights(*map(np.zeros_like, w))", "MoEWeights(*map(poisoned, w))"),
            Edit(
                "moe.routed_backward",
                "w, dw = expert_of(weights, e)",
                "if t.shape[0] == 0:\n    continue\nw, dw = expert_of(weights, e)",
            ),
        ),
        cite="meta-pytorch/MSLK#158",
        trigger="an expert without a token, backward",
        direction="backward",
    ),
    Mutant(
        slug="layer-recompute-chooses-anew",
        clause="GATE-9",
        symptom="The forward is computed again for the backward, and the router then chooses other experts.",
        edits=(
            Edit(
                "ops.moe_backward_op",
                "_, (sent_idx, sent_weight, dropped) = routed_by(cfg, noise, x=x, weight=w.gate_weight, **routing)",
                'again = {name: given for name, given in routing.items() if name != "topk_idx"}\n'
                "_, (sent_idx, sent_weight, dropped) = routed_by(cfg, noise, x=x, weight=w.gate_weight, **again)",
            ),
        ),
        cite="NVIDIA-NeMo/Automodel#2635, #3156; pytorch/torchtitan#1117",
        trigger="given ids that are not the router's own choice, backward",
        direction="training",
    ),
    Mutant(
        slug="layer-grad-accumulated",
        clause="MOE-8",
        symptom="The router's gradient is added to that of the micro-batch before.",
        edits=(
            Edit(
                "ops.moe_backward_op",
                'named["dgate_weight"] = through.pop("dweight")',
                "kept, key = moe_backward_op.__dict__, str(w.gate_weight.shape)\n"
                'kept[key] = kept.get(key, 0) + through.pop("dweight")\n'
                'named["dgate_weight"] = kept[key]',
            ),
        ),
        cite="guess",
        trigger="a second call",
        direction="training",
    ),
    Mutant(
        slug="layer-scores-of-last-call",
        clause="MOE-8",
        symptom="The backward weighs by what the last forward left, whoever made it.",
        edits=(
            Edit(
                "ops.moe_backward_op",
                "dx_routed, dx_shared, d = layer_backward(",
                "kept, key = moe_backward_op.__dict__, str(sent_weight.shape)\n"
                "sent_weight, kept[key] = kept.get(key, sent_weight), sent_weight\n"
                "dx_routed, dx_shared, d = layer_backward(",
            ),
        ),
        cite="guess",
        trigger="a second call of other tokens",
        direction="training",
    ),
)
