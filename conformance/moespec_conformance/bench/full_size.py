"""The command `moespec layer`: one MoE layer in FP8 at its full size, on a machine that cannot hold it."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moespec.config import MoEConfig
from moespec.ranks import Communicator, in_process
from moespec_conformance.address import Usage
from moespec_conformance.bench import checkpoint as stored
from moespec_conformance.bench import generated, store
from moespec_conformance.bench.full_size_report import Best, Told, lines, report
from moespec_conformance.bench.machine import peak_bytes, read_rate
from moespec_conformance.bench.rates import rates
from moespec_conformance.bench.streaming import Job, Step, run, share_of, steps
from moespec_conformance.bench.timing import one_thread
from moespec_conformance.communicator import world
from moespec_conformance.counting import model_of

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
STARTED_BY_MPI = "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"
# what an expert takes whatever its rows, and what each row takes, in units of a row forward (exact sums, measured)
WORK = {False: (60.0, 1.0), True: (320.0, 3.5)}


def layer(  # noqa: PLR0913, PLR0917 - one parameter an option
    preset: Annotated[str, typer.Option(help="A preset's name, or a config.json.")] = "deepseek-v3",
    tokens: Annotated[int, typer.Option(min=1, help="How many, on all ranks together.")] = 256,
    backward: Annotated[bool, typer.Option("--backward", help="Backward as well.")] = False,  # noqa: FBT002
    accumulate: Annotated[str, typer.Option(help="How products are added (SPEC: CFG-19).")] = "exact",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Read experts and router here: a folder or a file of safetensors.")
    ] = None,
    layer: Annotated[int, typer.Option(min=0, help="Which layer of the checkpoint.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write all figures into this file as well.")] = None,
    mpi: Annotated[bool, typer.Option("--mpi", help="A rank a process; under mpiexec of itself.")] = False,  # noqa: FBT002
) -> None:
    """Run one MoE layer in FP8, its experts one at a time, and say what it took: time, memory, and the floor of both.

    Without --checkpoint the experts come from a generator that counts. One BLAS thread. Exit 0, whatever the figures.
    """
    one_thread()
    cfg = config_of(preset, accumulate)
    comm = ranks(cfg) if mpi or any(name in os.environ for name in STARTED_BY_MPI) else in_process(1)
    with together(comm):
        job = job_of(cfg, tokens, checkpoint, layer, backward=backward)
        share = share_of(job, comm)
        plan = steps(job, share, comm)
        with watched(plan, shows=comm.ranks[0] == 0) as done:
            outcome = run(job, share, comm, done)
        told = gathered(Told(outcome, plan, peak_bytes()), comm)
        if comm.ranks[0] == 0:
            made = report(job, told, Best(read_rate(), rates()), source=str(checkpoint or "generator"))
            out.print("\n".join(lines(made)), markup=False)
            if json:
                store.keep(json, {**store.about(), **made})


def config_of(preset: str, accumulate: str) -> MoEConfig:
    """The layer of a model, with another way to add; its experts must be E4M3."""
    try:
        cfg = replace(model_of(preset).moe, accumulate=accumulate)
    except ValueError as error:
        raise Usage(str(error)) from error
    if cfg.b_format != "e4m3" or cfg.a_block[0] != 1 or cfg.hash_routing:
        raise Usage(
            f"{preset}: only layers whose experts are E4M3 and whose router needs no table can be streamed here"
        )
    return cfg


def ranks(cfg: MoEConfig) -> Communicator:
    """All processes of this job, each with as many experts."""
    try:
        comm = world()
    except ImportError as error:
        raise Usage(f"ranks need the extra `mpi` (pip install 'moespec[mpi]'): {error}") from error
    if cfg.n_routed_experts % comm.size:
        raise Usage(f"{cfg.n_routed_experts} experts cannot be owned by {comm.size} ranks in equal shares")
    return comm


@contextmanager
def together(comm: Communicator) -> Generator[None]:
    """The caller's mistakes as such; a rank that fails ends the others, which would wait for it for ever."""
    try:
        yield
    except ValueError as error:
        raise Usage(str(error)) from error
    except BaseException:
        if comm.size > 1:
            err.print_exception()
            import_module("mpi4py.MPI").COMM_WORLD.Abort(1)
        raise


def job_of(cfg: MoEConfig, tokens: int, checkpoint: Path | None, layer: int, *, backward: bool) -> Job:
    """Experts and router from where they are."""
    if checkpoint is None:
        return Job(cfg, generated.experts(cfg), *generated.router(cfg), tokens, backward)
    if not checkpoint.exists():
        raise Usage(f"no file or folder {checkpoint}")
    router = stored.router(checkpoint, layer, cfg)
    return Job(cfg, stored.experts(checkpoint, layer, cfg), *router, tokens, backward)


def work(step: Step) -> float:
    """What an expert takes: its weights are brought and decoded once, and meet each row."""
    every, each = WORK[step.backward]
    return every + each * step.rows


@contextmanager
def watched(plan: list[Step], *, shows: bool) -> Generator[Callable[[int], None]]:
    """A bar on a terminal: what is left is told from the work of the experts to come, not from their number."""
    columns = BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), *columns, console=err, transient=True, disable=not shows) as bar:
        task = bar.add_task("experts", total=sum(map(work, plan)))

        def done(steps: int) -> None:
            bar.update(task, completed=sum(map(work, plan[:steps])), description=f"expert {steps + 1} of {len(plan)}")

        yield done


def gathered(told: Told, comm: Communicator) -> list[Told]:
    """What all ranks have to tell, on each."""
    (all_told,) = comm.alltoall([[told] * comm.size])
    return all_told
