"""What `moespec layer` says: seconds, memory, and how far from reading each expert once and multiplying at best."""

import zlib
from typing import Any, NamedTuple

import numpy as np

from moespec.config import MoEConfig
from moespec_conformance.bench.rates import Rates
from moespec_conformance.bench.streaming import Job, Outcome, Step

MIB = 1 << 20
GOAL_TOKENS, GOAL_SECONDS = 256, 35.0  # CPU, forward, one process
GOAL_BYTES = {False: 256 * MIB, True: 512 * MIB}  # of the process, beside the tokens' own arrays


class Best(NamedTuple):
    """What the machine does at best, in the same run: bytes read a second, and FLOPs of the BLAS."""

    read: float
    gemm: Rates


class Told(NamedTuple):
    """What a rank has to tell."""

    outcome: Outcome
    plan: list[Step]
    peak: int


def size_of(cfg: MoEConfig, e: int) -> tuple[int, int]:
    """Weights of an expert, and its bytes with their scales."""
    f, (height, width) = cfg.moe_intermediate_size if e < cfg.n_routed_experts else cfg.shared_width, cfg.b_block
    sides = [(f, cfg.hidden_size)] * (2 if cfg.gated else 1) + [(cfg.hidden_size, f)]
    blocks = sum(-(-rows // height) * -(-columns // width) for rows, columns in sides)
    weights = sum(rows * columns for rows, columns in sides)
    return weights, weights + 4 * blocks


def floor_of(cfg: MoEConfig, plan: list[Step], best: Best) -> dict[str, float]:
    """Seconds to read each expert once in each direction, and to multiply: twice as much backward as forward."""
    sizes = [(size_of(cfg, step.e), step) for step in plan]
    read = sum(size for (_, size), _ in sizes)
    flops = sum(2 * weights * step.rows * (2 if step.backward else 1) for (weights, _), step in sizes)
    gemm = best.gemm.dgemm if cfg.accumulate == "exact" else best.gemm.sgemm
    return {"bytes": read, "flops": flops, "read": read / best.read, "gemm": flops / gemm}


def of_rank(cfg: MoEConfig, told: Told, best: Best) -> dict[str, Any]:
    """One rank's figures."""
    outcome, plan, peak = told
    floor = floor_of(cfg, plan, best)
    return {
        "cpu_seconds": outcome.cpu,
        "wall_seconds": outcome.wall,
        "peak_bytes": peak,
        "peak_beside_tokens": peak - outcome.token_bytes,
        "experts_hit": len({step.e for step in plan if step.e < cfg.n_routed_experts}),
        "largest_share": max((step.rows for step in plan if step.e < cfg.n_routed_experts), default=0),
        "floor": floor,
        "ratio_to_floor": outcome.cpu / (floor["read"] + floor["gemm"]),
    }


def report(job: Job, told: list[Told], best: Best, source: str) -> dict[str, Any]:
    """All figures, rank by rank, and checksums of the results in order of tokens and of experts."""
    outcomes = [one.outcome for one in told]
    squares = {e: square for one in outcomes for e, square in one.squares.items()}
    sums = {
        name: np.concatenate([np.array(one.sums[name], np.uint32) for one in outcomes]) for name in outcomes[0].sums
    }
    if squares:
        sums["gradients"] = np.array([squares[e] for e in sorted(squares)])
    return {
        "hidden_size": job.cfg.hidden_size,
        "n_routed_experts": job.cfg.n_routed_experts,
        "accumulate": job.cfg.accumulate,
        "experts": source,
        "tokens": job.tokens,
        "backward": job.backward,
        "rates": {"read": best.read, **best.gemm._asdict()},
        "ranks": [of_rank(job.cfg, one, best) for one in told],
        "size_of_y": float(np.mean([one.size_of_y for one in outcomes])),
        "checksums": {name: f"{zlib.crc32(each.tobytes()):08x}" for name, each in sums.items()},
    }


def lines(made: dict[str, Any]) -> list[str]:
    """The same to be read."""
    way, rate = "forward and backward" if made["backward"] else "forward", made["rates"]
    gemms = f"dgemm {rate['dgemm'] / 1e9:.0f} and sgemm {rate['sgemm'] / 1e9:.0f} Gflop/s"
    sums = ", ".join(f"{name} {each}" for name, each in made["checksums"].items())
    return [
        f"{made['tokens']} tokens, {way}, accumulate {made['accumulate']}, experts from {made['experts']}",
        *(line for rank, one in enumerate(made["ranks"]) for line in lines_of(rank, one, made)),
        f"this machine now, one core: reads {rate['read'] / 1e9:.1f} GB/s, {gemms}",
        f"y: root mean square {made['size_of_y']:.4g}; checksums: {sums}",
        *goals(made),
    ]


def lines_of(rank: int, one: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """One rank's lines."""
    floor, unit = one["floor"], "dgemm" if made["accumulate"] == "exact" else "sgemm"
    peak, beside = one["peak_bytes"] / MIB, one["peak_beside_tokens"] / MIB
    read = f"{floor['bytes'] / 1e9:.2f} GB read in {floor['read']:.2f} s"
    multiplied = f"{floor['flops'] / 1e9:.0f} Gflop of {unit} in {floor['gemm']:.2f} s"
    return [
        *([f"rank {rank}"] if len(made["ranks"]) > 1 else []),
        f"  {one['cpu_seconds']:.1f} s of CPU, {one['wall_seconds']:.1f} s",
        f"  peak {peak:.0f} MiB, {beside:.0f} beside the tokens' own arrays",
        f"  {one['experts_hit']} experts hit, the largest share has {one['largest_share']} rows",
        f"  floor {floor['read'] + floor['gemm']:.2f} s: {read}, {multiplied}; ratio {one['ratio_to_floor']:.1f}",
    ]


def goals(made: dict[str, Any]) -> list[str]:
    """Whether the goals are met that are set for this run."""
    limit, peak = GOAL_BYTES[made["backward"]], max(one["peak_beside_tokens"] for one in made["ranks"])
    if made["tokens"] == GOAL_TOKENS:  # here the tokens count too
        peak = max(one["peak_bytes"] for one in made["ranks"])
    told = [f"goal {limit // MIB} MiB: {'met' if peak <= limit else 'missed'}"]
    if made["tokens"] == GOAL_TOKENS and not made["backward"] and len(made["ranks"]) == 1:
        seconds = made["ranks"][0]["cpu_seconds"]
        told.append(f"goal {GOAL_SECONDS:.0f} s of CPU: {'met' if seconds <= GOAL_SECONDS else 'missed'}")
    return told
