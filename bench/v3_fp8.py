"""One layer of DeepSeek-V3 at its full size, in FP8 with exact sums, expert by expert: CPU seconds and peak memory.

Its 257 experts hold 11.3 GB, which are never there at once: each expert's codes come from a generator that counts, so
that any expert can be made again, and are thrown away. Weights are made inside the time that is measured.
"""

import argparse
import os
import resource
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from floor import one_thread
from layer import keep

from moespec import PRESETS
from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.dispatch import rows_by_expert, segments
from moespec.expert_fp8 import Fp8Expert, expert_forward, operand, scheme_b, sent_scheme
from moespec.gate import gate_forward
from moespec.linear import Operand, rows_of
from moespec.quant import Quantized

GOAL_SECONDS, GOAL_BYTES = 35.0, 256 << 20
TOKENS = 256


def matrix(rows: int, columns: int, generator: np.random.Philox, cfg: MoEConfig) -> Operand:
    """Codes (rows, columns) that are numbers, any of them as often, and their scales."""
    codes = generator.random_raw(rows * columns // 8).view(np.uint8).reshape(rows, columns)
    codes &= 0xFE  # 0x7F and 0xFF are NaN
    height, width = cfg.b_block
    words = generator.random_raw(rows // height * (columns // width)).reshape(rows // height, columns // width)
    scale = (1 + (words >> 40) * 2.0**-24) * (columns**-0.5 / 128)  # (I, J)
    return Operand(Quantized(codes, scale.astype(np.float32)), scheme_b(cfg))


def expert(e: int, cfg: MoEConfig) -> Fp8Expert:
    """Expert e's matrices, the same each time."""
    generator, h, f = np.random.Philox(key=e), cfg.hidden_size, cfg.moe_intermediate_size
    return Fp8Expert(matrix(f, h, generator, cfg), matrix(f, h, generator, cfg), matrix(h, f, generator, cfg))


def forward(x: Float, weight: Float, cfg: MoEConfig) -> tuple[Float, Int]:
    """`moe_fp8` of tokens x (T, H) and the router's weight (E, H), an expert at a time; and rows of each expert."""
    topk_idx, topk_weight, _ = gate_forward(x, weight, np.zeros(cfg.n_routed_experts, np.float32), cfg)
    x_codes = operand(x, sent_scheme(cfg))
    shared, _ = expert_forward(x, x_codes, np.ones_like(x[:, 0]), expert(cfg.n_routed_experts, cfg), cfg)
    y, rows = shared, rows_by_expert(topk_idx, cfg.n_routed_experts)
    for e, (t, k) in enumerate(segments(rows)):
        if t.shape[0]:
            y[t] += expert_forward(x[t], rows_of(x_codes, t), topk_weight[t, k], expert(e, cfg), cfg)[0]
    return y, rows.expert_count


def main() -> int:
    """Print what it took, and keep it; 1 if it missed a goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    tokens = parser.parse_args().tokens
    cfg = replace(PRESETS["deepseek-v3"].moe, accumulate="exact")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tokens, cfg.hidden_size), np.float32)
    weight = rng.standard_normal((cfg.n_routed_experts, cfg.hidden_size), np.float32) / np.float32(cfg.hidden_size**0.5)
    one_thread()
    start = time.thread_time()
    y, expert_count = forward(x, weight, cfg)
    found: dict[str, Any] = {
        "case": "deepseek-v3 layer, exact",
        "tokens": tokens,
        "seconds": time.thread_time() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "experts_hit": int(np.count_nonzero(expert_count)),
        "largest_share": int(expert_count.max()),
        "root_mean_square": float(np.sqrt(np.mean(np.square(y)))),
        "load": round(os.getloadavg()[1], 2),
    }
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    print(f"goals: {GOAL_SECONDS:.0f} s of CPU, {GOAL_BYTES >> 20} MiB")
    print(keep([found], "-v3"))
    return int(found["seconds"] > GOAL_SECONDS or found["peak_bytes"] > GOAL_BYTES)


if __name__ == "__main__":
    sys.exit(main())
