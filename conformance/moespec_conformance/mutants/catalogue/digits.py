"""The right formula, short of digits: constants cut off, and divisions made of an estimate."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

LOG2E, LN2 = "1.4427 * 0.6931471805599453", "(0.6931 / 0.6931471805599453)"

FOUND = (
    Mutant(
        slug="expert-silu-short-log2e",
        clause="EXP-2",
        symptom="exp(-x) is 2^(-1.4427 x): a constant of five digits.",
        edits=(
            Edit("activation.silu", "np.exp(-x)", f"np.exp(-{LOG2E} * x)"),
            Edit("activation.silu_slope", "np.exp(-x)", f"np.exp(-{LOG2E} * x)"),
        ),
        cite="guess; kernels have exp2 alone, and a constant before it",
        trigger="gates far below 0",
    ),
    Mutant(
        slug="expert-gelu-short-root",
        clause="EXP-2",
        symptom="sqrt(2 / pi) is 0.79788: a constant of five digits.",
        edits=(
            Edit("activation.gelu", "c, cubic = GELU", "c, cubic = 0.79788, 0.044715"),
            Edit("activation.gelu_slope", "c, cubic = GELU", "c, cubic = 0.79788, 0.044715"),
        ),
        cite="guess",
        trigger="gelu experts",
    ),
    Mutant(
        slug="expert-gelu-short-cubic",
        clause="EXP-2",
        symptom="The cubic's share is 0.04472: a constant of four digits.",
        edits=(
            Edit("activation.gelu", "c, cubic = GELU", "c, cubic = 0.7978845608028654, 0.04472"),
            Edit("activation.gelu_slope", "c, cubic = GELU", "c, cubic = 0.7978845608028654, 0.04472"),
        ),
        cite="guess",
        trigger="gelu experts",
    ),
    Mutant(
        slug="norm-estimated-root",
        clause="NRM-1",
        symptom="A token's factor is an estimate of 8 bits and one step of Newton's.",
        edits=(
            Edit(
                "norm.rms_norm_forward",
                "rstd = 1 / np.sqrt(mean_square + eps)",
                "square = mean_square + eps\n"
                "rstd = bf16(1 / np.sqrt(square))\n"
                "rstd = rstd * (1.5 - square * rstd * rstd / 2)",
            ),
        ),
        cite="guess; an rsqrt instruction is such an estimate",
        trigger="any",
    ),
    Mutant(
        slug="loss-estimated-division",
        clause="LOS-4",
        symptom="The probabilities' division is an estimate of 8 bits and one step of Newton's.",
        edits=(
            Edit(
                "loss.cross_entropy_backward",
                "dlogits = e / total",
                "part = bf16(1 / total)\ndlogits = e * (part * (2 - total * part))",
            ),
        ),
        cite="guess; a reciprocal instruction is such an estimate",
        trigger="any, backward",
        direction="backward",
    ),
    Mutant(
        slug="loss-short-ln2",
        clause="LOS-2",
        symptom="log is log2 times 0.6931: a constant of four digits.",
        edits=(Edit("loss.cross_entropy_forward", "np.log(total)", f"np.log(total) * {LN2}"),),
        cite="guess; kernels have log2 alone, and a constant behind it",
        trigger="any",
    ),
    Mutant(
        slug="balance-estimated-division",
        clause="BAL-8",
        symptom="A token's scores are divided by their sum by an estimate of 8 bits and one step of Newton's.",
        edits=(
            Edit(
                "balance.balance_forward",
                "share = scores / denom",
                "part = bf16(1 / denom)\nshare = scores * (part * (2 - denom * part))",
            ),
        ),
        cite="guess; a reciprocal instruction is such an estimate",
        trigger="balance_kind sequence",
    ),
    Mutant(
        slug="balance-z-estimated-division",
        clause="BAL-11",
        symptom="The softmax of the z-loss's gradient is divided by an estimate of 8 bits and one step of Newton's.",
        edits=(
            Edit(
                "balance.z_forward",
                "return loss, ZCache(counted, e / total, lse)",
                "part = bf16(1 / total)\nreturn loss, ZCache(counted, e * (part * (2 - total * part)), lse)",
            ),
        ),
        cite="guess; a reciprocal instruction is such an estimate",
        trigger="balance_kind z, backward",
        direction="backward",
    ),
    Mutant(
        slug="balance-z-short-ln2",
        clause="BAL-11",
        symptom="log is log2 times 0.69314: a constant of five digits.",
        edits=(Edit("balance.z_forward", "np.log(total)", f"np.log(total) * {LN2.replace('0.6931 ', '0.69314 ')}"),),
        cite="guess; kernels have log2 alone, and a constant behind it",
        trigger="balance_kind z",
    ),
    Mutant(
        slug="balance-importance-tf32-sum",
        clause="BAL-12",
        symptom="Weights are added up by a product with ones, in which a tensor core rounds them to 10 bits.",
        edits=(
            Edit(
                "balance.importance_forward",
                "np.where(mask[:, None], scores, 0)",
                "np.where(mask[:, None], tf32(scores), 0)",
            ),
        ),
        cite="torch.backends.cuda.matmul.allow_tf32, which was true by default before PyTorch 1.12",
        trigger="balance_kind importance",
    ),
    Mutant(
        slug="balance-importance-tf32-variance",
        clause="BAL-12",
        symptom="Distances from the mean are rounded to 10 bits before they are squared.",
        edits=(Edit("balance.importance_forward", "off = importance - mean", "off = tf32(importance - mean)"),),
        cite="torch.backends.cuda.matmul.allow_tf32, which was true by default before PyTorch 1.12",
        trigger="balance_kind importance",
    ),
    Mutant(
        slug="layout-k-grouped-three-products",
        clause="DSP-8",
        symptom="A float32 product is made of three bfloat16 ones: that of both factors' lower digits is left out.",
        edits=(
            Edit(
                "layouts.k_grouped",
                "d[e] = c[e] + a[s].T @ b[s]",
                "p, q = bf16(a[s]), bf16(b[s])\n"
                "u, v = bf16(a[s] - p), bf16(b[s] - q)\n"
                "d[e] = c[e] + (p.T @ q + (p.T @ v + u.T @ q))",
            ),
        ),
        cite='guess; torch.set_float32_matmul_precision("high") may compute so',
        trigger="any",
    ),
)
