"""The mixture of 1991: what its likelihood is confused with."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

FOUND = (
    Mutant(
        slug="mixture-blend",
        clause="ROU-9",
        symptom="The loss is the squared error of what the experts add up to, which couples them.",
        edits=(
            Edit(
                "mixture.mixture_forward",
                "loss = surprise[:, 0].sum(axis=0)",
                "blend = (topk_weight[:, :, None] * offset).sum(axis=1)\n"
                "loss = (blend * blend).sum(axis=-1).sum(axis=0) / 2",
            ),
        ),
        cite="Jacobs, Jordan, Nowlan and Hinton 1991, equation 1 against 1.3",
        trigger="experts that differ",
    ),
    Mutant(
        slug="mixture-no-half",
        clause="ROU-9",
        symptom="The exponent is the squared distance itself, not half of it.",
        edits=(
            Edit("mixture.mixture_forward", "(offset * offset).sum(axis=-1) / 2", "(offset * offset).sum(axis=-1)"),
            Edit("mixture.mixture_backward", "-djoint[:, :, None] * offset", "-djoint[:, :, None] * (2 * offset)"),
        ),
        cite="guess: Gaussians of variance 1 / 2",
        trigger="any input",
    ),
    Mutant(
        slug="mixture-naive-log",
        clause="ROU-9",
        symptom="The logarithm is taken of the sum as written: far from every expert it is of 0.",
        edits=(
            Edit(
                "mixture.mixture_forward",
                "surprise = np.where(known, surprise, 0)",
                "density = topk_weight * np.exp((offset * offset).sum(axis=-1) / -2)\n"
                "surprise = np.where(known, -np.log(density.sum(axis=-1, keepdims=True)), 0)",
            ),
        ),
        cite="guess",
        trigger="a target 15 or more away from every expert",
    ),
    Mutant(
        slug="mixture-prior",
        clause="ROU-10",
        symptom="Experts learn in the measure of the gate's probability, not of how well they did.",
        edits=(Edit("mixture.mixture_backward", "djoint = responsibility *", "djoint = topk_weight *"),),
        cite="guess: the paper's equation 1.2 against 1.3",
        trigger="any backward",
        direction="backward",
    ),
    Mutant(
        slug="mixture-without-weight",
        clause="ROU-9",
        symptom="An expert of weight 0 takes part: a token without any weight has a loss of NaN.",
        edits=(
            Edit("mixture.mixture_forward", "stands = topk_weight > 0", "stands = topk_weight >= 0"),
            Edit("mixture.mixture_backward", "stands = topk_weight > 0", "stands = topk_weight >= 0"),
        ),
        cite="guess: log(0)",
        trigger="weights of 0",
    ),
    Mutant(
        slug="mixture-summed",
        clause="ROU-9",
        symptom="The loss is the sum over the tokens, not their mean.",
        edits=(
            Edit("mixture.mixture_forward", " / max(target.shape[0], 1)", ""),
            Edit("mixture.mixture_backward", " / max(topk_weight.shape[0], 1)", ""),
        ),
        cite="guess",
        trigger="more than one token",
    ),
)
