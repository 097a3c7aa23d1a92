"""The reference on CuPy, as far as a CPU can tell: every op behind CuPy's two doors, and where the host waits."""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import moespec_conformance.adapters.on_device as adapter
from moespec import ops
from moespec.ops import RUN
from moespec.signatures import OPS
from moespec_conformance.adapters.on_device import Device, computed, keep_subnormals, plain
from moespec_conformance.adapters.reference import Adapter
from moespec_conformance.address import Usage
from moespec_conformance.cases import PROFILES, all_cases
from moespec_conformance.protocol import Case
from moespec_conformance.readings.foreign import Foreign, Trip

FOREIGN = Device(lambda a: Foreign(np.array(a)), lambda a: a.planes[0].copy(), "a CPU")
WHOLE = {"deepseek-v3", "fp8", "layouts", "ranks", "balance"}  # of these all cases, of the others one of each op


def asked() -> dict[str, list[Case]]:
    """The cases, by op."""
    chosen, seen = dict[str, list[Case]](), set[tuple[str, str]]()
    for case in all_cases().values():
        if case.kind not in {"reject", "relation"} and case.arithmetic == "float32":
            new = {(case.op, profile) for profile in case.profiles} - seen
            if new or WHOLE & set(case.profiles):
                chosen.setdefault(case.op, []).append(case)
            seen |= new
    return chosen


@pytest.mark.parametrize("op", OPS)
def test_every_op_gives_the_same_bits_behind_cupys_doors(op: str) -> None:
    """Through the adapter's own lines: checks, codes as unsigned integers, and the ops; Foreign for CuPy."""
    cases = asked()[op]
    assert cases
    for case in cases:
        with np.errstate(over="ignore"):
            want = ops.run(case.op, case.cfg, **case.inputs)
            got = computed(FOREIGN, case.op, dict(case.config), **case.inputs)
        assert got.keys() == want.keys()
        for name, array in got.items():
            assert (array.dtype, array.shape) == (want[name].dtype, want[name].shape), (case.id, name)
            assert array.tobytes() == want[name].tobytes(), (case.id, name)


def test_the_cases_are_of_every_profile() -> None:
    """None is left out but those that ask nothing of an op's numbers."""
    profiles = {profile for cases in asked().values() for case in cases for profile in case.profiles}
    assert set(PROFILES) - profiles <= {"reject", "relation", "batch-invariant"}


@pytest.mark.parametrize("name", [c.id for c in all_cases().values() if c.kind == "reject"])
def test_what_is_refused_is_refused_before_it_is_sent(name: str) -> None:
    """With the reference's words; nothing reaches the device."""
    case = all_cases()[name]

    def send(_: Any) -> Any:
        raise AssertionError("it was sent")

    with pytest.raises(ValueError, match=r"^[A-Z]{3,4}-\d+: "):
        computed(FOREIGN._replace(send=send), case.op, dict(case.config), **case.inputs)


def trips(name: str) -> Counter[Trip]:
    """Where the host waits in the maths of a case, checks apart."""
    case = all_cases()[name]
    given = {key: FOREIGN.send(plain(array)) for key, array in case.inputs.items()}
    Foreign.trips.clear()
    with np.errstate(over="ignore"):
        RUN[case.op](case.cfg, **given)
    return Counter(Foreign.trips)


COUNTS = Trip("tolist", "dispatch.rows_by_expert")
NOWHERE = (
    *("gate-ordinary", "gate-backward-ordinary", "gate-mixtral-8x7b-ordinary"),
    *("expert-ordinary", "expert-backward-ordinary", "combine-ordinary"),
    *("quantize-float32-ordinary", "dequantize-e4m3-all-codes", "requantize-powers"),
    *("cast-e4m3-numbers", "lift-fp4-apart-0", "matmul-fp8-ordinary"),
    *("rms-norm-ordinary", "cross-entropy-ordinary", "bias-update-ordinary"),
)
LAYERS = ("moe-ordinary", "moe-backward-ordinary", "moe-fp8-ordinary", "moe-fp8-backward-ordinary")
WAITS: dict[str, dict[Trip, int]] = {
    **{name: {} for name in NOWHERE},
    # how many rows each expert has: Python slices by it, once a layer
    **{name: {COUNTS: 1} for name in LAYERS},
    "dispatch-ordinary": {COUNTS: 1, Trip("tolist", "layouts.contiguous"): 1},
    # likewise, told as ends, sizes or counts
    "grouped-matmul-fp8-contiguous-ordinary": {Trip("tolist", "linear.grouped"): 1},
    "grouped-matmul-fp8-masked-ordinary": {Trip("tolist", "ops_fp8.grouped_matmul_fp8"): 1},
    "k-grouped-matmul-ordinary": {Trip("tolist", "layouts.k_grouped"): 1},
    # CuPy's bincount looks at its numbers; how many sequences there are is the shape of what follows
    "balance-loss-expert-ordinary": {Trip("bincount", "load.sequences"): 2, Trip("bincount", "load.count_ids"): 1},
    # how many experts a token has, at most; slot after slot, each by what those before it left; Python's beta ** step
    "gate-expert-choice-logits-plus-90": {Trip("tolist", "expert_choice.choose_tokens"): 1},
    "moe-capacity-reroute": {COUNTS: 1, Trip("tolist", "capacity.rerouted"): 2},
    "adamw-bfloat16-ordinary": {Trip("int", "ops_fp8.adamw_op"): 1},
}


