"""What the ops of FP8 refuse, beyond names and shapes (SPEC: FMT, QNT, LIN, MFP, OPT)."""

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig, require
from moespec.fields_fp8 import misfits
from moespec.formats import FORMATS, Format, decode
from moespec.quant import LIFTED, Block, largest_of, spread, tiles
from moespec.shapes import per_byte
from moespec.storage import inside, scale_inside

DIGITS = 53  # bits of float64's numbers
NARROW = {"e4m3", "e4m3fnuz", "e2m1"}  # MFP-1: any sum of these is exact in float64
SPREAD = 2.0**14  # QNT-8: between the scales that one block of E4M3 can hold


def format_of(name: str, op: str, cfg: MoEConfig) -> str:
    """Which of the config's formats a tensor of codes has."""
    if name.startswith("a_") or op in {"requantize", "lift_fp4"}:
        return cfg.a_format
    return cfg.b_format if name.startswith("b_") or op.startswith("moe_fp8") else cfg.format


def check_use(op: str, cfg: MoEConfig) -> None:
    """What an op of FP8 refuses of a config, before it looks at a tensor."""
    both = (cfg.a_format, cfg.b_format)
    if op in {"quantize", "requantize", "matmul_fp8", "grouped_matmul_fp8", "moe_fp8", "moe_fp8_backward"}:
        used = (cfg.format,) if op == "quantize" else both
        require("bfloat16" not in used, f"QNT-1: {op}: blocks of bfloat16 have no scale")
    if op == "lift_fp4":
        require(both == ("e2m1", "e4m3"), f"QNT-8: lift_fp4 makes e4m3 of e2m1, not {both[1]} of {both[0]}")
    if op == "grouped_matmul_fp8":
        high = cfg.a_block[0] == 1 or cfg.layout == "k_grouped"
        require(high, f"LIN-5: {op}: a_block must be one row high, not {cfg.a_block[0]}")
    if op.startswith("moe_fp8"):
        check_use_of_layer(op, cfg)


def check_use_of_layer(op: str, cfg: MoEConfig) -> None:
    """MFP-1 … MFP-5, LIN-3: blocks and sums that suit the products forward and backward."""
    require(cfg.a_block[0] == 1, f"MFP-2: {op}: a_block must be one row high, not {cfg.a_block[0]}")
    wide = {cfg.a_format, cfg.b_format} - NARROW if cfg.accumulate == "exact" else ()
    require(not wide, f"MFP-1: {op}: exact sums of the layer are of {', '.join(sorted(NARROW))}")
    promoted = cfg.promote_every or cfg.accumulate == "float32"
    require(promoted, f"LIN-3: {op}: scales differ along C, so promote_every must not be 0")
    block = LIFTED if cfg.b_format == "e2m1" else cfg.b_block
    for b_block in (block, block[::-1]):  # a weight and its transpose
        wrong = misfits({**vars(cfg), "b_block": b_block})
        require(not wrong, f"MFP-5: {op}: {wrong}")


