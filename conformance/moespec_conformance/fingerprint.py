"""The command `moespec fingerprint`: how an implementation's FP8 product adds, read off its answers (SPEC: ACC-5)."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import typer

from moespec.accumulate import UNITS
from moespec.config import MoEConfig
from moespec.formats import encode
from moespec_conformance.address import Usage
from moespec_conformance.asking import Question, Reply
from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.probes import (
    DEEPEST,
    E4M3,
    F32,
    HELD,
    ORDERS,
    C,
    Model,
    N,
    bits_of,
    candidates,
    columns,
    first_round,
    places,
    rows_of,
    scaled,
    second_round,
    some,
    step_of,
    within_float32,
)
from moespec_conformance.program import started
from moespec_conformance.protocol import BFLOAT16, Array
from moespec_conformance.runner import Runner

STORES = {"bfloat16": (7, BFLOAT16), "float16": (10, np.dtype(np.float16)), "float32": (23, np.dtype(np.float32))}
AT_END = "sum * scale, once at the end"
NAMES = {
    "hopper": "a Hopper FP8 unit",
    "ada": "an Ada FP8 unit (L40S, RTX 40)",
    "blackwell": "as a B200 did on its mma path",
}


@dataclass
class Found:
    """What the answers say; None where they do not say it."""

    adapter: str
    version: str
    accumulate: str | None = None  # exact, float32, hopper, ada, blackwell; "unit": one without a name
    promote_every: int | None = None  # 0: never
    step: int | None = None
    term_bits: int | None = None
    sum_bits: int | None = None
    output: str | None = None
    scales: str | None = None
    says: str = ""
    evidence: list[str] = field(default_factory=list[str])


class Asked(NamedTuple):
    """What is asked in what way: the runner, the config's fields, and the width of a block."""

    runner: Runner
    accumulate: str
    promote_every: int
    width: int


class NotOffered(RuntimeError):  # noqa: N818 - as NotSupported is
    """The implementation does not take this product."""


