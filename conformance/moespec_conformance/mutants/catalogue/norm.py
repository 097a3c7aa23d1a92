"""What stands around the layer: RMSNorm and cross entropy."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

NLL = "nll = np.log(total) - np.take_along_axis(shifted, target[:, None], axis=-1)"

FOUND = (
    Mutant(
        slug="norm-eps-outside",
        clause="NRM-1",
        symptom="eps is added to the root instead of under it.",
        edits=(Edit("norm.rms_norm_forward", "np.sqrt(mean_square + eps)", "(np.sqrt(mean_square) + eps)"),),
        cite="guess",
        trigger="tokens about as small as eps's root",
    ),
    Mutant(
        slug="norm-eps-as-floor",
        clause="NRM-1",
        symptom="eps is the least that the mean square may be, and is not added to it.",
        edits=(Edit("norm.rms_norm_forward", "mean_square + eps", "np.maximum(mean_square, eps)"),),
        cite="guess",
        trigger="tokens about as small as eps's root",
    ),
    Mutant(
        slug="norm-eps-1e-5",
        clause="NRM-1",
        symptom="eps is 1e-5, whatever the config says.",
        edits=(Edit("norm.rms_norm_forward", "mean_square + eps", "mean_square + 1e-5"),),
        cite="huggingface/transformers#44261, #44585; pytorch/torchtitan#4395; vllm-project/vllm#35515",
        trigger="small tokens; ordinary ones show 5e-6",
    ),
    Mutant(
        slug="norm-eps-1e-6",
        clause="NRM-1",
        symptom="eps is 1e-6, whatever the config says.",
        edits=(Edit("norm.rms_norm_forward", "mean_square + eps", "mean_square + 1e-6"),),
        cite="huggingface/transformers#44261 the other way round (K2.6 and GLM-4.5-Air have 1e-5)",
        trigger="rms_norm_eps other than 1e-6, small tokens",
    ),
    Mutant(
        slug="norm-bf16",
        clause="NRM-2",
        symptom="The norm is computed in bfloat16: what the weight meets is rounded.",
        edits=(Edit("norm.rms_norm_forward", "x_hat = x * rstd", "x_hat = bf16(x * rstd)"),),
        cite="deepseek-ai/DeepSeek-V3@fd011c1, put right in @adecc0e",
        trigger="any",
    ),
    Mutant(
        slug="norm-bf16-rstd",
        clause="NRM-1",
        symptom="A token's factor is rounded to bfloat16.",
        edits=(
            Edit(
                "norm.rms_norm_forward",
                "rstd = 1 / np.sqrt(mean_square + eps)",
                "rstd = bf16(1 / np.sqrt(mean_square + eps))",
            ),
        ),
        cite="deepseek-ai/DeepSeek-V3@fd011c1 is of this kind",
        trigger="any",
    ),
    Mutant(
        slug="norm-of-layer-norm",
        clause="NRM-1",
        symptom="The mean is taken off first, as LayerNorm does.",
        edits=(
            Edit(
                "norm.rms_norm_forward",
                "mean_square = ",
                "x = x - x.sum(axis=-1, keepdims=True) / x.shape[1]\nmean_square = ",
            ),
        ),
        cite="ikawrakow/ik_llama.cpp#2063 (one for the other)",
        trigger="any",
    ),
    Mutant(
        slug="norm-sample-variance",
        clause="NRM-1",
        symptom="The sum of squares is divided by H - 1.",
        edits=(
            Edit("norm.rms_norm_forward", "/ x.shape[1]", "/ max(x.shape[1] - 1, 1)"),
            Edit("norm.rms_norm_backward", "/ dy.shape[1]", "/ max(dy.shape[1] - 1, 1)"),
        ),
        cite="guess; torch.var divides so unless it is told otherwise",
        trigger="any",
    ),
    Mutant(
        slug="norm-one-plus-weight",
        clause="NRM-2",
        symptom="The factor is 1 + weight.",
        edits=(
            Edit("norm.rms_norm_forward", "x_hat * weight", "x_hat * (1 + weight)"),
            Edit("norm.rms_norm_backward", "dy * weight", "dy * (1 + weight)"),
        ),
        cite="Gemma's RMSNorm",
        trigger="any",
    ),
    Mutant(
        slug="norm-dx-factor-constant",
        clause="NRM-3",
        symptom="A token's factor is a constant in the backward.",
        edits=(Edit("norm.rms_norm_backward", "(dx_hat - x_hat * along) * rstd", "dx_hat * rstd"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="norm-dx-without-weight",
        clause="NRM-3",
        symptom="What is taken out of dx is measured before the weight.",
        edits=(Edit("norm.rms_norm_backward", "(dx_hat * x_hat).sum(axis=-1", "(dy * x_hat).sum(axis=-1"),),
        cite="guess",
        trigger="a weight other than 1, backward",
        direction="backward",
    ),
    Mutant(
        slug="norm-dweight-bf16",
        clause="NRM-3",
        symptom="What is added up over the tokens to dweight is rounded to bfloat16 first.",
        edits=(Edit("norm.rms_norm_backward", "dweight = (dy * x_hat).sum", "dweight = bf16(dy * x_hat).sum"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="loss-sum",
        clause="LOS-3",
        symptom="Tokens' losses are added up instead of averaged.",
        edits=(
            Edit("loss.cross_entropy_forward", "/ max(len(target), 1)", "/ 1"),
            Edit("loss.cross_entropy_backward", "/ max(len(target), 1)", "/ 1"),
        ),
        cite="NVIDIA/Megatron-LM#1532 (of multi-token prediction)",
        trigger="two tokens",
    ),
    Mutant(
        slug="loss-of-nothing-nan",
        clause="LOS-3",
        symptom="Without tokens the mean is 0 / 0.",
        edits=(Edit("loss.cross_entropy_forward", "max(len(target), 1)", "len(target)"),),
        cite="torch.nn.functional.cross_entropy of no tokens",
        trigger="no tokens",
    ),
    Mutant(
        slug="loss-lse-in-one-number",
        clause="LOS-1",
        symptom="The largest logit and the log of the sum become one number, from which the target's logit is taken.",
        edits=(
            Edit(
                "loss.cross_entropy_forward",
                NLL,
                "largest = logits.max(axis=-1, keepdims=True)\n"
                "nll = (largest + np.log(total)) - np.take_along_axis(logits, target[:, None], axis=-1)",
            ),
        ),
        cite="most fused kernels, linkedin/Liger-Kernel's among them",
        trigger="logits far from 0",
    ),
    Mutant(
        slug="loss-log-of-softmax",
        clause="LOS-2",
        symptom="The loss is minus the logarithm of a probability that may be 0 in float32.",
        edits=(
            Edit(
                "loss.cross_entropy_forward",
                NLL,
                "nll = -np.log(np.take_along_axis(e / total, target[:, None], axis=-1))",
            ),
        ),
        cite="guess",
        trigger="a target 104 below the largest logit, or right beyond doubt",
    ),
    Mutant(
        slug="loss-no-shift",
        clause="LOS-1",
        symptom="exp of the logits as they are overflows from 89 on.",
        edits=(Edit("loss.cross_entropy_forward", "logits - logits.max(axis=-1, keepdims=True)", "logits * 1"),),
        cite="guess",
        trigger="logits beyond 88",
    ),
    Mutant(
        slug="loss-bf16-logits",
        clause="LOS-1",
        symptom="Logits are rounded to bfloat16 before the softmax.",
        edits=(
            Edit(
                "loss.cross_entropy_forward",
                "shifted = logits - logits",
                "logits = bf16(logits)\nshifted = logits - logits",
            ),
        ),
        cite="guess; an output head in bfloat16 whose logits are raised to float32 too late",
        trigger="any",
    ),
    Mutant(
        slug="loss-gradient-of-one",
        clause="LOS-4",
        symptom="The gradient leaves out dloss.",
        edits=(Edit("loss.cross_entropy_backward", "dnll = dloss /", "dnll = 1 /"),),
        cite="guess; fused kernels that compute the gradient in the forward, before dloss is known",
        trigger="dloss other than 1",
        direction="training",
    ),
    Mutant(
        slug="loss-target-kept",
        clause="LOS-4",
        symptom="The target's logit has a gradient like any other.",
        edits=(Edit("loss.cross_entropy_backward", "at_target - 1", "at_target"),),
        cite="guess",
        trigger="any, backward",
        direction="backward",
    ),
)