def check_fp8(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """FMT-5: codes are of their format's dtype or bits; QNT-3: scales are float32 or E8M0; and what single ops need."""
    for name, tensor in tensors.items():
        if name.endswith("codes"):
            check_codes(op, name, tensor, FORMATS[format_of(name, op, cfg)])
        if name.endswith("scale"):
            kind: Any = np.dtype(tensor.dtype)
            require(kind in (np.float32, ml_dtypes.float8_e8m0fnu), f"QNT-3: {op}: {name} is {kind}")
    check_even(op, cfg, tensors)
    if op.startswith("moe_fp8"):
        check_layer(op, cfg, tensors)
    if op == "lift_fp4":
        check_lift(op, tensors["codes"], tensors["scale"], cfg.a_block, cfg.b_block)
    if op == "grouped_matmul_fp8":
        check_groups(cfg, tensors)
    if op in {"matmul_fp8", "grouped_matmul_fp8"}:
        check_sum(op, cfg, tensors)
    if op == "adamw":
        step = int(tensors["step"])
        require(step >= 1, f"OPT-1: adamw: step must be 1 or more, not {step}")
        require(bool(np.all(tensors["exp_avg_sq"] >= 0)), "OPT-1: adamw: exp_avg_sq must be 0 or more")


def check_codes(op: str, name: str, codes: Any, fmt: Format) -> None:  # noqa: ANN401 - any array library's
    """FMT-5: the format's dtype, or unsigned integers; no bits beyond the format's."""
    kind: Any = np.dtype(codes.dtype)
    require(kind in (fmt.codes, fmt.storage), f"FMT-5: {op}: {name} is {kind}, not {np.dtype(fmt.storage)}")
    wide = fmt.bits not in (4, 8, 16) and kind == fmt.codes
    require(not wide or not bool(np.any(codes >> fmt.bits)), f"FMT-5: {op}: {name} has bits beyond {fmt.bits}")


def check_even(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """FMT-5: what becomes E2M1 has an even number of columns."""
    made = {"cast": cfg.format, "quantize": cfg.format, "requantize": cfg.b_format}.get(op)
    if made == "e2m1":
        columns = tensors["x"].shape[1] if "x" in tensors else tensors["codes"].shape[1] * per_byte("C:a", cfg)
        require(columns % 2 == 0, f"FMT-5: {op}: {columns} columns of e2m1 do not fill bytes")


def check_layer(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """MFP-1, MFP-8: the layer's x, and experts in E2M1."""
    require(np.dtype(tensors["x"].dtype) == np.float32, f"MFP-1: {op}: x must be float32, not {tensors['x'].dtype}")
    lifted = cfg.b_format == "e2m1"
    for name in (n.removesuffix("_codes") for n in tensors if lifted and n.endswith("_codes")):
        codes, scale = tensors[f"{name}_codes"], tensors[f"{name}_scale"]
        stack = ((codes, scale),) if len(codes.shape) == 2 else zip(codes, scale, strict=True)  # noqa: PLR2004 - shared
        for one in stack:
            check_lift(op, *one, cfg.b_block, LIFTED)


def check_lift(op: str, codes: Any, scale: Any, block: Block, target: Block) -> None:  # noqa: ANN401 - of ml_dtypes
    """QNT-8: the scales of E2M1 that is to be lifted are powers of two, and in each new block near enough."""
    numbers, scale = decode(inside(codes, FORMATS["e2m1"]), FORMATS["e2m1"]).astype(np.float64), scale_inside(scale)
    powers = (np.frexp(scale)[0] == 0.5) & (scale >= 2.0**-127)  # noqa: PLR2004
    require(bool(np.all(powers)), f"QNT-8: {op}: scales must be powers of two, from 2^-127 on")
    each = np.where(numbers != 0, spread(scale, block, numbers.shape), 0)
    most = spread(largest_of(tiles(each, target)), target, numbers.shape)
    apart = np.where(each > 0, most, 0) / np.where(each > 0, each, 1)
    require(bool(np.all(apart <= SPREAD)), f"QNT-8: {op}: scales in a block are more than 2^14 times apart")


def check_sum(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """LIN-3: a sum that is never promoted has one scale along C. ACC-1: exact sums are those that float64 holds."""
    if not cfg.promote_every and cfg.accumulate != "float32":
        for name, width in (("a_scale", cfg.a_block[1]), ("b_scale", cfg.b_block[1])):
            ends: Any = (np.cumsum(tensors["expert_size"])[:-1] // width).tolist() if "expert_size" in tensors else []
            for scale in np.split(scale_inside(tensors[name]), ends, axis=-1):
                same = bool(np.all((scale == scale[..., :1]) | (np.isnan(scale) & np.isnan(scale[..., :1]))))
                require(same, f"LIN-3: {op}: without promotion {name} must be the same along C")
    if cfg.accumulate == "exact":
        bits = bits_of_sum(cfg, tensors)
        require(bits <= DIGITS, f"ACC-1: {op}: these exponents need {bits} bits, float64 has {DIGITS}")


def bits_of_sum(cfg: MoEConfig, tensors: Mapping[str, Any]) -> int:
    """ACC-1: in how many bits every sum of a stretch fits, whatever the order."""
    formats = (FORMATS[cfg.a_format], FORMATS[cfg.b_format])
    a, b = (decode(inside(tensors[f"{o}_codes"], f), f).astype(np.float64) for o, f in zip("ab", formats, strict=True))
    (most_a, step_a), (most_b, step_b) = (extent(x, f) for x, f in zip((a, b), formats, strict=True))
    widths = (cfg.promote_every, cfg.a_block[1], cfg.b_block[1]) if cfg.promote_every else ()
    needed = most_a * most_b * min((b.shape[-1], *widths)) / (step_a * step_b)
    return math.ceil(math.log2(max(needed, 1)))


def extent(numbers: Float, fmt: Format) -> tuple[float, float]:
    """The largest magnitude among numbers of a format, and the finest step of their grids."""
    size = np.abs(numbers)
    there = size[(size > 0) & (size < np.inf)]
    if not there.shape[0]:
        return 0.0, math.inf
    _, exponent = np.frexp(there.min())
    return float(there.max()), 2.0 ** (max(int(exponent) - 1, fmt.emin) - fmt.mantissa)


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
        check_shares(cfg, tensors["expert_size"], tensors["b_codes"].shape[1] * per_byte("C:b", cfg))


def check_shares(cfg: MoEConfig, sizes: Int, length: int) -> None:
    """LIN-6: every share is a multiple of the blocks' widths, and all together are the contraction."""
    width = math.lcm(cfg.a_block[1], cfg.b_block[1])
    whole = bool(np.all((sizes >= 0) & (sizes % width == 0)))
    require(whole, f"LIN-6: expert_size must hold multiples of {width}")
    require(int(sizes.sum()) == length, f"LIN-6: expert_size must add up to {length}")
