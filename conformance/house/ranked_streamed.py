"""The streamed layer by MPI: `mpiexec -n 4 python -m mpi4py conformance/house/ranked_streamed.py`.

Every process plays one rank, computes the whole layer by itself as well, and asserts that its part has the same bits.
"""

from test_streamed import layer_of, member_of, on_ranks, part_of, same, whole

from moespec_conformance.communicator import world

MEMBERS = "deepseek-v3", "torchao", "no gate"


def main() -> None:
    """Outputs of this rank's tokens, gradients of its experts and of the shared one."""
    comm, compared = world(), 0
    (rank,) = comm.ranks
    mine = part_of(rank, comm.size)
    for name in MEMBERS:
        cfg = member_of(name)
        layer = layer_of(cfg)
        outputs, gradients = whole(cfg, layer)
        got, taken = on_ranks(cfg, layer, comm)
        same({n: one for n, (one,) in got.items()}, {n: one[mine] for n, one in outputs.items()})
        owned = range(rank * 8 // comm.size, (rank + 1) * 8 // comm.size)
        assert set(taken) == {e for e in gradients if e in owned or e == 8}
        for e, dweights in taken.items():
            same(dweights._asdict(), gradients[e]._asdict())
        compared += len(got) + len(taken)
    (told,) = comm.alltoall([[compared] * comm.size])
    if rank == 0:
        print(f"{len(told)} ranks, {sum(told)} results the same")  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
