"""The Hopper probes where there is no GPU: questions, hypotheses, files and source; and what real ones gave, if any."""

import ctypes
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moespec_conformance.spec import home

ROOT = Path(__file__).parents[2]
PROBES = ROOT / "bench/hopper"
sys.path.append(str(PROBES))

import campaign  # noqa: E402 - they lie in that folder
import device  # noqa: E402
import probe  # noqa: E402
import toolchain  # noqa: E402
import vectors  # noqa: E402
from findings import POINTS, changed, judged  # noqa: E402
from hypotheses import HOPPER, HYPOTHESES, answer  # noqa: E402
from problems import Problems, modelled, same  # noqa: E402
from questions import designed, questions  # noqa: E402
from vectors import Recorded  # noqa: E402

from moespec.formats import FORMATS, decode, encode  # noqa: E402

JUDGED = [p for p in designed() if not p.free]
RECORDED = sorted(path.parent for path in (home("golden") / "hardware").glob("*/manifest.json"))


@pytest.mark.spec("ACC-3")
@pytest.mark.parametrize("problems", JUDGED, ids=lambda p: p.name)
def test_the_model_answers_what_was_worked_out_by_hand(problems: Problems) -> None:
    """Each question, by moespec.accumulate and by the hypothesis of the same name."""
    assert problems.want is not None
    for d in (modelled(problems), answer(HOPPER, problems)):
        assert [s for s, right in zip(problems.said, same(d, problems.want).ravel(), strict=True) if not right] == []


@pytest.mark.spec("ACC-3")
def test_the_model_and_its_hypothesis_agree_on_random_sums() -> None:
    """Every kind of the campaign."""
    assert [p.name for p in campaign.campaign(1) if not same(modelled(p), answer(HOPPER, p)).all()] == []


def test_questions_are_asked_as_they_are_written() -> None:
    """Each factor is a number of its format, C one of float32, and no question is asked twice."""
    asked = [q for q in questions() if not q.free]
    for q in asked:
        numbers = np.array([[*x] for x in q.factors.values()], np.float32).reshape(-1, 2)
        fmt = FORMATS[q.fmt]
        assert np.array_equal(decode(encode(numbers, fmt, "nan"), fmt), numbers), q.said
        assert np.float32(q.c) == q.c
    told = {(q.fmt, q.K, q.promote, q.c, str(q.factors), str(q.c)) for q in asked}
    assert len(told) == len(asked)
    assert {f"P{i}" for i in range(1, 13)} == {q.said.split()[0] for q in questions()}


def test_each_two_hypotheses_are_told_apart_by_some_question() -> None:
    """And each detail has a hypothesis that changes it."""
    said = {name: np.concatenate([answer(h, p).ravel() for p in JUDGED]) for name, h in HYPOTHESES.items()}
    names = list(said)
    alike = [(x, y) for i, x in enumerate(names) for y in names[i + 1 :] if same(said[x], said[y]).all()]
    assert alike == []
    details = {k for h in HYPOTHESES.values() for k in changed(h)}
    assert details == set(HOPPER._fields)
    assert {detail for point in POINTS for detail in point.details} <= details


@pytest.mark.parametrize("name", ["C added apart, in float32", "subnormal factors normalised"])
def test_a_unit_that_adds_by_a_hypothesis_is_told_to(name: str) -> None:
    """In the GPU's place: that one alone stands, and every point is settled as it has it."""
    asked = probe.ask_all(partial(answer, HYPOTHESES[name]), 1)
    assert sum(g["other"] for g in asked.groups)
    verdict = judged(asked.kept)
    assert verdict.standing == [name]
    for point in verdict.points:
        assert point["settled"]
        assert point["answers"] > 0
        assert all(getattr(HYPOTHESES[name], k) == v for k, v in point["as"].items())


def test_two_details_at_once_are_told_and_a_stranger_settles_nothing() -> None:
    """Two changed together stand as a pair; what no hypothesis gives leaves every point open."""
    asked = [Recorded(p, answer(HOPPER._replace(subnormals="own", c="apart"), p)) for p in designed()]
    assert judged(asked).standing == ["subnormal factors normalised; C added apart, in float32"]
    strange = judged([r._replace(d=r.d + np.float32(1)) for r in asked])
    assert strange.standing == []
    assert not any(point["settled"] for point in strange.points)
    assert "none" in "\n".join(strange.lines())


def test_answers_off_the_model_are_kept_before_others() -> None:
    """The problem and the row that differ are among what is kept."""
    agrees = np.ones((3, 64, 8), np.bool)
    assert campaign.kept("some", agrees)[0] == 0
    agrees[2, 5, 1] = False
    i, rows = campaign.kept("some", agrees)
    assert (i, len(rows), 5 in rows) == (2, campaign.KEPT, True)


