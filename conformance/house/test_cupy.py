"""The reference on a GPU, by CuPy itself: `pytest -m gpu`, with the extra `cupy`; what needs no GPU: `-m peers`."""

from typing import Any

import numpy as np
import pytest
from cupy_list import line

from moespec import ops
from moespec_conformance.adapters import on_device
from moespec_conformance.adapters.on_device import Device, computed, keep_subnormals
from moespec_conformance.cases import all_cases
from moespec_conformance.readings.cupy_has import members, signature


@pytest.fixture(scope="module")
def gpu() -> Device:
    """The device, or the sentence that says why there is none."""
    try:
        return on_device.cupy()
    except RuntimeError as error:
        pytest.skip(str(error))


EXACT = [
    name
    for name, case in all_cases().items()
    if case.kind == "exact" and case.arithmetic == "float32" and case.manner == "plain"
]


@pytest.mark.gpu
@pytest.mark.parametrize("name", EXACT)
def test_where_clauses_say_exact_the_bits_are_numpys(name: str, gpu: Device) -> None:
    """Codes, scales, routing, layouts, exact sums; products whose every order gives the same bits."""
    case = all_cases()[name]
    with np.errstate(over="ignore"):
        want = ops.run(case.op, case.cfg, **case.inputs)
    for out, array in computed(gpu, case.op, dict(case.config), **case.inputs).items():
        assert (array.dtype, array.shape) == (want[out].dtype, want[out].shape), out
        assert np.array_equal(nan_apart(array), nan_apart(want[out])), out


def nan_apart(array: Any) -> Any:
    """Bits, but one for every NaN, and one for both zeros of what is no code."""
    if array.dtype.isbuiltin != 1 or array.dtype.kind != "f":
        return array.view(f"u{array.dtype.itemsize}")
    return np.where(np.isnan(array), np.inf, array + 0)


@pytest.mark.gpu
def test_subnormal_numbers_are_kept(gpu: Device) -> None:
    """Kernels read and write them: the least float32, times 1, and out of one twice as large."""
    least = gpu.send(np.full(3, 2.0**-149, np.float32))
    for made in (least * np.float32(1), least * np.float32(2) / np.float32(2), np.maximum(least, 0)):
        assert (gpu.fetch(made) == np.float32(2.0**-149)).all()


@pytest.mark.peers
def test_the_list_of_what_cupy_has_holds_against_cupy() -> None:
    """Every name, and every parameter of it; this needs no GPU."""
    cupy = pytest.importorskip("cupy", reason="the list is held against an installed CuPy")
    for name, takes in members().items():
        said = line(cupy, name)
        assert said.startswith(name)
        if takes is not None:
            there = signature(said.removeprefix(name)).parameters
            assert set(takes.parameters) <= set(there), f"{said} lacks some of {name}{takes}"


@pytest.mark.peers
def test_cupys_compiler_is_where_the_adapter_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's own way to its compiler ends in a function that no longer gets -ftz=true; this needs no GPU."""
    pytest.importorskip("cupy", reason="its compiler's options are looked at")
    from cupy.cuda import compiler  # noqa: PLC0415 - the extra `cupy`

    seen = list[tuple[str, ...]]()

    def compile_(_: str, options: tuple[str, ...], *__: Any) -> None:
        seen.append(options)
        raise InterruptedError

    for name in ("_compile_using_nvrtc_no_warning", "compile_using_nvrtc"):
        monkeypatch.setattr(compiler, name, compile_, raising=False)
    monkeypatch.setattr(compiler, "_get_nvrtc_version", lambda: (12, 9))
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda _: ("90",))
    monkeypatch.setattr(compiler, "_preprocess", lambda *_: "")
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    keep_subnormals(compiler)
    with pytest.raises(InterruptedError):
        compiler._compile_with_cache_cuda("kernel", ("-I.",), "90", cache_in_memory=True, to_ltoir=True)  # noqa: SLF001 - its way
    assert seen == [("-I.", "-dlto")]
