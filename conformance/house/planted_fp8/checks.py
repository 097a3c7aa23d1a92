"""What the honest implementation of FP8 refuses: configs, tensors that do not fit, and what single ops cannot do."""

from typing import Any

import ml_dtypes
import numpy as np
from planted.arith import Array, Tensors
from planted.checks import LAYER, absent, check_tensor
from planted.checks_config import SIZES, need
from planted.checks_values import check_ids
from planted.taking import Config

from .checks_fields import check_fields
from .honest_blocks import How
from .honest_formats import FORMATS

Q, A = {"codes": "MC:q", "scale": "MC/q"}, {"codes": "MC:a", "scale": "MC/a"}
LINE, B = {"a_codes": "MC:a", "a_scale": "MC/a"}, {"b_codes": "NC:b", "b_scale": "NC/b"}
STACK = {"b_codes": "ENC:b", "b_scale": "ENC/b"}
MATRICES = {name: dims for name, dims in LAYER.items() if name.endswith("_proj")}
EXPERTS = {f"{n}_{what}": d + by for n, d in MATRICES.items() for what, by in (("codes", ":b"), ("scale", "/b"))}
ROUTER = {name: dims for name, dims in LAYER.items() if not name.endswith("_proj")}
MOMENTS = dict.fromkeys(("param", "exp_avg", "exp_avg_sq", "grad"), "MC") | {"step": ""}
GROUPED = {
    "contiguous": LINE | STACK | {"group_index": "M"},
    "psum": LINE | STACK | {"expert_end": "E"},
    "masked": {"a_codes": "EMC:a", "a_scale": "EMC/a"} | STACK | {"expert_count": "E"},
    "k_grouped": LINE | B | {"expert_size": "E", "c": "EMN"},
}
SHAPES = {
    "cast": {"x": "MC"},
    "quantize": {"x": "MC"},
    "dequantize": Q,
    "requantize": A,
    "lift_fp4": A,
    "matmul_fp8": LINE | B | {"c": "MN"},
    "moe_fp8": ROUTER | EXPERTS | {"mask": "T"},
    "moe_fp8_backward": ROUTER | EXPERTS | {"dy": "TH"},
    "adamw": MOMENTS,
}
INDEX = ("group_index", "expert_end", "expert_count", "expert_size", "step")
FREE = {"c", "mask", "noise"}


def check_all(made: Any, op: str, c: Config, t: Tensors) -> None:
    """Raise ValueError unless the op can be done."""
    check_fields(c)
    size = {letter: c[name] for letter, name in SIZES.items()}
    size = {letter: n for letter, n in size.items() if letter in "EHFK" and (op.startswith("moe") or letter == "E")}
    size["P"] = c["n_shared_experts"] * c["moe_intermediate_size"]
    gone = absent(op, c)
    gone |= {f"{name}_{what}" for name in gone for what in ("codes", "scale")}
    shapes = GROUPED[c["layout"]] if op == "grouped_matmul_fp8" else SHAPES[op]
    named = {name: dims for name, dims in shapes.items() if name not in gone}
    free = (FREE if op != "grouped_matmul_fp8" else set[str]()) | ({"topk_idx"} if op == "moe_fp8" else set[str]())
    need(set(named) - free <= set(t) <= set(named), f"{op} needs {sorted(named)}")
    for name in (n for n in named if n in t):
        check_one(c, name, t[name], named[name], size)
    check_op(made, op, c, t)


def check_one(c: Config, name: str, a: Array, dims: str, size: dict[str, int]) -> None:
    """Rank, sizes, dtype of one tensor."""
    if ":" in dims or "/" in dims:
        letters, mark, of = dims[:-2], dims[-2], How.of(c, {"q": "", "a": "a_", "b": "b_"}[dims[-1]])
        need(a.ndim == len(letters), f"rank of {name}")
        check_codes(name, a, letters, of, size) if mark == ":" else check_scale(name, a, letters, of, size)
    elif name in INDEX:
        need(a.dtype.kind in "iu" and a.ndim == len(dims), f"dtype of {name}")
        need(all(size.setdefault(d, n) == n for d, n in zip(dims, a.shape, strict=True)), f"shape of {name}")
    else:
        check_tensor(name, a, dims, size)
        need(a.dtype.kind in "iub" or a.dtype == np.float32, f"{name} must be float32")


def check_codes(name: str, a: Array, letters: str, of: How, size: dict[str, int]) -> None:
    """Codes are of their format's type or its bits, and C counts numbers, not bytes."""
    f = FORMATS[of.format]
    plain = np.dtype(np.uint16 if f.sign > 128 else np.uint8)
    need(a.dtype in (plain, np.dtype(f.storage)), f"dtype of {name}")
    need(of.format != "e5m6" or not (a >> 12).any(), f"bits of {name}")
    shape = (*a.shape[:-1], a.shape[-1] * (2 if of.format == "e2m1" else 1))
    need(all(size.setdefault(d, n) == n for d, n in zip(letters, shape, strict=True)), f"shape of {name}")