def test_a_small_problem_is_found_again_where_it_was_put() -> None:
    """Rows and columns of the instruction's 64 and 8, others each time."""
    p = next(p for p in JUDGED if p.said and len(p.c) > 64)
    a, b, c, rows, columns = device.widened(p)
    for i in range(len(c)):
        assert np.array_equal(a[i, rows[i]], p.a[i])
        assert np.array_equal(b[i, columns[i]], p.b[i])
        assert np.array_equal(c[i, rows[i], columns[i]], p.c[i, :, 0])
        assert np.count_nonzero(a[i]) == np.count_nonzero(p.a[i])
    assert len({(int(r), int(k)) for r, k in zip(rows[:, 0], columns[:, 0], strict=True)}) == 64


def test_wrong_sums_of_whole_numbers_end_it() -> None:
    """Every hypothesis has them right; a row in another's place is seen."""
    for h in (HOPPER, HYPOTHESES["16 products a step, interleaved"]):
        probe.plain(partial(answer, h))
    with pytest.raises(toolchain.FailedError, match="sums of whole numbers are wrong"):
        probe.plain(lambda p: np.roll(answer(HOPPER, p), 1, axis=1))


class Stand:
    """In a device's place: the model, with what a manifest says of one."""

    gpu = device.Gpu(0, "NVIDIA Model 80GB", (9, 0), "13.0", "1.2.3")
    built = {"source": "none"}  # noqa: RUF012 - of a stand-in

    def answer(self, problems: Problems, together: int | None = None) -> Any:
        """What the hypothesis gives; waits are nothing to it."""
        assert together in (None, 32)
        return answer(HOPPER, problems)


@pytest.fixture(scope="module")
def outcome() -> tuple[dict[str, Any], list[Recorded]]:
    """A run's manifest and vectors."""
    stand: Any = Stand()
    asked = probe.ask_all(stand.answer, 1)
    return probe.manifest(stand, asked, judged(asked.kept), 1), asked.kept


@pytest.fixture
def written(tmp_path: Path, outcome: tuple[dict[str, Any], list[Recorded]]) -> Path:
    """A folder as a run writes it, over an older one."""
    told, kept = outcome
    folder = tmp_path / "hardware" / "model"
    vectors.write(folder, {**told, "date": "older"}, kept[:1])
    vectors.write(folder, told, kept)
    return folder


def test_what_is_written_is_read_again_and_small(written: Path, outcome: tuple[Any, list[Recorded]]) -> None:
    """Every bit of every group, under 2 MB; nothing is left of the older one, nor of the work."""
    told, recorded = vectors.read(written)
    assert sorted(path.name for path in written.parent.rglob("*")) == ["manifest.json", "model", "vectors.safetensors"]
    assert sum(path.stat().st_size for path in written.iterdir()) < 2_000_000
    for was, now in zip(outcome[1], recorded, strict=True):
        assert was.problems._replace(want=None)[:3] == now.problems[:3]
        assert was.problems.said == now.problems.said
        for x, y in zip(vectors.content(was).values(), vectors.content(now).values(), strict=True):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
    assert told["standing"] == ["hopper"]
    assert told["model"]["other"] == 0
    assert all(point["settled"] for point in told["points"])
    assert told["waits"] == {"answers": told["waits"]["answers"], "other": 0}
    reproduced(written)


