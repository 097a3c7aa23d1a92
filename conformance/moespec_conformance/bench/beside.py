"""The layer beside what a user would pick instead: the same weights and the same routing, measured in one run.

A contender is checked before it is measured. What is not installed, cannot run here, or has no such direction is named
with its reason.
"""

import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from moespec.arrays import Float
from moespec.moe import MoEWeights, moe, moe_backward, moe_forward
from moespec_conformance.adapters.plain import Adapter as Plain
from moespec_conformance.bench.layers import PREFILL, SHAPES, Layer, Shape, build
from moespec_conformance.bench.rows import Row, row
from moespec_conformance.bench.timing import ROUNDS, Call, compare

FORWARD, BOTH = "forward", "forward and backward"
NEAR = 1e-4  # of a tensor's largest number
PLAIN_PRODUCTS = 2 * 10**8  # T * K * H * F, up to which plain takes seconds, not minutes
PACKAGES = ("moespec", "numpy", "torch", "transformers", "megatron-core", "torchtitan", "onnxruntime")
Calls = dict[str, Call | str]  # by direction; a string says why there is none


class Task(NamedTuple):
    """A layer, and what others hold instead of its gate_proj and up_proj."""

    layer: Layer
    gate_up_proj: Float  # (E, 2F, H): gate_proj, and below it up_proj


Contender = Callable[[Task], Calls]


def task(shape: Shape) -> Task:
    """One layer for all contenders; what they can, they share."""
    layer = build(shape)
    return Task(layer, np.concatenate([layer.weights.gate_proj, layer.weights.up_proj], axis=1))


def ours(layer: Layer) -> dict[str, Call]:
    """The reference; its gradients go into buffers that are there already."""

    def both() -> dict[str, Float]:
        y, cache = moe_forward(layer.x, layer.weights, layer.bias, layer.cfg)
        dx = moe_backward(layer.dy, cache, layer.weights, layer.dweights, layer.cfg)
        return {"y": y, "dx": dx, **{f"d{n}": a for n, a in layer.dweights._asdict().items() if "shared" not in n}}

    return {FORWARD: lambda: {"y": moe(layer.x, layer.weights, layer.bias, layer.cfg)}, BOTH: both}


def ours_allocating(given: Task) -> Calls:
    """The reference with new gradients each time, as autograd makes them."""
    layer = given.layer

    def both() -> object:
        empty = MoEWeights(*map(np.empty_like, layer.weights))
        return ours(layer._replace(dweights=empty))[BOTH]()

    return {FORWARD: "forward there are no gradients", BOTH: both}


def plain(given: Task) -> Calls:
    """The layer a second time, one row after another."""
    layer, cfg, adapter = given.layer, given.layer.cfg, Plain()
    products = layer.x.size * cfg.num_experts_per_tok * cfg.moe_intermediate_size
    if products > PLAIN_PRODUCTS:
        return dict.fromkeys((FORWARD, BOTH), "written to be read: minutes at this size")
    config = cfg.to_dict()
    weights = {n: a for n, a in layer.weights._asdict().items() if "shared" not in n}
    inputs = {"x": layer.x, "bias": layer.bias, **weights}
    topk_idx = moe_forward(layer.x, layer.weights, layer.bias, cfg)[1].gate.topk_idx

    def both() -> dict[str, Float]:
        y = adapter.moe(config, **inputs)["y"]
        return {"y": y, **adapter.moe_backward(config, **inputs, topk_idx=topk_idx, dy=layer.dy)}

    return {FORWARD: lambda: {"y": adapter.moe(config, **inputs)["y"]}, BOTH: both}


