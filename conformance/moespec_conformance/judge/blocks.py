"""Codes and scales of blocks: bit for bit, or, near, whatever an honest division may round to (QNT-2 … QNT-5).

Near, a scale is judged by the block's largest magnitude, and codes by the implementation's own scale s: x / s is known
to 2^-22 of itself, and a code is legal if a number in that interval rounds to it. Rounding is monotone, so these are
the codes between what both ends round to, mostly one, near a tie two.
"""

from typing import NamedTuple

import numpy as np

from moespec.formats import FORMATS, Format, decode, rounded
from moespec.ops_fp8 import scheme_q, schemes
from moespec.quant import Quantized, Scheme, dequantize, largest_of, spread, tiles
from moespec.storage import inside, scale_inside
from moespec_conformance.judge import near
from moespec_conformance.judge.finding import Finding
from moespec_conformance.judge.pattern import describe
from moespec_conformance.judge.stored import format_out
from moespec_conformance.oracle import Answer
from moespec_conformance.protocol import Array, Case, Tensors

NEAR = 2.0**-22  # QNT-2, QNT-4: relative, of a scale, and of x / s


class Blocks(NamedTuple):
    """What was to be quantised, and how; the reference's scales, and which blocks hold NaN or infinity (I, J)."""

    x: Array
    scheme: Scheme
    scale: Array
    odd: Array


def compare(case: Case, right: Answer, outputs: Tensors, name: str) -> Finding:
    """Codes or scales against the answer, by the kind of the case; near only what is quantised."""
    loosely = case.kind == "bounded" and case.op in ("quantize", "requantize")
    if name == "scale":
        got = outputs["scale"]
        return near_scale(blocks_of(case, right), got) if loosely else same_scale(got, right.values["scale"])
    if loosely:
        return near_codes(blocks_of(case, right), outputs["codes"], outputs["scale"])
    return same_codes(case, right, outputs["codes"])


def blocks_of(case: Case, right: Answer) -> Blocks:
    """What a near case quantises: x, or what codes and scales stand for (QNT-7)."""
    x, scheme = case.inputs.get("x"), scheme_q(case.cfg)
    if x is None:
        a, scheme = schemes(case.cfg)
        given = Quantized(inside(case.inputs["codes"], a.fmt), scale_inside(case.inputs["scale"]))
        with np.errstate(all="ignore"):
            x = dequantize(given, a)
    odd = ~(largest_of(tiles(x, scheme.block)) < np.inf)
    return Blocks(x, scheme, right.values["scale"].astype(np.float64), odd)


def same_scale(got: Array, want: Array) -> Finding:
    """Bit for bit; NaN for NaN."""
    wrong = ~((got == want) | (np.isnan(got) & np.isnan(want)))
    if not wrong.any():
        return Finding("pass", "exact", None)
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    says = f"scale{list(at)} is {got[at]:.9g}, not {want[at]:.9g}"
    return Finding("fail", "exact", None, f"{says}; {describe('blocks', got, want, np.zeros(want.shape))}")


def near_scale(b: Blocks, got: Array) -> Finding:
    """QNT-2, QNT-3. QNT-5: where a block holds NaN or infinity, its codes show whether that comes back."""
    want, bound = scales_near(b)
    got = np.where(np.isinf(bound), 0, got)
    ratio, at = near.worst(got, want, bound)
    if ratio <= 1:
        return Finding("pass", "bounded", ratio)
    says = f"scale{list(at)} is {got[at]:.9g}, not {want[at]:.9g}, error/bound {ratio:.3g} (bound {bound[at]:.3g})"
    return Finding("fail", "bounded", ratio, f"{says}; {describe('blocks', got, want, bound)}")


def scales_near(b: Blocks) -> tuple[Array, Array]:
    """Scales and how far from them one may be: infinitely far, where a block has none."""
    amax = np.maximum(largest_of(tiles(b.x, b.scheme.block)), np.float32(floor_of(b.scheme)))
    quotient = amax.astype(np.float64) / b.scheme.fmt.largest
    whole = b.scheme.scale_format == "ue8m0"
    ordinary = np.abs(b.scale - quotient) <= NEAR * quotient  # and not what a recipe says of single blocks
    ordinary &= ~b.odd & (not whole)
    free = b.odd & np.isnan(b.scale)
    want = np.where(free, 0, np.where(ordinary, quotient, b.scale))
    return want, np.where(free, np.inf, np.zeros_like(want) if whole else NEAR * want)