def product(asked: Asked, a: F32, b: F32, a_scale: F32 | None = None, b_scale: F32 | None = None) -> Array:
    """What it gives for a (M, C) times the transpose of b (N, C), in E4M3; scales of 1 if none are given."""
    config = fp8_config(
        accumulate=asked.accumulate,
        promote_every=asked.promote_every,
        a_block=[1, asked.width],
        b_block=[128, asked.width],
    )
    try:
        MoEConfig.from_dict(config)
    except ValueError as error:
        raise Usage(str(error)) from error
    ones = {o: np.ones((rows, C // asked.width), np.float32) for o, rows in (("a", len(a)), ("b", 1))}
    inputs = {f"{o}_codes": encode(x, E4M3, "nan").view(E4M3.storage) for o, x in (("a", a), ("b", b))}
    inputs |= {
        "a_scale": ones["a"] if a_scale is None else a_scale,
        "b_scale": ones["b"] if b_scale is None else b_scale,
    }
    return answered(asked.runner.ask(Question("matmul_fp8", config, inputs, "plain")), (len(a), N))


def answered(reply: Reply, shape: tuple[int, int]) -> Array:
    """The product in an answer, if there is one."""
    if reply.happened in ("not_supported", "refused"):
        raise NotOffered(f"matmul_fp8 is not offered so: {reply.message}")
    if reply.happened != "answered":
        raise RuntimeError(f"matmul_fp8: {reply.happened}: {reply.message}")
    y = reply.outputs.get("y")
    if y is None or y.shape != shape or (y.dtype.kind != "f" and y.dtype != BFLOAT16):
        raise RuntimeError(f"matmul_fp8: y is {None if y is None else f'{y.dtype} {y.shape}'}, not numbers {shape}")
    return np.asarray(y)


def likeliest(fits: list[Model], found: Found) -> list[Model]:
    """Of ways that give the same sums, those of a known unit; and by its scales, if they tell, whether it promotes."""
    fits = [m for m in fits if m.unit in UNITS.values()] or fits
    ended = found.scales == AT_END
    return [m for m in fits if ended == (m.every == 0)] or fits if found.scales else fits


def name_of(model: Model, found: Found) -> str:
    """The config's word for it."""
    if model.kind == "float32" and model.every and not (found.scales or "").startswith(ORDERS[3]):
        return "promoted"
    return next((name for name, unit in UNITS.items() if unit == model.unit), model.kind)


def stored(y: Array, output: str) -> Array:
    """What is left of float32 numbers in the output's format."""
    with np.errstate(over="ignore"):
        return y.astype(STORES[output][1]).astype(np.float64)


def read(asked: Asked) -> Found:
    """Ask, and say what the answers tell."""
    rng = np.random.default_rng(5)
    b, probes = columns(rng), first_round()
    a = np.concatenate([rows_of(probes, b), some(rng, 64)])
    y = product(asked, a, b)
    values = [float(row[p.column]) for row, p in zip(y, probes, strict=False)]
    found = Found(asked.runner.name, asked.runner.version)
    found.term_bits, found.sum_bits = (bits_of(probes, values, about) for about in ("term", "sum"))
    found.output = output_of(y, bits_of(probes, values, "store"), found.sum_bits)
    step = {kept: places(probes, values, "step", kept=kept) for kept in (True, False)}
    found.step = None if found.term_bits == DEEPEST else step_of(step[False], step[True])
    before = places(probes, values, "before", kept=True)
    after = places(probes, values, "after", kept=False)
    found.evidence = [
        f"128*128 and 1023 ones, exactly 17407: {values[0]:.0f}",
        f"1 and 2^-j in one step: there up to j = {said(found.term_bits)}; in one sum, up to {said(found.sum_bits)}",
        f"products lost beside 2^16 - 2^16 in places 0 and 2: {some_of(step[False])}",
        f"what an earlier product left is safe from 2^16 at {some_of(before)}",
        f"what comes after 2^16 is lost to it at {some_of(after)}",
        *rounding(asked, found, b),
    ]
    scales_of(asked, found)
    ways = candidates((found.term_bits, found.sum_bits, found.step), before, after)
    fits = likeliest([m for m in ways if same(stored(m.answer(a, b[:HELD]), found.output or "float32"), y)], found)
    whole = "all as said above" if fits else "not as any way to add that was tried"
    found.evidence.append(f"{len(a) * HELD} sums, bit for bit: {whole}")
    if fits:
        found.accumulate, found.promote_every = name_of(fits[0], found), fits[0].every
        found.sum_bits = fits[0].unit.sum_bits if fits[0].unit else found.sum_bits
    held = STORES[found.output][0] if found.output else 0
    found.says = sentence(found, fits, anyway=bool(held) and within_float32(y[:, :HELD], a, b[:HELD], held))
    if asked.width < C:
        found.evidence.append(f"in blocks of {asked.width}, which are added apart anyhow: wider ones are not offered")
    return found


def same(predicted: Array, y: Array) -> bool:
    """Whether the columns that hold something are as predicted."""
    return np.array_equal(predicted, y[:, :HELD].astype(np.float64), equal_nan=True)


def output_of(y: Array, bits: int | None, sum_bits: int | None) -> str | None:
    """The format that the output went through: its own, or a narrower one that shows."""
    for name, (held, dtype) in STORES.items():
        if y.dtype == dtype and name != "float32":
            return name
        if bits == held and (sum_bits or 0) > held:
            return name
    return "float32" if bits is not None and bits >= min(sum_bits or 0, 23) else None


def rounding(asked: Asked, found: Found, b: F32) -> list[str]:
    """The second round, in words."""
    if not found.term_bits or not found.sum_bits or DEEPEST in (found.term_bits, found.sum_bits):
        return []
    probes = second_round(found.term_bits, found.sum_bits)
    y = product(asked, rows_of(probes, b), b)
    lines = list[str]()
    for row, p in zip(y, probes, strict=False):
        left = float(row[p.column]) / abs(p.small) + 0.0
        whether = {0.0: "lost", 1.0: "kept"}.get(left, "spoiled")
        lines.append(
            {
                "term up": f"in units of a term's last bit, 0.75 becomes {left:g}",
                "term down": f"in units of a term's last bit, -0.25 becomes {left:g}",
                "sum": f"in units of the sum's last bit, {1.5 * p.at:g} becomes {left:g}",
                "subnormal": f"a term that is lost where a subnormal factor counts as 2^-6, not as itself: {whether}",
                "product above 2": f"a term that is lost where products of 2 and more are normalised first: {whether}",
            }[p.about]
        )
    return lines


def scales_of(asked: Asked, found: Found) -> None:
    """Where scales come in: at the end, or block by block, and then in which order."""
    rng = np.random.default_rng(6)
    a, b = np.zeros((64, C), np.float32), np.ones((N, C), np.float32)
    a[:, [0, C // 2, C - 1]] = 5, -2, -3
    one = np.repeat(rng.uniform(1, 2, (64, 1)).astype(np.float32), C // asked.width, axis=1)
    y = product(asked, a, b, one)
    if not y[:, 0].any():
        found.scales = AT_END
    else:
        s = scaled(rng)
        try:
            got = product(asked._replace(width=128), s.a, s.b, s.a_scale, s.b_scale)[:, 0].astype(np.float64)
        except NotOffered as error:
            found.evidence.append(f"the order of scales is not told: {error}")
            return
        fits = [way for way, left in s.by_way.items() if np.array_equal(got, left)]
        if len(fits) == 1:
            found.scales = fits[0][0] + (", added by fused multiply-add" if fits[0][1] else ", then added")
    found.evidence.append(f"scales: {found.scales or f'none of {len(ORDERS)} orders, fused or not'}")


def said(bits: int | None) -> str:
    """A number of bits, or that it is none."""
    return "no one j" if bits is None else f"{bits}" + (" (the most that is asked)" if bits == DEEPEST else "")


def some_of(found: tuple[int, ...]) -> str:
    """A few places."""
    return "no place" if not found else ", ".join(map(str, found[:6])) + (f", … {found[-1]}" if len(found) > 6 else "")  # noqa: PLR2004


def sentence(found: Found, fits: list[Model], *, anyway: bool) -> str:
    """All of it in one sentence."""
    hidden = f"; the output is {found.output}, and what that rounds off is hidden" if found.output != "float32" else ""
    if not fits:
        hidden = hidden if found.output else ""
        rest = "not told: no way to add that is known here gives these answers"
        if anyway:
            rest = "as good as float32 sums, in an order or by a unit that is not told"
        return rest + hidden
    model = fits[0]
    if len(fits) > 1:
        hidden += f"; as well possible: {'; '.join(m.promotes for m in fits[1:])}"
    if model.kind == "exact":
        within = f"inside {model.every} products, then in float32: `exact`" if model.every else "throughout: `exact`"
        return f"exact {within}, or a CPU in float64{hidden}"
    if model.kind == "float32":
        if model.every == 0:
            return f"one float32 accumulator, in order of C{hidden}"
        who = "`promoted`" if found.accumulate == "promoted" else "`float32`, as BLAS libraries cut C"
        return f"float32 accumulators in order of C, the next one begun {model.begins}: {who}{hidden}"
    last = model.unit.sum_bits if model.unit else found.sum_bits
    who = NAMES.get(found.accumulate or "", "no unit that is known here")
    if found.accumulate == "hopper" and found.promote_every == 128:  # noqa: PLR2004
        who += " with DeepSeek's promotion"
    bits = f"keeps {found.term_bits} fraction bits" + (f", then {last}" if last != found.term_bits else "")
    return f"adds {found.step} products at a time, {bits}, cuts toward zero, {model.promotes}: {who}{hidden}"


def fingerprint(
    impl: Annotated[str, typer.Argument(help="path.py[:Name], an entry point NAME[:ARG], or module:Name.")],
    accumulate: Annotated[str, typer.Option(help="The config's `accumulate` that it is asked with.")] = "promoted",
    promote_every: Annotated[int, typer.Option(help="The config's `promote_every`.", min=0)] = 128,
    timeout: Annotated[float, typer.Option(help="Seconds for one product.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Say how its FP8 product adds. Exit 0: told; 3: not told, or it could not be asked."""
    runner = started(impl, timeout)
    try:
        found = told(runner, accumulate, promote_every)
    finally:
        runner.close()
    if as_json:
        print(json.dumps(asdict(found)))  # noqa: T201 - for a pipe
    else:
        print("\n".join([f"{found.adapter} {found.version}: {found.says}", *(f"  {e}" for e in found.evidence)]))  # noqa: T201
    raise typer.Exit(0 if found.accumulate else 3)


def told(runner: Runner, accumulate: str, promote_every: int) -> Found:
    """Read what it offers: one block along C, else DeepSeek's blocks of 128."""
    try:
        return read(Asked(runner, accumulate, promote_every, C))
    except NotOffered:
        return read(Asked(runner, accumulate, promote_every, 128))
