"""`moespec layer` at small sizes: where its experts come from, what is refused, and that ranks are told as one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_moe_fp8 import config_of

from moespec import MoEConfig, streamed
from moespec.ranks import in_process
from moespec_conformance.bench import checkpoint, generated
from moespec_conformance.bench.full_size import WORK, work
from moespec_conformance.bench.full_size_report import Best, Told, lines, report
from moespec_conformance.bench.machine import peak_bytes
from moespec_conformance.bench.rates import Rates
from moespec_conformance.bench.streaming import Job, Step, run, share_of, steps
from moespec_conformance.cli import main
from moespec_conformance.tensors import write

LAYER = 3
PREFIX = f"model.layers.{LAYER}.mlp."
MADE = ("gate_proj", "up_proj", "down_proj")


def small(**changed: Any) -> MoEConfig:
    """A layer whose matrices have ragged blocks."""
    return config_of(**{"hidden_size": 160, "moe_intermediate_size": 144, "n_shared_experts": 2, **changed})


def held(cfg: MoEConfig) -> dict[str, Any]:
    """The generator's layer as a checkpoint holds it."""
    weight, bias = generated.router(cfg)
    tensors: dict[str, Any] = {f"{PREFIX}gate.weight": weight, f"{PREFIX}gate.e_score_correction_bias": bias}
    for e in range(cfg.n_routed_experts + 1):
        name = f"experts.{e}" if e < cfg.n_routed_experts else "shared_experts"
        for matrix, operand in zip(MADE, generated.expert(cfg, e), strict=True):
            assert operand is not None
            tensors[f"{PREFIX}{name}.{matrix}.weight"] = operand.matrix.codes.view(ml_dtypes.float8_e4m3fn)
            tensors[f"{PREFIX}{name}.{matrix}.weight_scale_inv"] = operand.matrix.scale
    return tensors


def split(folder: Path, tensors: dict[str, Any], files: int) -> Path:
    """Several files and their index, codes and scales apart; other layers in a file that is not there."""
    listed = {name: f"part-{i % files}.safetensors" for i, name in enumerate(tensors)}
    for file in set(listed.values()):
        write(folder / file, {name: tensors[name] for name, where in listed.items() if where == file})
    listed |= {"model.layers.4.mlp.gate.weight": "part-9.safetensors"}
    (folder / checkpoint.INDEX).write_text(json.dumps({"weight_map": listed}))
    return folder


def run_on(cfg: MoEConfig, experts: streamed.Experts, *, tokens: int = 40) -> Any:
    """The layer on these experts, both ways."""
    comm, seen = in_process(1), list[int]()
    job = Job(cfg, experts, *generated.router(cfg), tokens, backward=True)
    share = share_of(job, comm)
    plan = steps(job, share, comm)
    outcome = run(job, share, comm, seen.append)
    assert seen == list(range(len(plan))), "each expert of the plan is asked for once, in turn"
    return job, Told(outcome, plan, peak_bytes())


@pytest.mark.parametrize("files", [1, 3])
def test_a_checkpoint_gives_what_its_arrays_give(files: int, tmp_path: Path) -> None:
    """Outputs, gradients and router, from one file or several; a file of its own too."""
    cfg = small()
    tensors = held(cfg)
    folder = split(tmp_path, tensors, files)
    _, want = run_on(cfg, generated.experts(cfg))
    _, got = run_on(cfg, checkpoint.experts(folder, LAYER, cfg))
    assert got.outcome[3:] == want.outcome[3:]
    assert all(map(np.array_equal, checkpoint.router(folder, LAYER, cfg), generated.router(cfg)))
    if files == 1:
        (folder / checkpoint.INDEX).unlink()
        (folder / "part-0.safetensors").rename(folder / checkpoint.SINGLE)
        for place in (folder, folder / checkpoint.SINGLE):
            first = checkpoint.experts(place, LAYER, cfg)(0).up_proj.matrix
            assert np.array_equal(first.codes, generated.expert(cfg, 0).up_proj.matrix.codes)


