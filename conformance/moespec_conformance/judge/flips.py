"""How many tokens may rounding send to other experts? Of close choices any is legal, but not always another.

Rounding moves the difference of two choices by some standard deviation s (the Spread reading), and so lets them change
places across a gap g with probability Phi(-g / s). Over all tokens these add up to N: how many of the reference's own
gaps float32 is expected to cross, here with the largest spread that is legal. The number that it does cross is at most
Poisson's, and passes N + 6 sqrt(N) + 3 less than once in a million runs. A gate in TF32 crosses many more, each legally
where sums are long and bounds therefore wide.
"""

import math

import numpy as np

from moespec.config import MoEConfig
from moespec_conformance.judge import near, selection
from moespec_conformance.judge.finding import Finding
from moespec_conformance.oracle import Answer
from moespec_conformance.protocol import Array, Case
from moespec_conformance.readings.spread import Spread

PASS = Finding("pass", "selection", None)


def usual(case: Case, right: Answer, topk_idx: Array) -> Finding:
    """Of these legal sets of experts no more may differ from the reference's than rounding explains."""
    by, experts = case.cfg.choose_by, case.cfg.n_routed_experts
    sets = (selection.members(ids, experts) for ids in (topk_idx, right.values["topk_idx"]))
    flipped = int(np.any(np.not_equal(*sets), axis=-1).sum())
    if not flipped or by not in right.variances:
        return PASS
    choice = Spread(right.values[by], right.variances[by])
    if "bias" in case.inputs:
        choice = choice + Spread.lift(case.inputs["bias"])
    usually = expected(choice, case.cfg)
    most = usually + 6 * math.sqrt(usually) + 3
    if flipped <= most:
        return PASS
    says = f"{flipped} of {len(topk_idx)} tokens went to other experts than the reference's, each within bounds; "
    says += f"float32 is expected to send {usually:.2g} there, and hardly ever more than {most:.3g}"
    return Finding("fail", "spread", None, says, flipped / most)


def expected(choice: Spread, cfg: MoEConfig) -> float:
    """How many of these tokens' sets (choices (T,E)) rounding is expected to change, by a group or by an expert."""
    changes = 0.0
    if cfg.n_group > 1:
        best = np.sort(choice.reshape(-1, cfg.n_group, cfg.experts_per_group), axis=-1)[:, :, -cfg.n_best :]
        groups = np.sum(best, axis=-1)
        changes = crossed(groups, cfg.topk_group)
        kept = selection.members(np.argsort(-groups.v, axis=-1, kind="stable")[:, : cfg.topk_group], cfg.n_group)
        stands = kept.repeat(cfg.experts_per_group, axis=-1)
        choice = Spread(np.where(stands, choice.v, -np.inf), choice.q)
    return changes + crossed(choice, cfg.num_experts_per_tok)


def crossed(x: Spread, k: int) -> float:
    """In how many rows the k-th largest and the next are expected to change places."""
    if x.shape[-1] <= k:
        return 0.0
    edge = np.argsort(-x.v, axis=-1, kind="stable")[:, k - 1 : k + 1]
    value, variance = (np.take_along_axis(plane, edge, axis=-1) for plane in x.planes)
    gap, spread = value[:, 0] - value[:, 1], near.RMS * np.sqrt(variance.sum(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(gap > 0, gap / (math.sqrt(2) * spread), 0.0)
    return sum(0.5 * math.erfc(z) for z in far.tolist())
