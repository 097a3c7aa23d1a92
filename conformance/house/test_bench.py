"""The bench: inputs of every op, products found in a run, limits, fits, and what is kept and compared."""

import json
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from moespec import ops
from moespec.config import MoEConfig
from moespec.moe import MoEWeights, moe, moe_backward, moe_forward
from moespec.signatures import OPS
from moespec_conformance.address import Usage
from moespec_conformance.bench import growth, store
from moespec_conformance.bench.backend import BACKENDS, Backend
from moespec_conformance.bench.goals import backward, forward, goals
from moespec_conformance.bench.inputs import config, inputs
from moespec_conformance.bench.layers import Shape, build
from moespec_conformance.bench.ops import OWN, count, least, one, rest
from moespec_conformance.bench.rates import Rates, rates
from moespec_conformance.bench.recorded import by_step, products_of, recorded, run
from moespec_conformance.bench.rows import missed, row, told
from moespec_conformance.bench.spent import spent
from moespec_conformance.bench.timing import Measured, compare, interleave
from moespec_conformance.cli import app

SMALL = Shape(T=8, H=16, F=12, E=4, K=2, S=1)
CAN = Rates(sgemm=1e11, dgemm=5e10, copy=1e10)


def small(op: str) -> MoEConfig:
    """The layer that an op is timed in, with fewer and smaller experts."""
    return replace(config(op), hidden_size=256, moe_intermediate_size=128, n_routed_experts=16)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_inputs_that_it_accepts(op: str) -> None:
    """All names, shapes, dtypes and values are those of the signature."""
    cfg = small(op)
    out = ops.run(op, cfg, **inputs(op, cfg, tokens=64))
    assert out


@pytest.mark.parametrize("op", ["moe", "moe_backward", "moe_fp8", "matmul_fp8", "grouped_matmul_fp8", "gate_backward"])
def test_products_found_in_a_run_are_those_counted(op: str) -> None:
    """The recording and the reading Counted see the same FLOPs."""
    cfg = small(op)
    given = inputs(op, cfg, tokens=64)
    found = products_of(partial(ops.RUN[op], cfg, **{name: recorded(t) for name, t in given.items()}))
    if op.endswith("fp8"):  # codes are no floats: what is recorded begins where they are decoded
        assert sum(2 * p.out.size * p.a.shape[-1] for p in found) <= sum(w.products for w in count(op, cfg, given))
    else:
        assert sum(2 * p.out.size * p.a.shape[-1] for p in found) == sum(w.products for w in count(op, cfg, given))


@pytest.mark.parametrize(("calls", "number"), [(forward, 3), (backward, 6)])
def test_the_floor_is_all_of_the_layers_products(calls: object, number: int) -> None:
    """Three products forward and six backward of H and F for each row of each expert, and those of the gate."""
    layer = build(SMALL, "float64")
    w, cfg = layer.weights, layer.cfg
    if calls is forward:
        found = products_of(partial(moe, recorded(layer.x), MoEWeights(*map(recorded, w)), layer.bias, cfg))
    else:
        cache = moe_forward(recorded(layer.x), w, layer.bias, cfg)[1]
        found = products_of(partial(moe_backward, recorded(layer.dy), cache, w, layer.dweights, cfg))
    T, H, F, E, K, S = SMALL
    gate = T * E * H * (1 if calls is forward else 2)
    assert sum(p.out.size * p.a.shape[-1] for p in found) == number * T * (K + S) * H * F + gate


def test_the_floor_is_the_same_arithmetic_again() -> None:
    """Every product of the replay gives the bits that the run had, and nothing else is touched."""
    layer = build(SMALL)
    found = products_of(partial(moe, recorded(layer.x), layer.weights, layer.bias, layer.cfg))
    run(found)
    before = [p.out.copy() for p in found]
    assert all(np.array_equal(b, p.a @ p.b) for p, b in zip(found, before, strict=True))
    for product in found:
        product.out[...] = np.nan
    run(found)
    assert all(np.array_equal(p.out, b) for p, b in zip(found, before, strict=True))
    assert set(by_step(found)) == {p.step for p in found}
    y = moe(layer.x, layer.weights, layer.bias, layer.cfg)
    again = moe(recorded(layer.x), layer.weights, layer.bias, layer.cfg)
    assert np.array_equal(y, again)


def test_time_is_charged_to_the_function_that_spends_it() -> None:
    """A callee's time is its own, and functions of others count for whom they serve."""
    layer = build(Shape(T=64, H=256, F=256, E=4, K=2))
    found = spent(partial(moe, layer.x, layer.weights, layer.bias, layer.cfg))
    assert {"moe.moe", "expert.hidden_forward", "activation.silu"} <= set(found)
    assert found["expert.hidden_forward"] > found["moe.expert_of"] > 0


def test_no_op_beats_its_limit() -> None:
    """The limit is that of products, or of reading inputs and writing outputs, whichever is later."""
    given = inputs("moe", small("moe"), tokens=64)
    ledger = count("moe", small("moe"), given)
    assert least(ledger, 0, CAN) >= sum(w.products for w in ledger) / CAN.sgemm
    assert least([], 10**10, CAN) == 1.0
    assert least(ledger, 0, CAN, itemsize=8) > least(ledger, 0, CAN)


def test_an_op_s_row_says_all() -> None:
    """Time, limit, products, and the functions that the rest goes to."""
    found = one("gate", CAN, 0.01, BACKENDS["numpy"]())
    assert found["seconds"] > 0
    assert found["flops"] == 2 * 512 * 1024 * 64
    assert OWN in found["ratios"]
    assert "%" in rest(found)
    assert found["limit"] == pytest.approx(max(found["flops"] / CAN.sgemm, found["bytes"] / CAN.copy), rel=0.2)


