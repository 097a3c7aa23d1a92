"""Tensor cores: how many products a step adds, what is cut off them, and what of the accumulator."""

from moespec_conformance.edits import Edit
from moespec_conformance.mutants.mutant import Mutant

HOPPER, BLACKWELL = '"hopper": Unit(32, 13, 13)', '"blackwell": Unit(32, 25, 23, alone=True)'
MODELS = "microsoft/MMA-Sim; north-numerical-computing/MATLAB-tensor-core"
LAST = "np.trunc(np.ldexp(exact, -last))"
FOUND = (
    Mutant(
        slug="fp8-unit-16-products",
        clause="ACC-3",
        symptom="Hopper's unit is taken to add 16 products a step, as Ada's does.",
        edits=(Edit("accumulate", HOPPER, '"hopper": Unit(16, 13, 13)'),),
        cite=MODELS,
        trigger="two large terms that cancel, and a small one 16 to 31 places on",
    ),
    Mutant(
        slug="fp8-unit-12-bits",
        clause="ACC-3",
        symptom="Hopper's unit is taken to keep 12 fraction bits of a term.",
        edits=(Edit("accumulate", HOPPER, '"hopper": Unit(32, 12, 13)'),),
        cite=MODELS,
        trigger="1 + 2^-13",
    ),
    Mutant(
        slug="fp8-unit-14-bits",
        clause="ACC-3",
        symptom="The 14 bits of the report are taken for fraction bits: one more than there are.",
        edits=(Edit("accumulate", HOPPER, '"hopper": Unit(32, 14, 14)'),),
        cite="DeepSeek-V3, section 3.3.2, against its successor's 13 fraction bits; microsoft/MMA-Sim",
        trigger="1 + 2^-14",
    ),
    Mutant(
        slug="fp8-unit-float32-sum",
        clause="ACC-3",
        symptom="Terms are cut to 13 bits, but the accumulator is taken for a float32.",
        edits=(Edit("accumulate", HOPPER, '"hopper": Unit(32, 13, 23)'),),
        cite="deepseek-ai/DeepSeek-V3#197",
        trigger="a sum that carries",
    ),
    Mutant(
        slug="fp8-unit-rounds-terms",
        clause="ACC-3",
        symptom="Terms are rounded to nearest where the unit cuts them toward zero.",
        edits=(Edit("accumulate.step", "np.trunc(terms, out=terms)", "np.rint(terms, out=terms)"),),
        cite=MODELS,
        trigger="numbers of one sign: the error is no longer a bias",
    ),
    Mutant(
        slug="fp8-unit-rounds-down",
        clause="ACC-3",
        symptom="Terms are cut toward minus infinity, as AMD's units do with some, and not toward zero.",
        edits=(Edit("accumulate.step", "np.trunc(terms, out=terms)", "np.floor(terms, out=terms)"),),
        cite="microsoft/MMA-Sim: CDNA3",
        trigger="a negative term that is cut",
    ),
    Mutant(
        slug="fp8-unit-rounds-sum",
        clause="ACC-3",
        symptom="A step's sum is rounded to nearest where the unit cuts it.",
        edits=(Edit("accumulate.step", LAST, LAST.replace("trunc", "rint")),),
        cite=MODELS,
        trigger="a sum that carries",
    ),
    Mutant(
        slug="fp8-unit-exact-terms",
        clause="ACC-3",
        symptom="Only a step's sum is cut, its terms are added exactly.",
        edits=(Edit("accumulate.step", "np.trunc(terms, out=terms)", "terms = terms.astype(np.float64)"),),
        cite=MODELS,
        trigger="terms that are cut one by one, and would not be together",
    ),
    Mutant(
        slug="fp8-unit-normalises",
        clause="ACC-3",
        symptom="Products are normalised before they are aligned, so that 1.5 * 1.5 has the exponent of 2.",
        edits=(
            Edit(
                "accumulate.chained",
                "exponent = (a.exponent[part, :, None] + b.exponent[part, None, :]).max(axis=0)  # (M, N)",
                "exponent = np.where(terms == 0, 2 * NOTHING, np.frexp(terms)[1] - 1).max(axis=0)",
            ),
        ),
        cite=MODELS,
        trigger="products of two mantissas that are 2 or more",
    ),
    Mutant(
        slug="fp8-unit-true-exponents",
        clause="ACC-3",
        symptom="A subnormal factor is aligned with its own exponent instead of the format's least.",
        edits=(Edit("accumulate.factors", "np.maximum(exponent - 1, fmt.emin)", "exponent - 1"),),
        cite=f"{MODELS}: their vectors with accumulator 0 do not tell",
        trigger="subnormal codes",
    ),
    Mutant(
        slug="fp8-unit-accumulator-apart",
        clause="ACC-3",
        symptom="Hopper's accumulator is added in float32 after the products, as on a B200's older path.",
        edits=(Edit("accumulate", HOPPER, '"hopper": Unit(32, 13, 13, alone=True)'),),
        cite=MODELS,
        trigger="an accumulator other than 0",
    ),
    Mutant(
        slug="fp8-unit-blackwell-fused",
        clause="ACC-4",
        symptom="Blackwell's accumulator is aligned and cut along with the products.",
        edits=(Edit("accumulate", BLACKWELL, BLACKWELL.replace(", alone=True", "")),),
        cite="north-numerical-computing/MATLAB-tensor-core: its own parameters miss 35 % of its B200's outputs",
        trigger="an accumulator other than 0",
    ),
    Mutant(
        slug="fp8-unit-blackwell-as-hopper",
        clause="ACC-4",
        symptom="Blackwell is taken to keep no more bits than Hopper.",
        edits=(Edit("accumulate", BLACKWELL, '"blackwell": Unit(32, 13, 13)'),),
        cite="microsoft/MMA-Sim: the limit of 14 bits is gone",
        trigger="the fingerprint",
    ),
    Mutant(
        slug="fp8-unit-for-float32",
        clause="ACC-2",
        symptom="A stretch is added by Hopper's 14 bits where float32 was promised.",
        edits=(
            Edit("linear.inner", "in UNITS:", 'in {*UNITS, "promoted"}:'),
            Edit("linear.inner", "UNITS[how.accumulate]", 'UNITS.get(how.accumulate, UNITS["hopper"])'),
        ),
        cite="DeepSeek-V3, section 3.3.2; pytorch/pytorch: use_fast_accum",
        trigger="products of one sign",
    ),
    Mutant(
        slug="fp8-exact-rounded-twice",
        clause="ACC-1",
        symptom="An exact sum is rounded to float32 before what was there is added, and again after.",
        edits=(
            Edit(
                "linear.inner",
                "added_once(product, c)",
                "product.astype(np.float32) + c",
            ),
        ),
        cite="NVIDIA/TransformerEngine tests: cuBLASLt converts to the output's type first",
        trigger="an unpromoted sum with an accumulator",
    ),
    Mutant(
        slug="fp8-exact-in-float32",
        clause="ACC-1",
        symptom="Sums that should be exact are added in float32.",
        edits=(
            Edit("linear.matmul", 'np.float64 if how.accumulate == "exact" else np.float32', "np.float32"),
            Edit("linear.inner", "added_once(product, c)", "product + c"),
        ),
        cite="guess",
        trigger="long sums of one sign",
    ),
)