@contextmanager
def quiet() -> Generator[None]:
    """Without what packages say of each other while they are imported and set up."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def elsewhere(module: str, name: str, given: Task) -> Calls:
    """A contender of a file that needs more than NumPy."""
    with quiet():
        calls: Calls = getattr(import_module(f"{__package__}.{module}"), name)(given)
    return calls


CONTENDERS: dict[str, Contender] = {
    "transformers": partial(elsewhere, "beside_torch", "transformers_eager"),
    "transformers grouped_mm": partial(elsewhere, "beside_torch", "transformers_grouped"),
    "torch loop": partial(elsewhere, "beside_torch", "torch_loop"),
    "torch grouped": partial(elsewhere, "beside_torch", "torch_grouped"),
    "megatron-core": partial(elsewhere, "beside_megatron", "megatron"),
    "torchtitan": partial(elsewhere, "beside_torchtitan", "torchtitan"),
    "onnxruntime": partial(elsewhere, "beside_onnx", "onnxruntime"),
    "plain": plain,
    "ours, allocating": ours_allocating,
}


def attempt(ask: Call) -> Any:  # noqa: ANN401 - what is asked for
    """What is asked for, or in its place why it cannot be had."""
    try:
        return ask()
    except ModuleNotFoundError as error:
        return f"not installed (no module {error.name})"
    except Exception as error:  # noqa: BLE001 - others' packages fail in ways of their own
        return f"cannot run here: {type(error).__name__}: {error}".partition("\n")[0]


def made(contender: Contender, given: Task) -> Calls:
    """A contender's calls, or in their place why there are none."""
    calls = attempt(lambda: contender(given))
    return dict.fromkeys((FORWARD, BOTH), calls) if isinstance(calls, str) else calls


def split(answer: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """What was said, by our names, each an array or a list of parts; joined gradients are taken apart."""
    for name, said in answer.items():
        parts: Any = said[0] if len(said) == 1 else said
        if name == "dgate_up_proj":
            half = len(parts[0]) // 2
            yield "dgate_proj", [part[:half] for part in parts]
            yield "dup_proj", [part[half:] for part in parts]
        else:
            yield name, list(parts)


def agree(name: str, theirs: Mapping[str, Any], expected: Mapping[str, Float]) -> None:
    """Refuse a contender that computes another layer: what it says would be the speed of something else."""
    said = dict(split(theirs))
    if missing := expected.keys() ^ said.keys():
        raise ValueError(f"{name}: {', '.join(sorted(missing))} cannot be compared")
    for tensor, right in expected.items():
        if len(said[tensor]) != len(right):
            raise ValueError(f"{name}: {tensor} has {len(said[tensor])} parts, not {len(right)}")
        off = np.max([np.abs(np.asarray(a) - b).max(initial=0) for a, b in zip(said[tensor], right, strict=True)])
        largest = np.abs(right).max()
        if not off <= NEAR * largest:
            raise ValueError(
                f"{name} computes another layer: {tensor} is off by {off:.1e}, its largest is {largest:.1e}"
            )


def sorted_out(
    calls: Mapping[str, Call | str], expected: Mapping[str, Float]
) -> tuple[dict[str, Call], dict[str, str]]:
    """Those that run and say what we say, as each was asked once; and the others' reasons."""
    running: dict[str, Call] = {}
    absent: dict[str, str] = {}
    for name, call in calls.items():
        answer = call if isinstance(call, str) else attempt(call)
        if isinstance(call, str) or isinstance(answer, str):
            absent[name] = answer
            continue
        agree(name, answer, expected)
        del answer  # it may be as large as the weights
        running[name] = call
    return running, absent


def rows(
    shapes: Iterable[Shape] = SHAPES,
    rounds: int = ROUNDS,
    contenders: Mapping[str, Contender] = CONTENDERS,
) -> Iterator[Row]:
    """Of each shape and direction: our seconds, each round's ratios of ours to theirs, and who is absent and why."""
    for shape in shapes:
        given = task(shape)
        calls = {name: made(contender, given) for name, contender in contenders.items()}
        for direction, call in ours(given.layer).items():
            theirs = {name: each[direction] for name, each in calls.items()}
            expected: Any = call()
            running, absent = sorted_out(theirs, expected)
            measured = compare({"ours": call, **running}, rounds)
            yield {**row(f"{shape} {direction}", measured, goals(shape, direction)), "absent": absent}


def goals(shape: Shape, direction: str) -> dict[str, float]:
    """Ours to the loop over experts that transformers releases; to autograd's, where there are many tokens."""
    if direction == FORWARD:
        return {"transformers": 1.25 if shape.T >= PREFILL else 1.7}
    return {"torch loop": 1.15, "torch grouped": 1.15} if shape.T >= PREFILL else {}


def versions() -> dict[str, str]:
    """Which of the packages are installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