E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
NAME = f"{PREFIX}experts.0.up_proj.weight"
BAD: dict[str, tuple[Any, str]] = {
    "no codes": ({NAME: None}, rf"the checkpoint has no {NAME}"),
    "no scale": ({f"{NAME}_scale_inv": None}, rf"the checkpoint has no {NAME}_scale_inv"),
    "another shape": (
        {NAME: np.zeros((144, 128), E4M3)},
        r"has shape \[144, 128\], not \[144, 160\]",
    ),
    "another dtype": ({NAME: np.zeros((144, 160), E5M2)}, r"is F8_E5M2, not F8_E4M3"),
    "a scale a tensor": ({f"{NAME}_scale_inv": np.ones((1, 1), np.float32)}, r"has shape \[1, 1\], not \[2, 2\]"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_tensor_that_does_not_fit_is_refused(what: str, tmp_path: Path) -> None:
    """By name, when its expert is asked for."""
    cfg, (changed, message) = small(), BAD[what]
    tensors = {name: array for name, array in (held(cfg) | changed).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        checkpoint.experts(split(tmp_path, tensors, 2), LAYER, cfg)(0)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Cut off, no safetensors, no JSON; an index that points elsewhere, or nowhere."""
    cfg, path = small(), tmp_path / "one.safetensors"
    write(path, held(cfg))
    whole = path.read_bytes()
    for rest, message in (
        (whole[:-1], "it was cut off"),
        (whole[:100], "cannot be read as safetensors"),
        (whole[:5], "cannot be read as safetensors"),
        (b"\xff" * 64, "cannot be read as safetensors"),
        (whole.replace(b"data_offsets", b"data_offsetz"), "cannot be read as safetensors"),
        (whole.replace(b'"shape":[144,160]', b'"shape":[144,161]', 1), r"of F8_E4M3 \[144, 161\] has 23040 bytes"),
    ):
        path.write_bytes(rest)
        with pytest.raises(ValueError, match=f"^one.safetensors: .*{message}"):
            checkpoint.experts(path, LAYER, cfg)
    for told in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../a.safetensors"}}'):
        (tmp_path / checkpoint.INDEX).write_text(told)
        with pytest.raises(ValueError, match=f"^{checkpoint.INDEX}: "):
            checkpoint.experts(tmp_path, LAYER, cfg)
    (tmp_path / checkpoint.INDEX).write_text(json.dumps({"weight_map": {NAME: "gone.safetensors"}}))
    with pytest.raises(ValueError, match=r"^gone.safetensors: .*No such file"):
        checkpoint.experts(tmp_path, LAYER, cfg)


def test_generated_experts_are_numbers_and_differ() -> None:
    """No NaN, every code that is a number's with bit 0 clear, and the same again; others for another expert."""
    cfg = small(hidden_size=256, moe_intermediate_size=1024)
    first, again, other = (generated.expert(cfg, e).up_proj.matrix for e in (0, 0, 1))
    assert np.array_equal(first.codes, again.codes)
    assert (first.codes == other.codes).mean() < 0.01
    assert (first.codes == generated.expert(cfg, 0).down_proj.matrix.codes.reshape(first.codes.shape)).mean() < 0.01
    assert np.array_equal(np.unique(first.codes), np.arange(0, 256, 2))
    assert first.scale.shape == (8, 2)
    assert len(np.unique(first.scale)) == 16


def test_figures_are_those_of_the_layer() -> None:
    """Experts hit, largest share, floor; a rank's own beside all ranks' checksums."""
    cfg = small()
    job, told = run_on(cfg, generated.experts(cfg))
    assert told.plan[0].rows <= 40
    assert sum(step.rows for step in told.plan if not step.backward) == 40 * (cfg.num_experts_per_tok + 1)
    best = Best(1e9, Rates(4e9, 2e9, 1e9))
    made = report(job, [told], best, "generator")
    (one,) = made["ranks"]
    weights = 3 * 160 * 144
    assert one["floor"]["flops"] == 2 * weights * 3 * 40 * (cfg.num_experts_per_tok + 2)
    hit = one["experts_hit"]
    assert one["floor"]["bytes"] == 2 * (hit * (weights + 4 * 12) + 2 * weights + 4 * (2 * 3 * 2 + 2 * 3))
    assert set(made["checksums"]) == {"y", "dx", "dtopk_weight", "gradients"}
    assert any(line.startswith("goal 512 MiB") for line in lines(made))
    assert len(lines(report(job, [told, told], best, "generator"))) == len(lines(made)) + 6


def test_what_is_left_is_told_by_rows() -> None:
    """The shared expert, which has all tokens, is many experts' work."""
    every, each = WORK[False]
    assert work(Step(0, 8, backward=False)) == every + 8 * each
    assert work(Step(256, 4096, backward=False)) > 30 * work(Step(0, 8, backward=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "none"], "no preset 'none'"),
        (["--accumulate", "fast"], "CFG-19"),
        (["--checkpoint", "nowhere"], "no file or folder nowhere"),
        (["--tokens", "0"], "Invalid value for '--tokens'"),
    ],
)
def test_options_that_cannot_be_followed_end_with_2(arguments: list[str], message: str, capsys: Any) -> None:
    """And say why."""
    with pytest.raises(SystemExit) as ended:
        main(["layer", *arguments])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_writes_what_it_says(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """A small layer under a preset's name, from a checkpoint, both ways."""
    cfg = replace(small(), accumulate="exact")
    monkeypatch.setattr("moespec_conformance.bench.full_size.config_of", lambda *_: cfg)
    monkeypatch.setattr("moespec_conformance.bench.full_size.rates", lambda: Rates(4e9, 2e9, 1e9))
    folder, kept = split(tmp_path, held(cfg), 2), tmp_path / "layer.json"
    with pytest.raises(SystemExit) as ended:
        main(["layer", "--tokens", "9", "--backward", "--checkpoint", str(folder), "--json", str(kept)])
    assert not ended.value.code
    assert "9 tokens, forward and backward, accumulate exact" in capsys.readouterr().out
    assert json.loads(kept.read_text())["tokens"] == 9
