"""For every property a bug that it catches: a mutant, or something between the reference and its caller."""

CAUGHT = {
    # gate, router
    "gate-weights-share-the-scale": "gate-scale-or-norm",
    "gate-given-weights-share-the-scale": "gate-bf16-weights",
    "gate-groups-contain-the-choice": "gate-no-group-limit",
    "gate-bias-moves-the-choice-only": "gate-bias-in-weights",
    "gate-bias-is-nothing-to-given-ids": "replay-ignored",
    "gate-backward-bias-is-nothing": "gate-chooses-again",
    "gate-all-groups-are-none": "fewer-groups",
    "gate-scale-is-a-factor": "gate-scale-twice",
    "gate-padding-goes-nowhere": "mask-inverted",
    "gate-no-factor-is-learned": "gate-denominator-detached",
    "gate-unchosen-learn-nothing": "raised-dweight",
    "gate-backward-is-adjoint": "gate-slope-missing",
    "router-backward-is-adjoint": "chosen-gradient-diagonal",
    "router-shares-are-the-scale": "hierarchical-group-share-missing",
    # expert
    "expert-factor-passes": "expert-gate-up-swapped",
    "expert-zeros-give-zeros": "raised-y",
    "expert-no-row-no-gradient": "raised-dup_proj",
    "expert-weight-of-one": "with-row_weight",
    "expert-backward-is-adjoint": "expert-weight-grad-of-weighted-h",
    # dispatch, layouts
    "dispatch-rows-are-copies": "dispatch-latest-first",
    "combine-undoes-dispatch": "combine-last-slot-alone",
    "combine-is-adjoint-to-dispatch": "combine-last-slot-alone",
    "combine-rows-in-any-order": "combine-weights-in-row-order",
    "layout-holds-dispatch": "layout-padding-of-token-0",
    "k-grouped-adds-up": "layout-k-grouped-last-row-lost",
    "k-grouped-without-rows-is-c": "layout-k-grouped-idle-zero",
    # layer
    "moe-is-its-parts": "shared-scaled",
    "moe-own-choice-replayed": "replay-shifted",
    "moe-padding-has-the-shared-expert": "mask-ignored",
    "moe-shared-is-not-scaled": "gate-scale-twice",
    "moe-nowhere-is-the-shared-expert": "shared-not-for-padding",
    "moe-unused-learn-nothing": "layer-dw-of-idle-expert",
    "moe-backward-is-adjoint": "layer-dx-without-router",
    "moe-fp8-nowhere-is-the-shared-expert": "raised-y",
    # capacity
    "capacity-room-is-kept": "capacity-one-more",
    "capacity-nobody-waits-for-room": "one-dropped",
    "capacity-once-is-enough": "one-dropped",
    "capacity-backward-is-adjoint": "capacity-gradient-of-dropped",
    # balance
    "balance-sequences-stand-apart": "balance-sum-over-sequences",
    "balance-padding-counts-nothing": "balance-counts-padding",
    "balance-padding-learns-nothing": "balance-gradient-of-padding",
    "balance-alpha-is-a-factor": "balance-alpha-twice",
    "balance-even-use-costs-alpha": "balance-without-k",
    "balance-loss-backward-is-adjoint": "balance-gradient-without-alpha",
    "bias-even-load-moves-nothing": "raised-bias",
    "bias-only-the-balance-counts": "bias-update-by-size",
    "bias-offset-stays": "bias-update-bf16",
    "bias-steps-one-by-one": "bias-update-counts-evaluation",
    "bias-micro-batches-are-one": "bias-update-per-micro-batch",
    # ranks
    "ranks-combine-undoes-dispatch": "ranks-last-part-alone",
    "ranks-combine-is-adjoint-to-dispatch": "ranks-first-part-twice",
    "ranks-are-one": "ranks-shared-on-every-rank",
    "ranks-are-one-backward": "ranks-router-grad-local",
    "moe-ranks-backward-is-adjoint": "ranks-experts-grad-times-ranks",
    # mixture, norm, loss
    "mixture-responsibilities-share-one-whole": "mixture-summed",
    "mixture-loss-backward-is-adjoint": "mixture-no-half",
    "rms-norm-mean-square": "norm-of-layer-norm",
    "rms-norm-factor-passes": "norm-one-plus-weight",
    "rms-norm-backward-is-adjoint": "norm-dx-factor-constant",
    "cross-entropy-shift-is-nothing": "loss-bf16-logits",
    "cross-entropy-gradients-cancel": "raised-dlogits",
    "cross-entropy-backward-is-adjoint": "loss-gradient-of-one",
    # FP8, AdamW
    "cast-twice-is-once": "flipped",
    "cast-is-nearest": "fp8-cast-truncates",
    "cast-is-mirrored": "upwards-x",
    "cast-keeps-order": "unsigned",
    "cast-of-twice-is-twice": "flipped",
    "quantize-within-half-a-step": "fp8-cast-truncates",
    "quantize-twice-is-once": "fp8-subnormal-decode",
    "quantize-power-of-two": "fp8-floor-on-scale",
    "quantize-is-mirrored": "fp8-amax-signed",
    "dequantize-scale-multiplies": "fp8-scale-inverse",
    "requantize-is-both": "fp8-checkpoint-not-requantised",
    "lift-loses-nothing": "fp4-lift-keeps-codes",
    "matmul-scale-multiplies": "raised-y",
    "matmul-turned-over": "fp8-next-stretch-scale",
    "grouped-each-by-its-own": "fp8-group-scale-of-first",
    "adamw-is-mirrored": "upwards-param",
}
# the others are of one kind: a bug that depends on how things are numbered, or a backward with a kink


def bug_of(name: str) -> str:
    """The bug that a property must catch."""
    if name in CAUGHT:
        return CAUGHT[name]
    if name.endswith("is-linear"):
        return "one-sided"
    return f"indexed-{name.rpartition('-')[2]}"