def check_scale(name: str, a: Array, letters: str, of: How, size: dict[str, int]) -> None:
    """A scale a block."""
    need(a.dtype in (np.dtype(np.float32), np.dtype(ml_dtypes.float8_e8m0fnu)), f"dtype of {name}")
    width = (1,) * (len(letters) - 2) + of.block
    wanted = tuple(-(-size[letter] // n) for letter, n in zip(letters, width, strict=True))
    need(a.shape == wanted, f"shape of {name}")


def check_op(made: Any, op: str, c: Config, t: Tensors) -> None:
    """What single ops cannot do."""
    scaled = op in ("requantize", "matmul_fp8", "grouped_matmul_fp8") or op.startswith("moe_fp8")
    used = (c["a_format"], c["b_format"]) if scaled else (c["format"],) if op == "quantize" else ()
    need("bfloat16" not in used, "bfloat16 takes no scale")
    if op == "cast":
        need(t["x"].dtype == np.float32, "cast takes float32")
    if op == "adamw":
        need(t["step"] >= 1 and (t["exp_avg_sq"] >= 0).all(), "step or second moment")
    if op == "lift_fp4":
        need((c["a_format"], c["b_format"]) == ("e2m1", "e4m3"), "formats")
        check_lift(made, made._blocked(t, "", How.of(c, "a_")), tuple(c["b_block"]))  # noqa: SLF001
    for name in ("topk_idx", "tid2eid"):
        if name in t:
            check_ids(t[name], c["n_routed_experts"])
    if op.startswith("moe_fp8") or (op == "grouped_matmul_fp8" and c["layout"] != "k_grouped"):
        need(c["a_block"][0] == 1, "a_block is one row high")
    if op.startswith("moe_fp8"):
        check_experts(made, c, t)
    if op in ("matmul_fp8", "grouped_matmul_fp8"):
        check_product(made, c, t)
        check_groups(c, t)


def check_experts(made: Any, c: Config, t: Tensors) -> None:
    """Products that can be made, forward and back; matrices in E2M1 that can be lifted."""
    need(c["promote_every"] or c["accumulate"] == "float32", "without promotion scales must be the same along C")
    exact = c["accumulate"] == "exact"
    need(not exact or {c["a_format"], c["b_format"]} <= {"e4m3", "e4m3fnuz", "e2m1"}, "more than 53 bits")
    widths = [n for n in (c["promote_every"], c["a_block"][1], c["b_block"][0]) if n]
    need(c["b_format"] == "e2m1" or all(n % min(widths) == 0 for n in widths), "height of b_block")
    for name in t if c["b_format"] == "e2m1" else ():
        if name.endswith("_codes"):
            q = made._blocked(t, name.removesuffix("codes"), How.of(c, "b_"))  # noqa: SLF001
            for one in [q] if q.codes.ndim == 2 else [q.at(e) for e in range(len(q.codes))]:
                check_lift(made, one, (128, 128))


def check_lift(made: Any, q: Any, block: tuple[int, int]) -> None:
    """Powers of two, within 2^14 of each other where there are numbers."""
    need(((np.frexp(q.scale)[0] == 0.5) & (q.scale >= 2.0**-127)).all(), "scales must be powers of two")
    number = made._decode(q.codes, q.format)  # noqa: SLF001
    each = np.log2(made._by_element(q.scale, q.block, number.shape))  # noqa: SLF001
    for i in range(0, number.shape[0], block[0]):
        for j in range(0, number.shape[1], block[1]):
            at = slice(i, i + block[0]), slice(j, j + block[1])
            there = each[at][number[at] != 0]
            need(not there.size or there.max() - there.min() <= 14, "scales too far apart")


def check_product(made: Any, c: Config, t: Tensors) -> None:
    """One scale along C without promotion; exact sums only of what 53 bits hold."""
    if not c["promote_every"] and c["accumulate"] != "float32":
        for name in ("a_scale", "b_scale"):
            scale = made._scale_in(t[name])  # noqa: SLF001
            width = c[name.replace("scale", "block")][1]
            ends = np.cumsum(t.get("expert_size", np.zeros(1, np.int64)))[:-1] // width
            for part in np.split(scale, ends, axis=-1):  # each share alone
                need(
                    ((part == part[..., :1]) | (np.isnan(part) & np.isnan(part[..., :1]))).all(),
                    f"{name} must be the same along C",
                )
    if c["accumulate"] != "exact":
        return
    span, length = 0.0, 1
    for letter in ("a_", "b_"):
        how = How.of(c, letter)
        codes = made._inside(t[f"{letter}codes"], how.format)  # noqa: SLF001
        size, length = np.abs(made._decode(codes, how.format)), codes.shape[-1]  # noqa: SLF001
        there = size[(size > 0) & np.isfinite(size)].astype(np.float64)
        if there.size:
            f = FORMATS[how.format]
            step = max(np.floor(np.log2(there.min())), 1 - f.bias) - f.mantissa
            span += np.log2(there.max()) - step
    widths = (c["promote_every"], c["a_block"][1], c["b_block"][1])
    many = min(length, *(n for n in widths if n)) if c["promote_every"] else length
    need(span + np.log2(max(many, 1)) <= 53, "more than 53 bits")


def check_groups(c: Config, t: Tensors) -> None:
    """Experts that exist, rows that fit, shares that end where blocks do."""
    if "group_index" in t:
        need(((t["group_index"] >= -1) & (t["group_index"] < c["n_routed_experts"])).all(), "group_index")
    if "expert_end" in t:
        start = 0
        for end in t["expert_end"].tolist():
            need(start <= end <= len(t["a_codes"]), "expert_end")
            start = -(-end // c["alignment"]) * c["alignment"]
    if "expert_count" in t:
        need(((t["expert_count"] >= 0) & (t["expert_count"] <= t["a_codes"].shape[1])).all(), "expert_count")
    if "expert_size" in t:
        size, width = t["expert_size"], max(c["a_block"][1], c["b_block"][1])
        need(((size >= 0) & (size % width == 0)).all(), "expert_size")
        need(size.sum() == t["a_codes"].shape[1] * (2 if c["a_format"] == "e2m1" else 1), "expert_size")
