"""One layer whose experts come one at a time, forward and perhaps backward, in one process or on one of many ranks."""

import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.dispatch import count_rows
from moespec.expert import ExpertWeights
from moespec.gate import gate_backward, gate_forward, gate_given
from moespec.moe_ranks import Tokens
from moespec.ranks import Communicator, everywhere
from moespec.streamed import Experts, Take, layer_backward, layer_forward
from moespec.streamed_ranks import layer_ranks_backward, layer_ranks_forward

TOGETHER = 16  # tokens that are routed at a time, so that no bit of their weights depends on the number of ranks


class Job(NamedTuple):
    """What is to be run: the layer, where its experts come from, and how many tokens all ranks have."""

    cfg: MoEConfig
    experts: Experts
    gate_weight: Float  # (E, H)
    bias: Float  # (E,)
    tokens: int
    backward: bool


class Share(NamedTuple):
    """One rank's tokens, and where they go."""

    x: Float  # (T, H)
    dy: Float  # (T, H)
    topk_idx: Int  # (T, K)
    topk_weight: Float  # (T, K)


class Step(NamedTuple):
    """An expert that a rank asks for, how many rows it has for it, and in which direction."""

    e: int
    rows: int
    backward: bool


class Outcome(NamedTuple):
    """What a rank has to tell: seconds, bytes of its tokens' arrays, and what shows whether results are the same."""

    cpu: float
    wall: float
    token_bytes: int
    size_of_y: float
    sums: dict[str, list[int]]  # by name of an output: each token's checksum
    squares: dict[int, float]  # by expert: the sum of the squares of all its gradients


def drawn(tokens: range, width: int, seed: int) -> Float:
    """Gaussian tokens (T, H), each by its number alone."""
    x = np.empty((len(tokens), width), np.float32)
    for row, t in zip(x, tokens, strict=True):
        np.random.default_rng((seed, t)).standard_normal(out=row, dtype=np.float32)
    return x


def share_of(job: Job, comm: Communicator) -> Share:
    """The tokens of this process's one rank: consecutive ones, as many as the others have or one more."""
    (rank,), h = comm.ranks, job.cfg.hidden_size
    mine = range(job.tokens * rank // comm.size, job.tokens * (rank + 1) // comm.size)
    x, dy = drawn(mine, h, 0), drawn(mine if job.backward else range(0), h, 1)
    cuts = range(0, max(len(mine), 1), TOGETHER)
    routed = [gate_forward(x[i : i + TOGETHER], job.gate_weight, job.bias, job.cfg)[:2] for i in cuts]
    return Share(x, dy, *(np.concatenate(each) for each in zip(*routed, strict=True)))


def steps(job: Job, share: Share, comm: Communicator) -> list[Step]:
    """What this rank will do, in order: routed experts and the shared one (E); backward the shared one first."""
    (rank,), e = comm.ranks, job.cfg.n_routed_experts
    (ids,) = everywhere([share.topk_idx], comm)
    count, owned = count_rows(ids, e).tolist(), range(rank * e // comm.size, (rank + 1) * e // comm.size)
    shared = [e] * min(job.cfg.n_shared_experts, 1)
    forward = [Step(i, count[i], backward=False) for i in owned if count[i]]
    back = [Step(i, job.tokens, backward=True) for i in shared] + [step._replace(backward=True) for step in forward]
    return forward + [Step(i, share.x.shape[0], backward=False) for i in shared] + (back if job.backward else [])


def counted(experts: Experts, done: Callable[[int], None]) -> Experts:
    """The same experts; each time that one is asked for, what was asked for before is done."""
    asked = iter(range(1 << 62))

    def expert(e: int) -> Any:  # noqa: ANN401 - as experts
        done(next(asked))
        return experts(e)

    return expert


def forward(job: Job, share: Share, comm: Communicator, experts: Experts) -> tuple[Float, Any]:
    """y (T, H) of this rank, and what the backward needs."""
    x, _, topk_idx, topk_weight = share
    if comm.size == 1:
        return layer_forward(x, topk_idx, topk_weight, experts, job.cfg)
    (y,), cache = layer_ranks_forward(Tokens([x], [topk_idx], [topk_weight]), experts, job.cfg, comm)
    return y, cache


def backward(job: Job, share: Share, comm: Communicator, cache: Any, both: tuple[Experts, Take]) -> list[Float]:  # noqa: ANN401
    """Gradients of this rank's x through routed and shared experts, and of its topk_weight."""
    if comm.size == 1:
        return list(layer_backward(share.dy, cache, *both, job.cfg))
    return [one for (one,) in layer_ranks_backward([share.dy], cache, *both, job.cfg)]


def through_gate(job: Job, share: Share, comm: Communicator, dtopk_weight: Float) -> Float:
    """RNK-6: the gradient of this rank's x (T, H) through the router, which meets the tokens of all."""
    told = (share.x, share.topk_idx, dtopk_weight, np.full(share.x.shape[0], comm.ranks[0]))
    x, ids, dweight, rank_of = (everywhere([a], comm)[0] for a in told)
    _, gate = gate_given(x, job.gate_weight, ids, job.cfg)
    dx: Float = gate_backward(dweight, gate, job.cfg)[0][rank_of == comm.ranks[0]]
    return dx


def checksums(x: Float) -> list[int]:
    """One of each row."""
    return [zlib.crc32(row.tobytes()) for row in x]


def square(squares: dict[int, float], e: int, dweights: ExpertWeights) -> None:
    """Take an expert's gradients: what is kept is one number."""
    squares[e] = sum(float(np.vdot(dw, dw)) for dw in dweights)


def run(job: Job, share: Share, comm: Communicator, done: Callable[[int], None]) -> Outcome:
    """The layer's part of this rank; `done` is told how many experts are behind it."""
    experts, squares = counted(job.experts, done), dict[int, float]()
    start, wall = time.process_time(), time.perf_counter()
    y, cache = forward(job, share, comm, experts)
    sums, size = {"y": checksums(y)}, float(np.sqrt(np.vdot(y, y) / max(y.size, 1)))
    held = share.x.nbytes + y.nbytes + share.x.size  # x, y, and x's codes
    if job.backward:
        del y
        dx, dx_shared, dtopk_weight = backward(job, share, comm, cache, (experts, partial(square, squares)))
        held += 2 * share.dy.nbytes  # dy, and x's two gradients, of which one stands where y was
        dx_gate = through_gate(job, share, comm, dtopk_weight)
        sums |= {"dx": checksums(dx_gate + dx + dx_shared), "dtopk_weight": checksums(dtopk_weight)}  # MOE-5
    return Outcome(time.process_time() - start, time.perf_counter() - wall, held, size, sums, squares)
