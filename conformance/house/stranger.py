"""A reader of the corpus that knows golden/README.md and nothing of the suite: what a stranger would write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moespec.config import MoEConfig
from moespec.formats import FORMATS, decode, rounded
from moespec.storage import inside
from moespec_conformance import tensors
from moespec_conformance.judge.selection import legal

MASK = 2**64 - 1
Tensors = dict[str, Any]
Run = Callable[[str, dict[str, Any], Tensors], Tensors]


def element(seed: int, index: int, shift: int) -> float:
    """The ten lines of golden/README.md."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z = z ^ (z >> 31)
    return ((z >> 48) - 32768) / 2 ** (15 + shift)


def question(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The prompt, and every input."""
    prompt = json.loads((folder / "prompt.json").read_text())
    inputs = tensors.read(folder / "in.safetensors")
    for name, one in prompt.get("generated", {}).items():
        count = int(np.prod(one["shape"]))
        numbers = [element(one["seed"], i, one["shift"]) for i in range(count)]
        inputs[name] = np.array(numbers, np.float32).reshape(one["shape"])
    return prompt, inputs


def judge(folder: Path, run: Run) -> list[str]:
    """What is wrong with an implementation by one case's files."""
    told = json.loads((folder / "expected.json").read_text())
    prompt, inputs = question(folder)
    if told["kind"] == "reject":
        return rejected(folder, prompt, inputs, run)
    out = tensors.read(folder / "out.safetensors")
    if told["kind"] == "relation":
        return related(folder, told, out, run)
    got = {name: np.asarray(a) for name, a in run(prompt["op"], prompt["config"], inputs).items()}
    if prompt["op"] == "dispatch":
        full = got["row_token"] >= 0
        got |= {name: got[name][full] for name in ("row_token", "row_slot", "rows")}
    same = "topk_idx" in inputs or np.array_equal(got.get("topk_idx", 0), out.get("topk_idx", 0))
    found: list[str] = []
    for name, kind in told["outputs"].items():
        if name in got and (same or name == "topk_idx"):
            step = told.get("every", {}).get(name)
            given = got[name].reshape(-1)[::step] if step else got[name]
            if not CHECKS[kind](prompt, inputs, given, out, name, got):
                found.append(name)
    return found


def rejected(folder: Path, prompt: dict[str, Any], inputs: Tensors, run: Run) -> list[str]:
    """Refused, and the good question is not."""
    good, other = question(folder / "good") if (folder / "good").is_dir() else (None, {})
    try:
        run(prompt["op"], prompt["config"], inputs)
    except ValueError:
        if good:
            held = {**inputs, **other}
            run(good["op"], good["config"], {n: held[n] for n in named(good, held)})
        return []
    return ["refused"]


def named(good: dict[str, Any], held: Tensors) -> list[str]:
    """The tensors that the good question takes."""
    from moespec.signatures import OPS, expected  # noqa: PLC0415

    return [name for name in expected(OPS[good["op"]].inputs, MoEConfig.from_dict(good["config"])) if name in held]


def related(folder: Path, told: dict[str, Any], out: Tensors, run: Run) -> list[str]:
    """Rows of some calls against rows of others."""
    prompt, inputs = question(folder)
    calls = [inputs] + [{**inputs, **tensors.read(folder / f"call-{k}.safetensors")} for k in range(1, told["calls"])]
    answers = [run(prompt["op"], prompt["config"], call) for call in calls]
    found = []
    for name in told["outputs"]:
        rows = [dense(prompt, answer) if prompt["op"] == "gate" else answer[name] for answer in answers]
        given, should = (np.stack([rows[c][r] for c, r in out[f"{name}.{side}"]]) for side in ("given", "should"))
        if not (np.abs(given.astype(np.float64) - should) <= out[f"{name}.bound"]).all():
            found.append(name)
    return found


def dense(prompt: dict[str, Any], answer: Tensors) -> Any:
    """Weights by expert (T, E)."""
    made = np.zeros((len(answer["topk_idx"]), prompt["config"]["n_routed_experts"]))
    np.put_along_axis(made, answer["topk_idx"], answer["topk_weight"], axis=-1)
    return made


def exact(_p: Any, _i: Tensors, got: Any, out: Tensors, name: str, _all: Tensors) -> bool:
    """Equal as numbers."""
    return np.array_equal(got.astype(np.float64), out[name].astype(np.float64), equal_nan=True)


def bounded(_p: Any, _i: Tensors, got: Any, out: Tensors, name: str, _all: Tensors) -> bool:
    """Within the bound; the same where there is no number; anything where the bound is infinite."""
    got, want, bound = (a.astype(np.float64) for a in (got, out[name], out[f"{name}.bound"]))
    with np.errstate(invalid="ignore"):
        near = (np.abs(got - want) <= bound) | (got == want) | (np.isnan(got) & np.isnan(want)) | np.isinf(bound)
    return bool(near.all())


def selection(prompt: Any, _i: Tensors, got: Any, out: Tensors, name: str, _all: Tensors) -> bool:
    """A legal set; in a case about ties the one set."""
    if prompt["id"].startswith("ties"):
        return np.array_equal(np.sort(got), np.sort(out[name]))
    pairs = [(out[n], out[f"{n}.bound"]) for n in ("choice", "group_scores") if n in out]
    hidden = ~_i["mask"] if "mask" in _i else False
    groups = pairs[1] if len(pairs) > 1 else None
    return bool((legal(got, pairs[0], groups, MoEConfig.from_dict(prompt["config"])) | hidden).all())


def format_of(prompt: Any) -> Any:
    """The format of an op's codes."""
    return FORMATS[prompt["config"]["b_format" if prompt["op"] in ("requantize", "lift_fp4") else "format"]]


def codes(prompt: Any, _i: Tensors, got: Any, out: Tensors, name: str, everything: Tensors) -> bool:
    """Equal as the numbers they stand for; free in blocks without a scale."""
    fmt = format_of(prompt)
    given, want = (decode(inside(a, fmt), fmt).astype(np.float64) for a in (got, out[name]))
    free = np.zeros(want.shape, np.bool)
    if "scale" in everything:
        free = np.isnan(each(prompt, everything["scale"], want.shape))
    elif fmt.nan is None:
        free = np.isnan(_i["x"])
    return bool(((given == want) | (np.isnan(given) & np.isnan(want)) | free).all())


def each(prompt: Any, scale: Any, shape: tuple[int, ...]) -> Any:
    """Every element's scale."""
    key = "b_block" if prompt["op"] in ("requantize", "lift_fp4") else "block"
    high, wide = prompt["config"].get(key) or MoEConfig.from_dict(prompt["config"]).b_block
    numbers = scale.astype(np.float64)
    return np.repeat(np.repeat(numbers, high, 0)[: shape[0]], wide, 1)[:, : shape[1]]


def quantized(prompt: Any, inputs: Tensors, got: Any, _out: Tensors, _name: str, everything: Tensors) -> bool:
    """A number within 2^-22 of x / s rounds to the code, s being one's own scale."""
    if "x" not in inputs:
        return True  # what is requantised must be dequantised first: left to moespec
    fmt, s = format_of(prompt), each(prompt, everything["scale"], inputs["x"].shape)
    number, given = inputs["x"] / s, decode(inside(got, fmt), fmt).astype(np.float64)
    ends = [rounded(number * (1 + sign * 2.0**-22), fmt) for sign in (-1, 1)]
    legal_codes = (np.minimum(*ends) <= given) & (given <= np.maximum(*ends))
    return bool((legal_codes | ~np.isfinite(number)).all())


CHECKS: dict[str, Callable[..., bool]] = {
    "exact": exact,
    "bounded": bounded,
    "selection": selection,
    "codes": codes,
    "quantized": quantized,
}
