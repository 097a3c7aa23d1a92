"""Section 20: products of codes in whole numbers, one stretch of the contraction after another."""

from math import ldexp
from typing import Any

import numpy as np
import numpy.typing as npt

from moespec_conformance.adapters.plain.blocks import Block, Matrix, check_formats, matrix, values
from moespec_conformance.adapters.plain.config import Config, require
from moespec_conformance.adapters.plain.formats import FORMATS, decode
from moespec_conformance.adapters.plain.tensors import Tensors

Array = npt.NDArray[Any]
f32 = np.float32
WHOLE = 53  # bits
NEVER = -(10**6)  # the exponent of a 0, which no term has
UNITS = {
    "hopper": (32, 13, 13),
    "ada": (16, 13, 13),
    "blackwell": (32, 25, 23),
}  # products a step, bits of terms and sum


def exponents(x: Array, least: int) -> Array:
    """ACC-3: floor(log2 |x|), at least a format's least; of 0 as good as none."""
    return np.where(x == 0, NEVER, np.maximum(np.frexp(x)[1] - 1, least)).astype(np.int64)


def cut(mantissa: Array, shift: Array) -> Array:
    """Multiply whole numbers by 2^shift, toward zero."""
    size = np.abs(mantissa)
    moved = np.where(shift >= 0, size << np.clip(shift, 0, 40), size >> np.clip(-shift, 0, 62))
    toward: Array = np.sign(mantissa) * moved
    return toward


def whole(name: str, codes: Array) -> tuple[Array, Array]:
    """The numbers of codes as whole mantissas, with the exponents of their leading places."""
    form, x = FORMATS[name], decode(name, codes)
    x = np.where(np.isfinite(x), x, 0)
    e = exponents(x, 1 - form.bias)
    return np.ldexp(x, np.where(x == 0, 0, form.mantissa - e)).astype(np.int64), e


def step(a: tuple[Array, Array], b: tuple[Array, Array], last: int, bits: tuple[int, int], acc: Array) -> Array:
    """ACC-3: align the products (M,N,L) and the accumulator, add them, and cut the sum; `last` is of unit products."""
    mantissas = a[0][:, None] * b[0][None]
    places = np.where(mantissas == 0, NEVER, a[1][:, None] + b[1][None])
    own = exponents(acc, -126)
    e = np.maximum(np.maximum(places.max(-1), own), -133)
    total = cut(mantissas, places - last - e[..., None] + bits[0]).sum(-1)
    total += np.trunc(np.ldexp(acc, bits[0] - e)).astype(np.int64)
    top = np.frexp(total.astype(np.float64))[1] - 1 + e - bits[0]
    short = np.maximum(np.maximum(top, -126) - bits[1] - (e - bits[0]), 0)
    off = np.minimum(short, 62)
    kept: Array = np.sign(total) * (np.abs(total) >> off << off)
    out: Array = np.ldexp(kept.astype(np.float64), e - bits[0])
    return out


def tensor_core(unit: str, a: Matrix, b: Matrix, start: Array) -> Array:
    """ACC-3, ACC-4: the accumulator after all steps."""
    acc, (length, *bits) = start.astype(np.float64), UNITS[unit]
    (ma, ea), (mb, eb) = whole(a.form, a.codes), whole(b.form, b.codes)
    last = FORMATS[a.form].mantissa + FORMATS[b.form].mantissa
    for k in range(0, ma.shape[1], length):
        now = slice(k, k + length)
        terms = (ma[:, now], ea[:, now]), (mb[:, now], eb[:, now]), last, (bits[0], bits[1])
        if unit == "blackwell":
            acc = (acc.astype(f32) + step(*terms, np.zeros_like(acc)).astype(f32)).astype(np.float64)
        else:
            acc = step(*terms, acc)
    return acc.astype(f32)


def finite(m: Matrix) -> Array:
    """Give the numbers of codes, 0 for those that are none."""
    x = decode(m.form, m.codes)
    return np.where(np.isfinite(x), x, 0)


def unit_of(m: Matrix) -> int:
    """Give the exponent of the last mantissa bit of the smallest codes: all others are multiples of it."""
    x = finite(m)
    found = exponents(x, 1 - FORMATS[m.form].bias)[x != 0]
    return int(found.min() if found.size else 0) - FORMATS[m.form].mantissa


