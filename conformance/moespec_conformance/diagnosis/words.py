"""What failures have in common, in words: of their cases, and of the wrong numbers in them."""

from collections.abc import Callable, Sequence

import numpy as np

from moespec_conformance.cases import all_cases
from moespec_conformance.diagnosis.evidence import Evidence, bound_of
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Array, Case, Result

SELDOM = 0.1  # of the passing cases: a property that more of them have says nothing
FAILED = ("fail", "error")


def least(case: Case, name: str) -> float:
    """The smallest number of an input; 0 if it is not there."""
    return float(case.inputs[name].min(initial=0)) if name in case.inputs else 0.0


def unserved(case: Case) -> bool:
    """Whether ids are given that leave an expert without a token."""
    ids = case.inputs.get("topk_idx")
    return ids is not None and len(np.unique(ids[ids >= 0])) < case.cfg.n_routed_experts


# properties of a case that a bug may depend on
TRAITS: dict[str, Callable[[Case], bool]] = {
    "on a second call": lambda c: c.manner == "again",
    "with inputs that are not contiguous": lambda c: c.manner == "strided",
    "in bfloat16": lambda c: c.arithmetic == "bfloat16",
    "of backward ops": lambda c: c.op.endswith("_backward"),
    "with a bias below -0.5 somewhere": lambda c: least(c, "bias") < -0.5,  # noqa: PLR2004
    "with a bias": lambda c: "bias" in c.inputs,
    "with given ids": lambda c: "topk_idx" in c.inputs,
    "with empty slots (id -1)": lambda c: least(c, "topk_idx") < 0,
    "with experts that no token chose": unserved,
    "without any token": lambda c: not len(c.inputs.get("x", c.inputs.get("rows", [0]))),
    "with a mask": lambda c: "mask" in c.inputs,
    "with groups of experts": lambda c: c.cfg.n_group > 1,
    "with one expert a token": lambda c: c.cfg.num_experts_per_tok == 1,
    "with shared experts": lambda c: c.cfg.n_shared_experts > 0,
    "with a routed_scaling_factor other than 1": lambda c: c.cfg.routed_scaling_factor != 1,
    "with weights that are normalised": lambda c: c.cfg.normalises,
    "with a swiglu_limit": lambda c: c.cfg.swiglu_limit is not None,
    "with a capacity": lambda c: c.cfg.capacity_factor is not None,
    "that must be refused": lambda c: c.kind == "reject",
    "with blocks that do not divide the matrix": lambda c: "ragged" in c.id or "odd" in c.id,
    "with numbers beyond 2^10 times the usual": lambda c: largest(c) > 2.0**10,
}


def largest(case: Case) -> float:
    """The largest magnitude among x and the weights."""
    floats = [a for n, a in case.inputs.items() if a.dtype.kind == "f" and a.size and n != "bias"]
    return max((float(np.abs(a).max()) for a in floats), default=0.0)


def in_common(results: Sequence[Result]) -> list[str]:
    """Traits that all failures have, and few passing cases of the same ops."""
    failed = [held(r) for r in results if r.status in FAILED]
    ops = {case.op for case in failed}
    passed = [held(r) for r in results if r.status == "pass" and r.op in ops]
    return [
        f"all {len(failed)} failures are cases {words}, as are {sum(map(trait, passed))} of {len(passed)} that pass"
        for words, trait in TRAITS.items()
        if failed and passed and all(map(trait, failed)) and sum(map(trait, passed)) <= SELDOM * len(passed)
    ]


def held(result: Result) -> Case:
    """The case of a result."""
    return all_cases()[result.case]


def served_alike(seen: Evidence) -> str | None:
    """Say "exactly the 7 tokens of expert 5" if the wrong tokens of y are those."""
    chosen = seen.given.get("topk_idx", seen.right.get("topk_idx"))
    if chosen is None or "y" not in seen.error or chosen.dtype != np.bool:
        return None
    wrong = wrong_tokens(seen)
    alike = [e for e in range(chosen.shape[1]) if wrong.any() and np.array_equal(chosen[:, e], wrong)]
    return f"wrong are exactly the {wrong.sum()} tokens of expert {alike[0]}" if len(alike) == 1 else None


def wrong_tokens(seen: Evidence) -> Array:
    """The tokens (T,) whose y is beyond its bound."""
    bound = bound_of("y", answer(seen.case), seen.case)
    off: Array = ~(np.abs(seen.given["y"].astype(np.float64) - seen.right["y"]) <= bound)
    wrong: Array = np.any(off, axis=-1)
    return wrong
