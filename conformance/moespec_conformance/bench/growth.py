"""How the layer's cost grows: by its own lines over three decades of tokens, and with experts that nobody chose."""

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec.ops import RUN
from moespec_conformance.bench.inputs import config, inputs
from moespec_conformance.bench.spent import spent
from moespec_conformance.bench.timing import interleave
from moespec_conformance.readings.counted import Counted, by_step, counting

TOKENS = (10, 30, 100, 300, 1000, 3000, 10000)
EXPERTS = (8, 16, 32, 64, 128)
WIDTHS = {"hidden_size": 256, "moe_intermediate_size": 128, "num_experts_per_tok": 4, "n_routed_experts": 8}
FEW = 1000  # tokens, where experts vary
GATE = ("gate.", "arrays.", "router.")  # where experts are scored and chosen
TIMES = 7


def layer(**fields: Any) -> MoEConfig:  # noqa: ANN401 - config fields
    """A small layer without groups: products large enough to be timed."""
    return replace(config("moe"), n_group=1, topk_group=1, group_score=None, **{**WIDTHS, **fields})


def flops(cfg: MoEConfig, given: dict[str, Any]) -> dict[str, int]:
    """FLOPs of matrix products by function of the reference, read off its own lines."""
    lifted = {n: Counted(t) if t.dtype.kind == "f" else t for n, t in given.items()}
    with counting() as ledger:
        RUN["moe"](cfg, **lifted)
    return {step: work.products for step, work in by_step(ledger).items() if work.products}


def fit(tokens: list[int], values: list[float]) -> dict[str, float]:
    """The line start + each * tokens nearest to some values, relative to them, and how far off it is at worst."""
    x, y = np.array(tokens, np.float64), np.array(values, np.float64)
    start, each = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), np.ones_like(y), rcond=None)[0]
    return {"start": float(start), "each": float(each), "worst": float(np.max(np.abs((start + each * x) / y - 1)))}


def by_tokens(seconds: float) -> dict[str, Any]:
    """FLOPs and CPU seconds of the layer for each number of tokens, at fixed experts, and the lines through them."""
    cfg = layer()
    given = [inputs("moe", cfg, tokens) for tokens in TOKENS]
    counted = [sum(flops(cfg, each).values()) for each in given]
    rounds = interleave([partial(RUN["moe"], cfg, **each) for each in given], 3, seconds)
    times = [float(t) for t in np.median(np.array(rounds), axis=0)]
    fits = {"flops": fit(list(TOKENS), [float(c) for c in counted]), "seconds": fit(list(TOKENS), times)}
    return {"tokens": TOKENS, "flops": counted, "seconds": times, "fit": fits}


def by_idle_experts(many: tuple[int, ...] = EXPERTS, times: int = TIMES) -> dict[str, Any]:
    """With ever more experts, of which tokens still choose the first: FLOPs and CPU seconds of the gate, and beside."""
    found: dict[str, list[float]] = {"gate": [], "beside": [], "gate_seconds": [], "beside_seconds": []}
    for experts in many:
        cfg = layer(n_routed_experts=experts)
        given = inputs("moe", cfg, FEW)
        given["bias"] = np.where(np.arange(experts) < many[0], 8, 0).astype(np.float32)
        counted = flops(cfg, given)
        found["gate"].append(counted.pop("gate.logits_forward"))
        found["beside"].append(sum(counted.values()))
        runs = [spent(partial(RUN["moe"], cfg, **given)) for _ in range(times)]
        gate = [sum(s for step, s in run.items() if step.startswith(GATE)) for run in runs]
        beside = [sum(run.values()) - g for run, g in zip(runs, gate, strict=True)]
        found["gate_seconds"].append(median(gate))
        found["beside_seconds"].append(median(beside))
    return {"experts": many, **found}


def growth(seconds: float) -> dict[str, Any]:
    """Both."""
    return {"tokens": by_tokens(seconds), "experts": by_idle_experts()}


def told(found: dict[str, Any]) -> list[str]:
    """Both in words."""
    tokens, experts = found["tokens"], found["experts"]
    first, last = tokens["tokens"][0], tokens["tokens"][-1]
    by_flops, by_seconds = tokens["fit"]["flops"], tokens["fit"]["seconds"]
    idle = experts["experts"][-1] - experts["experts"][0]
    beside, gate = experts["beside_seconds"], experts["gate_seconds"]
    same = "stay the same" if len(set(experts["beside"])) == 1 else "GROW"
    return [
        (
            f"{first} to {last} tokens at fixed experts: {by_flops['each']:.0f} FLOPs a token, "
            f"off that line by {by_flops['worst']:.1%} at most;"
        ),
        (
            f"  CPU {by_seconds['start'] * 1e3:.2f} ms and {by_seconds['each'] * 1e6:.2f} us a token, "
            f"off that line by {by_seconds['worst']:.0%} at most"
        ),
        f"{idle} experts that nobody chose, {FEW} tokens: FLOPs beside the gate {same};",
        (
            f"  CPU beside the gate {beside[0] * 1e3:.1f} -> {beside[-1] * 1e3:.1f} ms "
            f"({(beside[-1] - beside[0]) / idle * 1e6:.0f} us an expert), "
            f"the gate's {gate[0] * 1e3:.1f} -> {gate[-1] * 1e3:.1f} ms"
        ),
    ]
