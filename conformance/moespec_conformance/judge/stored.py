"""Codes and scales as implementations store them: what the judge reads of them (FMT-5, FMT-6)."""

import ml_dtypes
import numpy as np

from moespec.checks_fp8 import format_of
from moespec.formats import FORMATS, Format
from moespec.signatures import Tensor
from moespec.storage import inside, scale_inside
from moespec_conformance.protocol import Array, Case


class Unreadable(Exception):  # noqa: N818 - a verdict on an answer
    """Codes or scales of another dtype, or with bits that their format has not."""


def format_out(case: Case) -> Format:
    """The format of an op's codes: what requantises or lifts gives those of b."""
    cfg = case.cfg
    return FORMATS[cfg.b_format if case.op in ("requantize", "lift_fp4") else cfg.format]


def format_in(case: Case, name: str) -> Format:
    """The format of an input's codes."""
    return FORMATS[format_of(name, case.op, case.cfg)]


def read_codes(case: Case, tensor: Tensor, codes: Array) -> Array:
    """FMT-5: an answer's codes as unsigned integers, one each."""
    fmt = format_out(case)
    if codes.dtype not in (np.dtype(fmt.storage), np.dtype(fmt.codes)):
        says = f"{np.dtype(fmt.storage)} or {np.dtype(fmt.codes)}"
        raise Unreadable(f"{tensor.name} is {codes.dtype}, not {says}")
    plain: Array = inside(np.ascontiguousarray(codes), fmt)
    beyond = plain >> np.array(fmt.bits, plain.dtype) if fmt.bits % 8 else np.zeros_like(plain)
    if beyond.any():
        raise Unreadable(f"{tensor.name} has bits beyond the {fmt.bits} of its format")
    return plain


def read_scale(tensor: Tensor, scale: Array) -> Array:
    """FMT-6: an answer's scales, float32 or E8M0, as float32."""
    if scale.dtype not in (np.dtype(np.float32), np.dtype(ml_dtypes.float8_e8m0fnu)):
        raise Unreadable(f"{tensor.name} is {scale.dtype}, not float32 or float8_e8m0fnu")
    plain: Array = scale_inside(scale)
    return plain


def empty_places(case: Case) -> Array:
    """LIN-5: which rows (M,), or places of a box (E, M), are nobody's."""
    cfg, t = case.cfg, case.inputs
    if cfg.layout == "contiguous":
        return np.asarray(t["group_index"] < 0)
    if cfg.layout == "masked":
        size: int = t["a_codes"].shape[1]
        return np.asarray(np.arange(size) >= np.asarray(t["expert_count"])[:, None])
    taken = np.zeros(len(t["a_codes"]), np.bool)
    start = 0
    for end in t["expert_end"].tolist() if cfg.layout == "psum" else ():
        taken[start:end] = True
        start = -(-end // cfg.alignment) * cfg.alignment
    return ~taken if cfg.layout == "psum" else np.zeros(cfg.n_routed_experts, np.bool)