@pytest.mark.parametrize("name", ["manifest.json", "vectors.safetensors"])
def test_a_changed_byte_is_noticed(written: Path, name: str) -> None:
    """Wherever it is; and a file that is not there."""
    whole = (written / name).read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 40):
        (written / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(vectors.DamagedError):
            vectors.read(written)
    (written / name).unlink()
    with pytest.raises(vectors.DamagedError):
        vectors.read(written)


def test_what_cannot_be_written_changes_nothing(written: Path) -> None:
    """Neither what stood there, nor beside it."""
    before = {path: path.read_bytes() for path in written.iterdir()}
    with pytest.raises(TypeError):
        vectors.write(written, {"date": object()}, [])
    assert {path: path.read_bytes() for path in written.iterdir()} == before
    assert list(written.parent.iterdir()) == [written]


def reproduced(folder: Path) -> None:
    """A folder's vectors are what the reference computes, and its verdict follows from them."""
    told, recorded = vectors.read(folder)
    assert [
        r.problems.name for r in recorded if not r.problems.free and not same(modelled(r.problems), r.d).all()
    ] == []
    verdict = judged(recorded)
    assert (verdict.tally, verdict.standing, verdict.points) == (told["hypotheses"], told["standing"], told["points"])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


@pytest.mark.spec("ACC-3")
def test_real_vectors_are_reproduced() -> None:
    """Bit for bit, all that lie in golden/hardware; as long as there are none, its README says so."""
    text = (home("golden") / "hardware/README.md").read_text(encoding="utf-8")
    assert ("no Hopper GPU has been at hand" in text) == (not RECORDED)
    for folder in RECORDED:
        reproduced(folder)


def test_without_a_device_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    """Exit 3, one line; also where there are GPUs, but they are hidden."""
    command = [sys.executable, str(PROBES / "probe.py"), "--out", str(tmp_path / "out")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=hidden, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout == ""
    assert ran.stderr.startswith("no Hopper GPU to ask: ")
    assert ran.stderr.endswith("; nothing was written\n")
    assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("there", "says"),
    [([(8, 9)], "NVIDIA 0 has 8.9"), ([(8, 0), (10, 0)], "NVIDIA 1 has 10.0"), ([], "compute capability 9.0")],
)
def test_other_gpus_are_named(there: list[Any], says: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Exit 3 for whatever is no Hopper."""
    found = [device.Gpu(i, f"NVIDIA {i}", capability, "13.0", "1") for i, capability in enumerate(there)]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    monkeypatch.setattr(device, "gpus", lambda _: iter(found))
    assert probe.main(["--out", "nowhere"]) == 3
    assert says in capsys.readouterr().err


def test_a_hopper_without_nvcc_is_exit_3(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It says where it looked."""
    monkeypatch.setattr(probe, "hopper", lambda: Stand.gpu)
    monkeypatch.setattr(toolchain, "nvcc", lambda: None)
    assert probe.main(["--out", "nowhere"]) == 3
    assert "no nvcc" in capsys.readouterr().err


def test_a_failed_build_is_exit_4(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With what the compiler said."""
    monkeypatch.setattr(probe, "hopper", lambda: Stand.gpu)
    monkeypatch.setattr(toolchain, "nvcc", lambda: "false")
    assert probe.main(["--out", "nowhere"]) == 4
    assert "exit 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source, compiled for sm_90a; skipped where CUDA's compiler is not."""
    if toolchain.nvcc() is None:
        pytest.skip("no nvcc: that the CUDA source compiles is NOT checked here")
    return toolchain.build(tmp_path_factory.mktemp("wgmma"))


def test_the_machine_code_has_the_instruction(library: Path) -> None:
    """Of both formats, 1 + 2 + 4 + 8 of them, promoted and not: no more and no fewer."""
    if toolchain.cuobjdump() is None:
        pytest.skip("no cuobjdump: that the machine code has QGMMA is NOT checked here")
    assert toolchain.instructions(library) == {"E4M3.E4M3": 30, "E5M2.E5M2": 30}


@pytest.mark.parametrize("rows", [64, 8])
def test_matrices_lie_where_their_descriptor_says(library: Path, rows: int) -> None:
    """By PTX: core matrices of 8 rows x 16 bytes, an offset to the next 16 bytes, another to the next 8 rows."""
    built, base, K = device.opened(library), 4096, 96
    places = [[built.wgmma_place(r, k, rows) for k in range(K)] for r in range(rows)]
    assert sorted(np.ravel(places)) == list(range(rows * K))
    for step in range(0, K, 32):
        told = built.wgmma_descriptor(base + built.wgmma_place(0, step, rows), rows)
        begin, leading, stride = ((told >> at & 0x3FFF) << 4 for at in (0, 16, 32))
        assert told >> 46 == 0  # no swizzle, no base offset
        for r in range(rows):
            for k in range(32):
                read = begin + k // 16 * leading + r // 8 * stride + r % 8 * 16 + k % 16
                assert read == base + places[r][step + k]


def test_outputs_are_told_to_threads_as_ptx_says(library: Path) -> None:
    """Each of 64 x 8 once; warp w has rows 16 w and on, a thread two neighbours of a row and of the row 8 below."""
    built = device.opened(library)
    where = np.array([[built.wgmma_output(thread, i) for i in range(4)] for thread in range(128)])
    assert sorted(where.ravel()) == list(range(512))
    rows, columns = np.divmod(where, 8)
    threads = np.arange(128)
    assert np.array_equal(rows[:, 0], threads // 32 * 16 + threads % 32 // 4)
    assert np.array_equal(columns[:, 0], threads % 4 * 2)
    assert np.array_equal(where - where[:, :1], np.tile([0, 1, 64, 65], (128, 1)))


def test_what_the_library_refuses_it_says(library: Path) -> None:
    """A CUDA call's failure, or a shape that has no kernel, in words."""
    built = device.opened(library)
    assert built.wgmma_run(0, 0, 48, 1, 96, None, None, None, None) == 1
    assert b"no kernel for 1 problems of K 96 in stretches of 48" in built.wgmma_said()
    assert built.wgmma_use(99) == 1
    assert built.wgmma_said().startswith(b"cudaSetDevice(device): cudaError")


def test_the_folder_is_described_as_it_is(written: Path) -> None:
    """Every entry of the manifest is a word of the README."""
    text = (home("golden") / "hardware/README.md").read_text(encoding="utf-8")
    told = json.loads((written / "manifest.json").read_text())
    assert [key for key in told if f"`{key}`" not in text and key not in ("format", "groups")] == []