def prove(c: Config, a: Matrix, b: Matrix) -> None:
    """Check QNT-1, and that the sums of ACC-1 are whole numbers of at most 53 bits."""
    check_formats(c)
    if c["accumulate"] == "exact":
        C = a.codes.shape[-1]
        terms = min(C, a.block[1], b.block[1], c["promote_every"]) if c["promote_every"] else C
        most = [int(ldexp(float(np.abs(finite(m)).max(initial=0)), -unit_of(m))) for m in (a, b)]
        require(most[0] * most[1] * terms <= 1 << WHOLE, "ACC-1: the codes' exponents need more than 53 bits")


def to_float32(total: int, unit: int) -> np.float32:
    """Round total * 2^unit once, to nearest, ties to even."""
    size, drop = abs(total), max(abs(total).bit_length() - 24, -149 - unit, 0)
    up = size >> drop
    rest, half = size - (up << drop), 1 << drop >> 1
    up += rest > half or (rest == half and drop > 0 and up % 2 == 1)
    return f32(np.ldexp(float(up if total >= 0 else -up), unit + drop))


def exact(a: Matrix, b: Matrix, start: Array | None) -> Array:
    """ACC-1: whole numbers have no roundings; then one, to float32."""
    low_a, low_b = unit_of(a), unit_of(b)
    x, y = np.ldexp(finite(a), -low_a).astype(np.int64), np.ldexp(finite(b), -low_b).astype(np.int64)
    total, unit = x @ y.T, low_a + low_b
    if start is None:
        return np.ldexp(total.astype(np.float64), unit).astype(f32)
    out = start.copy()
    for place in np.ndindex(out.shape):
        if np.isfinite(start[place]):
            top, under = float(start[place]).as_integer_ratio()
            low = min(unit, 1 - under.bit_length())
            out[place] = to_float32((int(total[place]) << unit - low) + (top << 1 - low - under.bit_length()), low)
    return out


def unknown(a: Matrix, b: Matrix, y: Array) -> Array:
    """Give the products that NaN or infinite codes meet, which have no whole numbers, as floating point has them."""
    x, z = decode(a.form, a.codes), decode(b.form, b.codes)
    if np.isfinite(x).all() and np.isfinite(z).all():
        return y
    with np.errstate(all="ignore"):
        rough = x @ z.T
    return np.where(np.isfinite(rough), y, rough.astype(f32))


def one_by_one(x: Array, y: Array, total: Array) -> Array:
    """ACC-2: float32 products added in order of C."""
    for k in range(x.shape[1]):
        total = total + np.multiply.outer(x[:, k], y[:, k])
    return total


def added(c: Config, a: Matrix, b: Matrix, start: Array | None) -> Array:
    """Add the products of one stretch by the accumulator's rule (ACC)."""
    nothing = np.zeros((len(a.codes), len(b.codes)), f32)
    if c["accumulate"] == "promoted":
        return one_by_one(decode(a.form, a.codes).astype(f32), decode(b.form, b.codes).astype(f32), nothing)
    if c["accumulate"] == "exact":
        return unknown(a, b, exact(a, b, start))
    return unknown(a, b, tensor_core(c["accumulate"], a, b, nothing if start is None else start))


def rows_of(m: Matrix, rows: list[int]) -> Matrix:
    """Take some rows."""
    return Matrix(m.codes[rows], m.scale[rows], m.form, m.block)


def columns(m: Matrix, lo: int, hi: int) -> Matrix:
    """Take one stretch of C."""
    return Matrix(m.codes[:, lo:hi], m.scale[:, lo:hi], m.form, m.block)


def even(m: Matrix) -> bool:
    """Whether each row has one scale all along."""
    return np.array_equal(m.scale, np.broadcast_to(m.scale[:, :1], m.scale.shape), equal_nan=True)