def test_an_op_is_timed_where_its_arrays_are_sent() -> None:
    """With another clock there is no CPU time to share out; a backend that is not there says so."""
    sent = list[int]()
    elsewhere = Backend("elsewhere", lambda array: sent.append(1) or array.copy(), time.perf_counter)
    found = one("expert", CAN, 0.01, elsewhere)
    assert len(sent) == 4 + 3 * 3  # inputs, and each product's arrays
    assert found["parts"] == {}
    assert rest(found) == ""
    assert rates(elsewhere.send, elsewhere.clock).gemm(8) > 0
    if find_spec("cupy") is None:
        assert "CuPy" in str(CliRunner().invoke(app, ["bench", "--backend", "cupy"]).exception)
    assert isinstance(CliRunner().invoke(app, ["bench", "--backend", "abacus"]).exception, Usage)


def test_goals_are_ratios_of_the_same_round() -> None:
    """Missed and met; the names of all goals differ."""
    found = row("a", Measured(1.0, {"b": [1.0, 3.0, 2.0], "c": [1.0, 1.0, 1.0]}), {"b": 1.5, "c": 1.5, "absent": 1.0})
    assert missed(found) == {"b": 2.0}
    assert told(found) == ["2.00 [1.00 .. 3.00] of b, goal 1.5: MISSED", "1.00 [1.00 .. 1.00] of c, goal 1.5: met"]
    names = [goal.name for goal in goals()]
    assert len(set(names)) == len(names) >= 20
    calls = compare({"twice": lambda: sum(range(20000)), "once": lambda: sum(range(10000))}, 5, 0.0)
    assert 1.2 < calls.ratio("once") < 3.5
    assert len(interleave([lambda: None], 4, 0.0)) == 4


def test_lines_are_found_and_deviations_told() -> None:
    """A line is a line; a curve is not."""
    tokens = [10, 100, 1000]
    exact = growth.fit(tokens, [5.0 + 2 * t for t in tokens])
    assert (exact["start"], exact["each"]) == pytest.approx((5, 2))
    assert exact["worst"] < 1e-9
    assert growth.fit(tokens, [float(t * t) for t in tokens])["worst"] > 0.5


def test_the_layer_s_flops_grow_with_tokens_and_not_with_idle_experts() -> None:
    """What the report says, on fewer points."""
    cfg = growth.layer()
    counted = [sum(growth.flops(cfg, inputs("moe", cfg, tokens)).values()) for tokens in (10, 100, 1000)]
    assert counted[1:] == [10 * counted[0], 100 * counted[0]]
    found = growth.by_idle_experts((8, 16), times=1)
    assert len(set(found["beside"])) == 1
    assert found["gate"] == [found["gate"][0] * e // found["experts"][0] for e in found["experts"]]


def made(rounds: list[float]) -> dict[str, object]:
    """A run of one case."""
    return {**store.about(), "rows": [row("a", Measured(1.0, {"b": rounds}))]}


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    """What is slower is said to be, if the rounds can tell; a file that is none is refused."""
    fast, noisy, slow = made([1.0, 1.1, 1.2, 1.1]), made([0.5, 1.0, 1.4, 2.5]), made([1.5, 1.6, 1.7, 1.6])
    words = [[word for *_, word in store.compared(fast, other)] for other in (fast, noisy, slow)]
    assert words == [["same"], ["same"], ["slower"]]
    assert [word for *_, word in store.compared(slow, fast)] == ["faster"]
    store.keep(tmp_path / "new" / "run.json", fast)
    assert store.load(tmp_path / "new" / "run.json") == json.loads(json.dumps(fast))
    store.keep(tmp_path / "slow.json", slow)
    result = CliRunner().invoke(
        app, ["bench", "--compare", str(tmp_path / "new" / "run.json"), f"{tmp_path}/slow.json"]
    )
    assert result.exit_code == 1
    for text in ("", "[]", "{}", '{"format": 1}', "\x00"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(Usage, match="not a run"):
            store.load(tmp_path / "bad.json")
    with pytest.raises(Usage, match="not a run"):
        store.load(tmp_path / "absent.json")
    assert store.slug("Intel(R) Xeon(R)") == "intel-r-xeon-r"


def test_the_command_prints_keeps_and_draws(tmp_path: Path) -> None:
    """A line for the op asked for, a file of it, a picture that is the same for the same run; unknown ops refused."""
    kept, drawn = tmp_path / "run.json", tmp_path / "run.svg"
    result = CliRunner().invoke(app, ["bench", "--op", "gate", "--json", str(kept)])
    assert result.exit_code == 0, result.output
    assert store.load(kept)["rows"][0]["op"] == "gate"
    pytest.importorskip("matplotlib")
    from moespec_conformance.bench.plot import draw  # noqa: PLC0415 - needs what was just asked for

    curve = {"tokens": [1, 10], "seconds": [1.0, 10.0]}
    idle = {"experts": [8, 16], "gate_seconds": [8, 16], "beside_seconds": [4, 4]}
    pictures = list[bytes]()
    for _ in range(2):
        draw({**store.load(kept), "growth": {"tokens": curve, "experts": idle}}, drawn)
        pictures.append(drawn.read_bytes())
    assert pictures[0] == pictures[1]
    assert b"<svg" in pictures[0]
    assert isinstance(CliRunner().invoke(app, ["bench", "--op", "nothing"]).exception, Usage)