@pytest.mark.parametrize("name", WAITS)
def test_the_host_waits_where_it_must_and_nowhere_else(name: str) -> None:
    """Nowhere in a gate, a quantiser or a product; once in a layer, however many experts it has."""
    assert trips(name) == WAITS[name]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "take-mode": lambda f: np.take(f, f.astype(np.int64), mode="clip"),
    "max-initial": lambda f: f.max(initial=0),
    "put-axis": lambda f: np.put_along_axis(f, f.astype(np.int64), 1),
    "reduce": np.add.reduce,
    "add-where": lambda f: np.add(f, f, where=True),
    "windows": lambda f: np.lib.stride_tricks.sliding_window_view(f, 2, axis=0),
    "split": lambda f: np.split(f, np.cumsum(f.astype(np.int64))),
    "list": lambda f: np.add(f, [1.0, 2.0, 3.0]),
    "index": lambda f: list(range(3))[f[0, 0].astype(np.int64)],
    "astype-device": lambda f: f.astype(np.int64, device="cpu"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_foreign_refuses_what_cupy_refuses(call: Callable[[Any], Any]) -> None:
    """Functions that it lacks, parameters that it does not take, lists, and device numbers as Python's indices."""
    with pytest.raises(TypeError, match=r"CuPy|unexpected keyword|must be integers|no implementation|missing"):
        call(Foreign(np.ones((3, 3), np.float32)))


WAITING: dict[str, Callable[[Any], Any]] = {
    "int": lambda f: int(f[0]),
    "float": lambda f: float(f[0]),
    "bool": lambda f: not f[0],
    "tolist": lambda f: f.tolist(),
    "str": str,
    "mask": lambda f: f[f > 0],
    "bincount": lambda f: np.bincount(f.astype(np.int64)),
    "flatnonzero": np.flatnonzero,
    "repeat": lambda f: np.repeat(f, f.astype(np.int64)),
}


@pytest.mark.parametrize("by", WAITING)
def test_foreign_notes_every_wait(by: str) -> None:
    """By what; and no place, where it is not the reference that asks."""
    Foreign.trips.clear()
    WAITING[by](Foreign(np.ones(3, np.float32)))
    assert Foreign.trips == [Trip(by, "")]


def test_without_a_gpu_the_adapter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, at its start; and a backend that nobody knows is a mistake of the caller's."""
    with pytest.raises(Usage, match="runs on numpy or cupy"):
        Adapter("cuda")

    class Absent(Exception):  # noqa: N818 - CuPy's error has another name
        """What CuPy raises."""

    def absent(_: int) -> None:
        raise Absent("cudaErrorNoDevice")

    runtime = SimpleNamespace(CUDARuntimeError=Absent, getDeviceProperties=absent)
    library = SimpleNamespace(__version__="14", cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(adapter.importlib, "import_module", lambda _: library)
    with pytest.raises(RuntimeError, match="CuPy 14 finds no GPU here"):
        Adapter("cupy")


def test_kernels_keep_subnormal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the options that CuPy gives its compiler, the one that makes zeros of them is left out."""

    class Compiler:
        """As CuPy's."""

        compile_using_nvrtc = staticmethod(lambda source, options=(), arch=None: (source, options, arch))

    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")
    compiler = Compiler()
    keep_subnormals(compiler)
    assert compiler.compile_using_nvrtc("kernel", ("-I.", "-ftz=true"), "90") == ("kernel", ("-I.",), "90")
