"""What an op refuses, before any maths: wrong names, shapes, dtypes, ids or values (SPEC: ARR-3 … ARR-6)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moespec.arrays import Int
from moespec.checks_balance import check_balance
from moespec.checks_fp8 import check_fp8, check_use
from moespec.checks_layout import check_layout
from moespec.config import MoEConfig, require
from moespec.shapes import misfit
from moespec.signatures import OPS, Tensor, expected, optional, sizes


def check(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """Raise ValueError, its message beginning with the clause, unless these tensors suit this op and config."""
    check_use(op, cfg)
    wanted = expected(OPS[op].inputs, cfg)
    unknown = sorted(set(tensors) - set(wanted))
    missing = sorted(t.name for t in wanted.values() if not optional(t) and t.name not in tensors)
    require(not unknown, f"ARR-3: {op} with this config takes no {', '.join(unknown)}")
    require(not missing, f"ARR-3: {op} with this config needs {', '.join(missing)}")
    letters = sizes(cfg)
    for tensor in (t for t in wanted.values() if t.name in tensors):
        check_dtype(op, tensor, tensors[tensor.name])
        check_shape(op, cfg, tensor, tensors[tensor.name], letters)
    floats = {str(tensor.dtype) for name, tensor in tensors.items() if wanted[name].holds in ("float", "router")}
    require(len(floats) < 2, f"ARR-4: {op} got {' and '.join(sorted(floats))}; all must have one dtype")  # noqa: PLR2004
    check_values(op, cfg, tensors)


def check_dtype(op: str, tensor: Tensor, array: Any) -> None:  # noqa: ANN401 - any array library's
    """ARR-4: numbers are float32 or float64, ids int32 or int64 (narrower ones overflow), a mask is of bool."""
    kind: Any = np.dtype(array.dtype)
    if tensor.holds in ("float", "router"):
        require(kind in (np.float32, np.float64), f"ARR-4: {op}: {tensor.name} must be float32 or float64, not {kind}")
    elif tensor.holds == "float32":
        require(kind == np.float32, f"ARR-4: {op}: {tensor.name} must be float32, not {kind}")
    elif tensor.holds == "flag":
        require(kind == np.bool, f"ARR-4: {op}: {tensor.name} must be of bool, not {kind}")
    elif tensor.holds not in ("codes", "scale"):  # these are check_fp8's
        require(kind in (np.int32, np.int64), f"ARR-4: {op}: {tensor.name} must be int32 or int64, not {kind}")


def check_shape(op: str, cfg: MoEConfig, tensor: Tensor, array: Any, letters: dict[str, int]) -> None:  # noqa: ANN401
    """ARR-5: shapes agree with the config and with each other; free letters bind at first sight."""
    shape = tuple(array.shape)
    wrong = misfit(tensor.dims, shape, letters, cfg)
    require(wrong is None, f"ARR-5: {op}: {tensor.name} is {shape}, {wrong}")
    empty = "W" in tensor.dims and shape[tensor.dims.index("W")] == 0
    require(not empty, f"ARR-5: {op}: {tensor.name} is {shape}, not ({', '.join(tensor.dims)}) with W of 1 or more")


def check_values(op: str, cfg: MoEConfig, tensors: Mapping[str, Any]) -> None:
    """GATE-11: the bias is finite. ARR-6: ids name experts, or nothing, and a token names an expert only once."""
    if "bias" in tensors:
        require(bool(np.all(np.isfinite(tensors["bias"]))), f"GATE-11: {op}: bias must be finite")
    for name in ("topk_idx", "tid2eid"):
        if name in tensors:
            check_ids(op, name, tensors[name], cfg.n_routed_experts)
    if "tid2eid" in tensors:
        tokens, table = tensors["token_ids"], tensors["tid2eid"]
        require(not bool(np.any(table < 0)), f"GATE-12: {op}: tid2eid must name an expert for every slot")
        inside = (tokens >= 0) & (tokens < table.shape[0])
        require(bool(np.all(inside)), f"GATE-12: {op}: token_ids must lie in 0 … {table.shape[0] - 1}")
    if op.startswith("mixture_loss"):
        require(bool(np.all(tensors["topk_weight"] >= 0)), f"ROU-9: {op}: topk_weight must be 0 or more")
    if "target" in tensors and "logits" in tensors:
        target, size = tensors["target"], tensors["logits"].shape[1]
        require(bool(np.all((target >= 0) & (target < size))), f"LOS-5: {op}: target must lie in 0 … {size - 1}")
        require(size > 0, f"LOS-5: {op}: a vocabulary has a member")
    check_balance(op, cfg, tensors)
    check_layout(op, cfg, tensors)
    check_fp8(op, cfg, tensors)
    if "row_token" in tensors:
        tokens, slots = tensors["topk_weight" if "topk_weight" in tensors else "topk_idx"].shape
        check_range(op, "row_token", tensors["row_token"], tokens)
        check_range(op, "row_slot", tensors["row_slot"], slots)
        check_pairs(op, tensors["row_token"], tensors["row_slot"], slots)


def check_range(op: str, name: str, ids: Int, size: int) -> None:
    """ARR-6: ids lie in -1 (nothing) … size - 1."""
    require(not bool(np.any((ids < -1) | (ids >= size))), f"ARR-6: {op}: {name} must lie in -1 … {size - 1}")


def check_pairs(op: str, row_token: Int, row_slot: Int, slots: int) -> None:
    """ARR-6: a row is of a token and a slot, or of neither; a slot has one row at most."""
    require(bool(np.all((row_token < 0) == (row_slot < 0))), f"ARR-6: {op}: a row has only one of token and slot")
    taken = (row_token * slots + row_slot)[row_token >= 0]
    require(len(np.unique(taken)) == len(taken), f"ARR-6: {op}: two rows are of the same token and slot")


def check_ids(op: str, name: str, ids: Int, n_routed_experts: int) -> None:
    """ARR-6: ids lie in -1 … E - 1, and a token names an expert only once."""
    check_range(op, name, ids, n_routed_experts)
    ordered = np.sort(ids, axis=-1)
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    require(not bool(np.any(twice)), f"ARR-6: {op}: a token names an expert twice in {name}")
