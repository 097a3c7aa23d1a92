"""Third-party quantisers and casts, as released, on a CPU: `pytest -m peers`, with the extra `peers` installed."""

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from moespec_conformance import adapters, check
from moespec_conformance.address import load
from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.expectations import apply, read, stale
from moespec_conformance.fingerprint import told
from moespec_conformance.runner import Child

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]  # the packages' own warnings are theirs
HERE = Path(adapters.__file__).parent
ROW = re.compile(r"\| `([\w.-]+)` \|[^|]*\|[^|]*\| (\d+) \| (\d+) \| (\d+) \|")
SMALL = (HERE / "README.md").read_text("utf-8").partition("\n## FP8")[2]
TABLE = {row[1]: tuple(map(int, row.groups()[1:])) for row in ROW.finditer(SMALL)}
E4M3 = ml_dtypes.float8_e4m3fn
REASONS = re.compile(
    r"no method|takes no c|is always|formats are|is no multiple|has elements|one scale a row|dequantised are MX"
)


@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_is_the_one_in_the_readme(name: str) -> None:
    """Passed, failed and not offered as the table says; each failure known by its reason, and none of them gone."""
    file = HERE / "known_failures" / f"{name}.txt"
    known = read(file) if file.exists() else []
    report = check(load(name))
    results = [apply(result, known) for result in report.results]
    assert [(r.case, r.status, r.message) for r in results if r.status not in ("pass", "xfail", "not_supported")] == []
    assert stale(known, results) == []
    counts = report.counts
    assert (counts["pass"], counts["fail"] + counts["error"], counts["not_supported"]) == TABLE[name]
    reasons = {r.message for r in results if r.status == "not_supported"}
    assert all(REASONS.search(reason) for reason in reasons), reasons


def quantized(name: str, recipe: str, *x: float, **changed: Any) -> tuple[Any, list[float]]:
    """One block, quantised: its scale, and what its codes stand for."""
    said = {"recipe": recipe, "format": "e4m3", "block": [1, len(x)], "scale_format": "float32", **changed}
    out = load(name).quantize(fp8_config("deepseek-v3", **said), x=np.array([x], np.float32))
    return float(out["scale"][0, 0]), out["codes"].view(E4M3).astype(np.float32)[0].tolist()


def dequantized(rows: int, columns: int) -> Any:
    """Ones in blocks of 128x128 whose scales are 1, 2, 3, …, by transformers."""
    grid = -(-rows // 128), -(-columns // 128)
    scale = np.arange(1, 1 + grid[0] * grid[1], dtype=np.float32).reshape(grid)
    codes = np.ones((rows, columns), E4M3)
    return load("transformers-fp8").dequantize(fp8_config(block=[128, 128]), codes=codes, scale=scale)["x"]


def test_transformers_reads_blocks_off_the_grid() -> None:
    """130 rows in two blocks are not 65 and 65; 576 rows in five blocks are DeepSeek-V3's."""
    assert dequantized(130, 128)[[0, 64, 65, 127, 128], 0].tolist() == [1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="not divisible"):
        dequantized(576, 7168)


def test_transformers_quantises_odd_blocks_as_the_readme_says() -> None:
    """NaN, infinity, small numbers, zeros, and a scale that is one too small."""
    one, codes = quantized("transformers-fp8", "deepseek-v3", np.nan, np.inf)
    assert (one, codes[1]) == (1, 448)
    assert quantized("transformers-fp8", "deepseek-v3", np.nan, 1000)[1][1] == 448
    assert quantized("transformers-fp8", "deepseek-v3", 1e-6, 0)[0] == pytest.approx(1e-6 / 448)
    assert quantized("transformers-fp8", "deepseek-v3", 0, 0) == (1, [0, 0])
    above = float(np.nextafter(np.float32(448 * 2.0**-13), np.float32(1)))
    assert quantized("transformers-fp8", "deepseek-v3", above, 0, scale_format="ue8m0")[0] == 2.0**-13


def test_compressed_tensors_has_no_floor() -> None:
    """But for zeros."""
    assert quantized("compressed-tensors", "deepseek-v3", 1e-6, 0)[0] == pytest.approx(1e-6 / 448)
    assert quantized("compressed-tensors", "deepseek-v3", 0, 0)[0] == 2.0**-23


def test_torchao_at_the_ends_of_its_scales() -> None:
    """Half of it, or nothing, below; a finite scale for infinity, above; one too small in between."""
    zeros = [0.0] * 31
    for recipe, back, scale in (("mx-floor", 2.0**-121, 2.0**120), ("mx-rceil", 0, 2.0**127)):
        said = {"block": [1, 32], "scale_format": "ue8m0"}
        least, codes = quantized("torchao", recipe, 2.0**-120, *zeros, **said)
        assert (least, codes[0] * least) == (2.0**-127, back)
        assert quantized("torchao", recipe, np.inf, 1, *zeros[1:], **said) == (scale, [448, 0, *zeros[1:]])
    above = float(np.nextafter(np.float32(448 * 2.0**-13), np.float32(1)))
    assert quantized("torchao", "mx-rceil", above, *zeros, **said)[0] == 2.0**-13
    assert quantized("torchao", "torchao", np.inf, 1)[0] == np.inf
    with pytest.raises(RuntimeError, match="0 elements"):
        load("torchao").quantize(fp8_config(recipe="torchao"), x=np.zeros((0, 256), np.float32))


def test_tritons_interpreter_is_no_oracle() -> None:
    """Carry, ties, NaN, and what is too large."""
    x = np.array([[1.97, 1.0625, np.nan, 1e30]], np.float32)
    codes = load("triton-interpreter").cast(fp8_config(format="e4m3"), x=x)["codes"]
    assert codes.view(E4M3).astype(np.float32)[0].tolist() == [1, 1.125, 384, 416]


def test_torch_has_one_way_beyond_the_largest_number() -> None:
    """E4M3 saturates, E5M2 does not."""
    x = np.array([[1e6, np.inf]], np.float32)
    codes = {fmt: load("torch").cast(fp8_config(format=fmt, overflow=way), x=x)["codes"] for fmt, way in WAYS.items()}
    assert codes["e4m3"].tolist() == [[0x7E, 0x7E]]
    assert codes["e5m2"].tolist() == [[0x7C, 0x7C]]


WAYS = {"e4m3": "saturate", "e5m2": "nan"}


def test_torchs_product_is_float32_throughout() -> None:
    """In whatever order its library adds."""
    child = Child("torch")
    try:
        found = told(child, "float32", 0)
    finally:
        child.close()
    assert found.accumulate in ("float32", None)
    assert "float32" in found.says
