"""The same layer over real processes: `pytest -m mpi`, with the extra `mpi`, whose `mpich` brings mpiexec."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_count import BASE_V3

pytestmark = pytest.mark.mpi
FOLDER = Path(__file__).parent


def by_mpi(ranks: int, *arguments: str) -> str:
    """What Python prints with these arguments, a rank a process."""
    beside = Path(sys.executable).parent
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    assert mpiexec, "no mpiexec: pip install '.[mpi]'"
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py", *arguments]
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, env=one_thread, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.spec("RNK-4")
@pytest.mark.spec("RNK-6")
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_equal_one_rank(ranks: int) -> None:
    """Forward and backward; an empty rank, all tokens on one rank, all experts' work on one rank."""
    assert by_mpi(ranks, str(FOLDER / "ranked.py")) == f"{ranks} ranks, {ranks * 9 * 25} arrays the same"


@pytest.mark.spec("MFP-2")
@pytest.mark.spec("RNK-6")
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_stream_what_one_holds(ranks: int) -> None:
    """Outputs, gradients of 7 experts with rows, and on every rank the shared expert's: every bit of moe_fp8's."""
    compared = 3 * (4 * ranks + 7 + ranks)
    assert by_mpi(ranks, str(FOLDER / "ranked_streamed.py")) == f"{ranks} ranks, {compared} results the same"


def test_the_layer_command_is_one_job_on_all_ranks(tmp_path: Path) -> None:
    """`moespec layer` under mpiexec: one report, a part for each rank, and the checksums of a single process."""
    model = tmp_path / "config.json"
    sizes = {"hidden_size": 160, "moe_intermediate_size": 144, "n_routed_experts": 16}
    model.write_text(json.dumps({**BASE_V3, **sizes}), encoding="utf-8")
    start = "from moespec_conformance.cli import main; main()"
    made = {}
    for ranks in (1, 2):
        path = tmp_path / f"{ranks}.json"
        options = "--preset", str(model), "--tokens", "48", "--backward", "--json", str(path)
        told = by_mpi(ranks, "-c", start, "layer", *options)
        assert told.count("peak") == ranks
        made[ranks] = json.loads(path.read_text(encoding="utf-8"))
    assert [len(one["ranks"]) for one in made.values()] == [1, 2]
    assert made[1]["checksums"] == made[2]["checksums"]
