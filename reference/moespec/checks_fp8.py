"""What the ops of FP8 refuse, beyond names and shapes (SPEC: FMT, QNT, LIN, MFP, OPT)."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig, require
from moespec.formats import FORMATS, Codes, Format, decode, inside, scale_inside
from moespec.quant import largest_of, spread, tiles

MOST = 2.0**53  # whole numbers up to here are float64's
SPREAD = 2.0**14  # QNT-8: between the scales that one block of E4M3 can hold


def format_of(name: str, op: str, cfg: MoEConfig) -> str:
    """Which of the config's formats a tensor of codes has."""
    if name.startswith("a_") or op == "requantize" or op == "lift_fp4":
        return cfg.a_format
    return cfg.b_format if name.startswith("b_") or op.startswith("moe_fp8") else cfg.format


def check_fp8(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """FMT-5: codes are of their format's dtype or its bits; QNT-3: scales are float32 or E8M0; and what single ops need."""
    for name, tensor in tensors.items():
        if name.endswith("codes"):
            check_codes(op, name, tensor, FORMATS[format_of(name, op, cfg)])
        if name.endswith("scale"):
            kind = np.dtype(tensor.dtype)
            require(kind in (np.float32, ml_dtypes.float8_e8m0fnu), f"QNT-3: {op}: {name} is {kind}")
    if op.startswith("moe_fp8"):
        require(np.dtype(tensors["x"].dtype) == np.float32, f"MFP-1: {op}: x must be float32, not {tensors['x'].dtype}")
    if op == "lift_fp4":
        check_lift(cfg, inside(tensors["codes"], FORMATS["e2m1"]), scale_inside(tensors["scale"]))
    if op in ("matmul_fp8", "grouped_matmul_fp8"):
        check_sum(op, cfg, tensors)
    if op == "grouped_matmul_fp8":
        check_groups(cfg, tensors)
    if op == "adamw":
        require(int(tensors["step"]) >= 1, f"OPT-1: adamw: step must be 1 or more, not {tensors['step']}")
        require(bool(np.all(tensors["exp_avg_sq"] >= 0)), "OPT-1: adamw: exp_avg_sq must be 0 or more")


def check_codes(op: str, name: str, codes: Any, fmt: Format) -> None:  # noqa: ANN401 - any array library's
    """FMT-5: the format's dtype, or unsigned integers; no bits beyond the format's."""
    kind = np.dtype(codes.dtype)
    require(kind in (fmt.codes, fmt.storage), f"FMT-5: {op}: {name} is {kind}, not {np.dtype(fmt.storage)}")
    wide = fmt.bits not in (4, 8, 16) and kind == fmt.codes
    require(not wide or not bool(np.any(codes >> fmt.bits)), f"FMT-5: {op}: {name} has bits beyond {fmt.bits}")


def check_lift(cfg: MoEConfig, codes: Codes, scale: Float) -> None:
    """QNT-8: what is to be lifted is E2M1 and becomes E4M3, by scales that are powers of two and near enough."""
    both = (cfg.a_format, cfg.b_format)
    require(both == ("e2m1", "e4m3"), f"QNT-8: lift_fp4 makes e4m3 of e2m1, not {both[1]} of {both[0]}")
    require(bool(np.all(np.frexp(scale)[0] == 0.5)), "QNT-8: lift_fp4: scales must be powers of two")  # noqa: PLR2004
    numbers = decode(codes, FORMATS["e2m1"])
    each = np.where(numbers != 0, spread(scale, cfg.a_block, numbers.shape), 0)
    most = largest_of(tiles(each, cfg.b_block))
    least = 1 / largest_of(tiles(np.where(each > 0, 1 / np.where(each > 0, each, 1), 0), cfg.b_block))
    apart = np.where(most > 0, most / np.where(most > 0, least, 1), 1)
    require(
        bool(np.all(apart <= SPREAD)), f"QNT-8: lift_fp4: scales in a block are {apart.max():g} times apart, above 2^14"
    )


def check_sum(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """LIN-3: a sum that is never promoted has one scale along C. ACC-1: exact sums are those that float64 holds."""
    if not cfg.promote_every and cfg.accumulate != "float32":
        for name in ("a_scale", "b_scale"):
            scale = scale_inside(tensors[name])
            same = bool(np.all((scale == scale[..., :1]) | np.isnan(scale)))
            require(same, f"LIN-3: {op}: without promotion {name} must be the same along C")
    if cfg.accumulate == "exact":
        sizes = [
            extent(inside(tensors[f"{o}_codes"], FORMATS[f]), FORMATS[f])
            for o, f in zip("ab", formats(cfg), strict=True)
        ]
        (most_a, step_a, length), (most_b, step_b, _) = sizes
        within = (
            min(length, *(w for w in (cfg.promote_every, cfg.a_block[1], cfg.b_block[1]) if w))
            if cfg.promote_every
            else length
        )
        needed = most_a * most_b * within / (step_a * step_b)
        require(needed <= MOST, f"ACC-1: {op}: these exponents need {np.log2(needed):.0f} bits, float64 has 53")


def formats(cfg: MoEConfig) -> tuple[str, str]:
    """The formats of both operands."""
    return cfg.a_format, cfg.b_format


def extent(codes: Codes, fmt: Format) -> tuple[float, float, int]:
    """The largest magnitude among numbers, the finest step of their grids, and how long their contraction is."""
    size = np.abs(decode(codes, fmt, np.float64))
    there = (size > 0) & np.isfinite(size)
    if not np.any(there):
        return 1.0, 1.0, codes.shape[-1]
    _, exponent = np.frexp(size[there].min())
    return float(size[there].max()), 2.0 ** (max(int(exponent) - 1, fmt.emin) - fmt.mantissa), codes.shape[-1]


def check_groups(cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """LIN-5, LIN-6: rows name experts, counts fit, and shares of a contraction end where blocks do."""
    experts = cfg.n_routed_experts
    if "group_index" in tensors:
        index = tensors["group_index"]
        require(bool(np.all((index >= -1) & (index < experts))), f"LIN-5: group_index must lie in -1 … {experts - 1}")
    if "expert_end" in tensors:
        end, rows = tensors["expert_end"], tensors["a_codes"].shape[0]
        start = np.concatenate([np.zeros_like(end[:1]), -(-end[:-1] // cfg.alignment) * cfg.alignment])
        require(
            bool(np.all((end >= start) & (end <= rows))), f"LIN-5: expert_end must grow, and end within {rows} rows"
        )
    if "expert_count" in tensors:
        count, size = tensors["expert_count"], tensors["a_codes"].shape[1]
        require(bool(np.all((count >= 0) & (count <= size))), f"LIN-5: expert_count must lie in 0 … {size}")
    if "expert_size" in tensors:
        check_shares(cfg, tensors["expert_size"], tensors["c"].shape, tensors["a_codes"].shape[1])


def check_shares(cfg: MoEConfig, sizes: Int, shape: tuple[int, ...], length: int) -> None:
    """LIN-6: every share is a multiple of the blocks' width, and all together are the contraction."""
    width = max(cfg.a_block[1], cfg.b_block[1])
    whole = bool(np.all((sizes >= 0) & (sizes % width == 0)))
    require(whole, f"LIN-6: expert_size must hold multiples of {width}")
    require(int(sizes.sum()) == length, f"LIN-6: expert_size must add up to {length}")
    require(len(shape) == 3, "LIN-6: c is (E, M, N)")  # noqa: PLR2004
