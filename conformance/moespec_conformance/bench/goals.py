"""What the project promises of its speed, each a ratio to a yardstick that is timed in the same round."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

from moespec import arrays
from moespec.moe import MoEWeights, moe, moe_backward, moe_forward
from moespec_conformance.bench import fp8
from moespec_conformance.bench.layers import SHAPES, Layer, Shape, build
from moespec_conformance.bench.ops import OWN
from moespec_conformance.bench.recorded import products_of, recorded, run
from moespec_conformance.bench.rows import Row, row
from moespec_conformance.bench.timing import SECONDS, Call, compare


class Goal(NamedTuple):
    """What is measured: ours first, then its yardsticks; and the goals, each a ratio to a yardstick at most."""

    name: str
    build: Callable[[], dict[str, Call]]
    most: dict[str, float]


def forward(layer: Layer) -> dict[str, Call]:
    """`moe`, and its own matrix products, all of them of rows: columns are a gain that the floor does not share."""
    x, weights, bias, cfg = recorded(layer.x), MoEWeights(*map(recorded, layer.weights)), layer.bias, layer.cfg
    with patch.object(arrays, "FEW", 0):
        products = products_of(partial(moe, x, weights, bias, cfg))
    return {"moe": partial(moe, layer.x, layer.weights, bias, cfg), OWN: partial(run, products)}


def backward(layer: Layer) -> dict[str, Call]:
    """`moe_backward`, and its own matrix products; both write the weights' gradients into the same buffers."""
    w, dw, cfg = layer.weights, layer.dweights, layer.cfg
    _, cache = moe_forward(layer.x, w, layer.bias, cfg)
    _, noted = moe_forward(recorded(layer.x), w, layer.bias, cfg)
    products = products_of(partial(moe_backward, recorded(layer.dy), noted, w, dw, cfg))
    return {"moe_backward": partial(moe_backward, layer.dy, cache, w, dw, cfg), OWN: partial(run, products)}


def built(calls: Callable[[Layer], dict[str, Call]], shape: Shape, dtype: str) -> dict[str, Call]:
    """A layer's calls, with its arrays made only now."""
    return calls(build(shape, dtype))


def layer_goals() -> Iterator[Goal]:
    """The layer near its matrix products, forward and backward, at prefill and decode shapes."""
    for shape in SHAPES:
        for dtype in ("float32", "float64") if shape == SHAPES[0] else ("float32",):
            for name, calls, most in (("moe", forward, 1.15), ("moe_backward", backward, 1.20)):
                yield Goal(f"{name} {shape} {dtype}", partial(built, calls, shape, dtype), {OWN: most})


def goals() -> Iterator[Goal]:
    """All of them."""
    yield from layer_goals()
    yield from (Goal(*each) for each in fp8.CASES)


def rows(rounds: int, seconds: float = SECONDS) -> Iterator[Row]:
    """One row for each goal; a case's arrays are gone before the next one's are made."""
    for name, make, most in goals():
        yield row(name, compare(make(), rounds, seconds), most)