def product(c: Config, a: Matrix, b: Matrix, start: Array | None = None) -> Array:
    """LIN-1 to LIN-3, of codes that `prove` has seen."""
    C, shape, every = a.codes.shape[1], (len(a.codes), len(b.codes)), c["promote_every"]
    y = np.zeros(shape, f32) if start is None else start
    if c["accumulate"] == "float32":
        return one_by_one(values(a), values(b), y)
    width = min(a.block[1], b.block[1], every or max(C, 1))
    if every == 0 and C:
        require(even(a) and even(b), "LIN-3: scales that differ along C under one accumulator")
        return added(c, a, b, start) * np.multiply.outer(a.scale[:, 0], b.scale[:, 0])
    for k in range(0, C, width):
        now = columns(a, k, k + width), columns(b, k, k + width)
        fits = all(even(part) for part in now)
        require(fits, "LIN-1: a stretch that crosses the edge of a block")
        y = y + added(c, *now, None) * np.multiply.outer(now[0].scale[:, 0], now[1].scale[:, 0])
    return y


def matmul_fp8(c: Config, t: Tensors) -> Tensors:
    """LIN-1."""
    a = matrix(t["a_codes"], t["a_scale"], c["a_format"], c["a_block"])
    b = matrix(t["b_codes"], t["b_scale"], c["b_format"], c["b_block"])
    prove(c, a, b)
    with np.errstate(all="ignore"):
        return {"y": product(c, a, b, t.get("c"))}


def experts_of(c: Config, t: Tensors) -> list[list[int]]:
    """LIN-5: the rows of each expert."""
    M, E = t["a_codes"].shape[-2], c["n_routed_experts"]
    if c["layout"] == "contiguous":
        tags = t["group_index"].tolist()
        require(all(-1 <= e < E for e in tags), "LIN-5: an id names no expert")
        return [[i for i, tag in enumerate(tags) if tag == e] for e in range(E)]
    if c["layout"] == "masked":
        require(all(0 <= n <= M for n in t["expert_count"]), "LIN-5: a count that does not fit")
        return [[*range(n)] for n in t["expert_count"].tolist()]
    begin, rows = 0, list[list[int]]()
    for end in t["expert_end"].tolist():
        require(begin <= end <= M, "LIN-5: an end that does not fit")
        rows.append([*range(begin, end)])
        begin = end + -end % c["alignment"]
    return rows


def by_shares(c: Config, t: Tensors) -> Tensors:
    """LIN-6: each expert's share of C by itself, added to c."""
    a = matrix(t["a_codes"], t["a_scale"], c["a_format"], c["a_block"])
    b = matrix(t["b_codes"], t["b_scale"], c["b_format"], c["b_block"])
    sizes, at, y = t["expert_size"].tolist(), 0, t["c"].copy()
    fit = all(size >= 0 and size % c[f"{side}_block"][1] == 0 for size in sizes for side in "ab")
    require(fit and sum(sizes) == a.codes.shape[1], "LIN-6: sizes that are not whole blocks, or do not add up to C")
    prove(c, a, b)
    for e, size in enumerate(sizes):
        y[e] = product(c, columns(a, at, at + size), columns(b, at, at + size), t["c"][e])
        at += size
    return {"y": y}


def box(t: Tensors, side: str, kind: tuple[str, Block], e: int | None = None) -> Matrix:
    """Give one expert's matrix, or all of them on top of each other."""
    many, scale = t[f"{side}_codes"], t[f"{side}_scale"]
    if many.ndim == 2:  # noqa: PLR2004
        return matrix(many, scale, *kind)
    if e is not None:
        return matrix(many[e], scale[e], *kind)
    return Matrix(many.reshape(many.shape[0] * many.shape[1], many.shape[-1]), scale, *kind)


def grouped_matmul_fp8(c: Config, t: Tensors) -> Tensors:
    """LIN-5: each expert's rows by its matrix; empty places hold zeros."""
    with np.errstate(all="ignore"):
        if c["layout"] == "k_grouped":
            return by_shares(c, t)
        require(c["a_block"][0] == 1, "LIN-5: rows of an expert share a scale with others")
        a_kind, b_kind = (c["a_format"], c["a_block"]), (c["b_format"], c["b_block"])
        prove(c, box(t, "a", a_kind), box(t, "b", b_kind))
        y, masked = np.zeros((*t["a_codes"].shape[:-1], t["b_codes"].shape[1]), f32), c["layout"] == "masked"
        for e, rows in enumerate(experts_of(c, t)):
            part = product(c, rows_of(box(t, "a", a_kind, e), rows), box(t, "b", b_kind, e))
            y[(e, rows) if masked else rows] = part
        return {"y": y}