def floor_of(scheme: Scheme) -> float:
    """QNT-2: what a block's largest magnitude counts as at least."""
    return scheme.rule.floor_fp4 if scheme.format == "e2m1" else scheme.rule.floor


def near_codes(b: Blocks, codes: Array, scale: Array) -> Finding:
    """QNT-4 given the implementation's own scales; QNT-5: what was NaN or infinite does not come back finite."""
    fmt = b.scheme.fmt
    each = spread(scale.astype(np.float64), b.scheme.block, b.x.shape)
    got = decode(codes, fmt).astype(np.float64)
    with np.errstate(all="ignore"):
        number, slack = b.x / each, 0.0 if b.scheme.scale_format == "ue8m0" else NEAR * near.ROOM
        ends = np.sort(np.stack([number * (1 - slack), number * (1 + slack)]), axis=0)
        low, high = (landed(end, fmt, b.scheme.overflow) for end in ends)
        legal = (low <= got) & (got <= high) & signed_alike(got, b.x, fmt)
        legal |= beyond(got, low, high, fmt)
        lost = np.isfinite(got * each) & ~np.isfinite(b.x)
    free = spread((b.odd & np.isnan(b.scale)).astype(np.float32), b.scheme.block, b.x.shape) > 0
    legal = np.where(free, ~lost, legal | (np.isnan(b.x) & np.isnan(got)))
    if legal.all():
        return Finding("pass", "bounded", None)
    at = tuple(int(i) for i in np.argwhere(~legal)[0])
    says = f"codes{list(at)} is {codes[at]:#x} ({got[at]:g}), but x is {b.x[at]:.9g} and its scale {each[at]:.9g}: "
    says += f"{number[at]:.9g} rounds to " + " or ".join(f"{n:g}" for n in dict.fromkeys((low[at], high[at])))
    return Finding("fail", "bounded", None, f"{says}; {(~legal).sum()} of {legal.size} elements")


def landed(number: Array, fmt: Format, overflow: str) -> Array:
    """FMT-1, FMT-4 on float64: the nearest number, rounded once; with `nan`, infinity beyond the largest."""
    if overflow == "saturate" or fmt.nan is None:
        return rounded(number, fmt)
    free = rounded(number, fmt._replace(largest=np.inf))
    return np.where(np.abs(free) > fmt.largest, np.copysign(np.inf, free), free)


def beyond(got: Array, low: Array, high: Array, fmt: Format) -> Array:
    """FMT-4: formats without infinity have NaN there."""
    out: Array = np.isnan(got) & (np.isinf(low) | np.isinf(high)) & (not fmt.inf)
    return out


def signed_alike(got: Array, x: Array, fmt: Format) -> Array:
    """FMT-1: a zero has the sign of x, but in E2M1, and in formats that have one zero."""
    free = fmt.bits == 4 or not fmt.minus_zero  # noqa: PLR2004 - E2M1's
    alike: Array = (got != 0) | (np.signbit(got) == np.signbit(x)) | free
    return alike


def same_codes(case: Case, right: Answer, codes: Array) -> Finding:
    """Bit for bit, as numbers: any NaN is one, and so are E2M1's zeros; a block whose scale is NaN has free codes."""
    fmt = format_out(case)
    got, want = (decode(c, fmt).astype(np.float64) for c in (codes, right.values["codes"]))
    alike = (got == want) & ((np.signbit(got) == np.signbit(want)) | (fmt.bits == 4))  # noqa: PLR2004 - E2M1's
    alike |= np.isnan(got) & np.isnan(want) | free_codes(case, right, want)
    if alike.all():
        return Finding("pass", "exact", None)
    at = tuple(int(i) for i in np.argwhere(~alike)[0])
    says = f"codes{list(at)} is {codes[at]:#x} ({got[at]:g}), not {right.values['codes'][at]:#x} ({want[at]:g})"
    return Finding("fail", "exact", None, f"{says}; {(~alike).sum()} of {alike.size} elements")


def free_codes(case: Case, right: Answer, want: Array) -> Array:
    """QNT-5: those of blocks without a scale. FMT-4: what E2M1 makes of NaN."""
    if "scale" in right.values:
        block = case.cfg.b_block if case.op in ("requantize", "lift_fp4") else case.cfg.block
        return np.isnan(spread(right.values["scale"], block, want.shape))
    lost = FORMATS[case.cfg.format].nan is None
    return np.isnan(case.inputs["x"]) if lost else np.zeros(want.shape, np.bool)
