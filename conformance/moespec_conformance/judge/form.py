"""Before any number is compared: outputs that are there, of the right shape and dtype (MOE-6)."""

from typing import Any

import numpy as np

from moespec.shapes import misfit, per_byte
from moespec.signatures import OPS, Tensor, expected, optional, sizes
from moespec_conformance.judge.stored import Unreadable, empty_places, read_codes, read_scale
from moespec_conformance.oracle import answer, is_fp8
from moespec_conformance.protocol import BFLOAT16, Array, Case, Tensors, by_name, to_numpy

WIDTH = {BFLOAT16: 1, np.dtype(np.float32): 2, np.dtype(np.float64): 3}


class Malformed(Exception):  # noqa: N818 - a verdict on an answer, not a fault of ours
    """An answer that is no answer: kind says what is wrong, stage which output."""

    def __init__(self, kind: str, stage: str, message: str) -> None:
        """Say what is wrong with which output."""
        super().__init__(message)
        self.kind, self.stage = kind, stage


def outputs_of(case: Case, given: Any) -> Tensors:  # noqa: ANN401 - whatever an adapter returned
    """The op's outputs as NumPy arrays, in the op's order; what else was given is ignored."""
    if not by_name(given):
        raise Malformed("shape", "", f"{case.op} returned {type(given).__name__}, not a dict of arrays")
    letters, outputs = letters_of(case), Tensors()
    for name, tensor in expected(OPS[case.op].outputs, case.cfg).items():
        if name in given:
            outputs[name] = output_of(case, tensor, given, letters)
        elif not optional(tensor):
            raise Malformed("shape", name, f"{name} is missing")
    if "topk_idx" not in outputs and "topk_idx" not in case.inputs:
        outputs.pop("topk_weight", None)  # whose weights they are, nobody knows
    return defined(case, outputs)


def output_of(case: Case, tensor: Tensor, given: dict[str, Any], letters: dict[str, int]) -> Array:
    """One of them, without what lies at places that are nobody's."""
    array = to_numpy(given[tensor.name])
    check_shape(case, tensor, array, letters)
    if tensor.name == "rows" and "masked" in tensor.when:
        array = blank(to_numpy(given["row_token"]) < 0, array)
    if case.op == "grouped_matmul_fp8":
        array = blank(empty_places(case), array)
    return checked(case, tensor, array)


def letters_of(case: Case) -> dict[str, int]:
    """The sizes that the config and the inputs fix; a gate that chooses has K slots, but if experts choose (ROU-5)."""
    chooses = "topk_idx" not in case.inputs and case.cfg.router != "expert_choice"
    letters = {"W": case.cfg.num_experts_per_tok} if chooses else {}
    for tensor in expected(OPS[case.op].inputs, case.cfg).values():
        if tensor.name in case.inputs:
            for token, size in zip(tensor.dims, case.inputs[tensor.name].shape, strict=True):
                if "/" not in token:
                    letters[token.split(":")[0]] = size * per_byte(token, case.cfg)
    return {**letters, **sizes(case.cfg)}


def defined(case: Case, outputs: Tensors) -> Tensors:
    """What is compared: without the places that a layout leaves free."""
    if case.op == "dispatch":
        return unpadded(outputs)
    if case.op == "layout":
        return unboxed(case, outputs) if case.cfg.layout == "masked" else ended(case, outputs)
    return outputs


def unpadded(outputs: Tensors) -> Tensors:
    """DSP-2: padding rows are free, if they are nobody's and hold zeros."""
    padding = outputs["row_token"] == -1
    if (outputs["row_slot"][padding] != -1).any() or outputs["rows"][padding].any():
        raise Malformed("exact", "rows", "a row of token -1 must have slot -1 and hold zeros")
    return {name: out if name == "expert_count" else out[~padding] for name, out in outputs.items()}


def ended(case: Case, outputs: Tensors) -> Tensors:
    """DSP-5: more empty places may follow the last segment."""
    size = sum(-(-int(n) // case.cfg.alignment) * case.cfg.alignment for n in outputs["expert_count"])
    if (outputs["row_token"][size:] != -1).any() or outputs["rows"][size:].any():
        return outputs  # the comparison says what is wrong
    per_place = ("group_index", "row_token", "row_slot", "rows")
    return {name: out[:size] if name in per_place else out for name, out in outputs.items()}


def unboxed(case: Case, outputs: Tensors) -> Tensors:
    """DSP-7: a box is of any size that is aligned and large enough; what lies behind its rows is free."""
    full = outputs["row_token"] >= 0
    if full.shape[1] % case.cfg.alignment or (full[:, 1:] & ~full[:, :-1]).any():
        raise Malformed("exact", "row_token", "a box must be aligned, and begin with all its rows")
    if (outputs["row_slot"][~full] != -1).any():
        raise Malformed("exact", "row_slot", "a place of token -1 must have slot -1")
    return {name: out if name == "expert_count" else out[full] for name, out in outputs.items()}


def blank(empty: Array, rows: Array) -> Array:
    """DSP-7, LIN-5: what lies at places that are nobody's may be anything, NaN as well."""
    rows = rows.copy()
    rows[empty] = 0
    return rows


def check_shape(case: Case, tensor: Tensor, array: Array, letters: dict[str, int]) -> None:
    """Section 3 of SPEC.md; letters that neither config nor inputs fix bind at first sight."""
    wrong = misfit(tensor.dims, array.shape, letters, case.cfg)
    if wrong:
        raise Malformed("shape", tensor.name, f"{tensor.name} has shape {array.shape}, {wrong}")


def checked(case: Case, tensor: Tensor, array: Array) -> Array:
    """The array, if it holds what it should; codes one each and without their dtype, scales as float32."""
    if tensor.holds not in ("codes", "scale"):
        check_dtype(case, tensor, array)
        return array
    try:
        return read_codes(case, tensor, array) if tensor.holds == "codes" else read_scale(tensor, array)
    except Unreadable as wrong:
        raise Malformed("dtype", tensor.name, str(wrong)) from None


def check_dtype(case: Case, tensor: Tensor, array: Array) -> None:
    """MOE-6: x's dtype or wider; float32 or wider from the router; any integers for ids; nothing but numbers."""
    if tensor.holds in ("ids", "index"):
        if array.dtype.kind not in "iu":
            raise Malformed("dtype", tensor.name, f"{tensor.name} is {array.dtype}, not integers")
        return
    least = "bfloat16" if tensor.holds == "float" and case.arithmetic == "bfloat16" else "float32"
    if WIDTH.get(array.dtype, 0) < (1 if least == "bfloat16" else 2):
        raise Malformed("dtype", tensor.name, f"{tensor.name} is {array.dtype}, not {least} or wider")
    bad = ~np.isfinite(array)
    if bad.any() and is_fp8(case.op) and tensor.name in answer(case).values:
        bad &= np.isfinite(answer(case).values[tensor.name])  # what should be infinite, or NaN, is compared
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        says = f"{tensor.name}{list(where)} is {array[where]}; {bad.sum()} of {bad.size} not finite"
        raise Malformed("nan", tensor.name, says)
