"""A backward is a linear map, and the transpose of its forward's derivative.

Linear: of a gradient d and a mask of its places, backward(d where the mask is, -4 d elsewhere) is backward of the one
part less four times that of the other. Both parts and their sum are exact, so the bounds of three calls are all.

Transposed: <d, J v> = <backward(d), v> for any direction v. J v is the reference's own forward by a complex step, with
given ids, exact to float64, and knows nothing of any backward. The bounds of the backward, times |v|, are all.
"""

import numpy as np

from moespec.signatures import OPS, expected
from moespec_conformance.cases.inputs import Draw
from moespec_conformance.properties.engine.comparing import NOISE, UNKEPT, near, right
from moespec_conformance.properties.engine.layers import Trials, seeded
from moespec_conformance.properties.engine.property import Ask, Broken, Property, Trial, given
from moespec_conformance.properties.engine.renaming import Names
from moespec_conformance.protocol import Array, Case, Tensors

STEP = 1e-200  # of the complex step: nothing is cancelled, so it may be as small as it likes
FACTOR = -4


def forward_of(case: Case) -> str:
    """The op that a backward belongs to."""
    return case.op.removesuffix("_backward")


def incoming(case: Case) -> Names:
    """The gradients that come in: what the forward does not take."""
    known = expected(OPS[forward_of(case)].inputs, case.cfg)
    return tuple(name for name in case.inputs if name not in known)


def linear(ask: Ask, trial: Trial) -> None:
    """The gradients that go out are linear in those that come in."""
    case, names = trial.case, incoming(trial.case)
    picked = {n: drawn(trial, n, case.inputs[n].shape) > 0 for n in names}
    parts: list[Tensors] = [{}, {}, {}]
    for name in names:
        d = case.inputs[name]
        one, other = np.where(picked[name], d, 0).astype(d.dtype), np.where(picked[name], 0, d).astype(d.dtype)
        for tensors, made in zip(parts, (one, other, one + FACTOR * other), strict=True):
            tensors[name] = np.asarray(made, d.dtype)
    asked = [given(case, **tensors) for tensors in parts]
    first, second, both = (ask(each) for each in asked)
    bounds = [right(each).bounds for each in asked]
    for name, got in both.items():
        if not name.startswith("d"):
            continue  # a trace
        want = first[name].astype(np.float64) + FACTOR * second[name].astype(np.float64)
        near(name, got, want, bounds[2][name] + bounds[0][name] + abs(FACTOR) * bounds[1][name])


def drawn(trial: Trial, name: str, shape: tuple[int, ...]) -> Array:
    """Numbers that belong to the trial, the same whenever it is tried."""
    return Draw(f"{trial.how['seed']}/{name}").normal(*shape).astype(np.float64)


def adjoint(ask: Ask, trial: Trial) -> None:
    """The gradients that go out say what the forward would do along any direction."""
    case = trial.case
    got = ask(case)
    learned = {name: case.inputs[name.removeprefix("d")] for name in got if name.removeprefix("d") in case.inputs}
    along = {name: drawn(trial, name, tensor.shape) for name, tensor in learned.items()}
    ahead, back = (moved(case, along, sign) for sign in (1, -1))
    if abs(ahead.sum() + back.sum()) > NOISE * np.abs(ahead).sum():
        return  # a kink: where two slopes meet, a clause says which one counts, and no direction does
    bounds = right(case).bounds
    terms = [got["d" + name.removeprefix("d")].astype(np.float64) * v for name, v in along.items()]
    allowed = sum(float((bounds[name] * np.abs(v)).sum()) for name, v in along.items())
    allowed += NOISE * sum(float(np.abs(t).sum()) for t in (ahead, *terms))
    wrong = sum(float(t.sum()) for t in terms) - float(ahead.sum())
    if not abs(wrong) <= allowed:
        each = ", ".join(f"{name} {t.sum():.6g}" for name, t in zip(along, terms, strict=True))
        raise Broken(
            f"along one direction the forward moves by {ahead.sum():.9g}, and the gradients say {each}: "
            f"off by {wrong:.3g}, {abs(wrong) / max(allowed, 1e-300):.3g} times what rounding allows"
        )


def moved(case: Case, along: Tensors, sign: int) -> Array:
    """How much each number of the forward's outputs moves along a direction, times its incoming gradient."""
    forward, names = forward_of(case), incoming(case)
    stepped = {
        name: tensor if tensor.dtype.kind in "iub" else tensor.astype(np.float64)
        for name, tensor in case.inputs.items()
        if name not in names
    }
    for name, v in along.items():
        stepped[name.removeprefix("d")] = stepped[name.removeprefix("d")] + 1j * sign * STEP * v
    with np.errstate(all="ignore"):
        out = UNKEPT.table[forward](case.cfg, **stepped)
    each = [case.inputs[name].astype(np.float64) * np.imag(out[name[1:]]) / STEP for name in names]
    return np.concatenate([np.ravel(part) for part in each])


def backward_is_linear(op: str, trials: Trials, clauses: Names) -> Property:
    """The property of a backward op."""
    return Property(f"{op.replace('_', '-')}-is-linear", clauses, (op,), seeded(trials), linear)


def backward_is_adjoint(op: str, trials: Trials, clauses: Names) -> Property:
    """The property of a backward op."""
    return Property(f"{op.replace('_', '-')}-is-adjoint", clauses, (op,), seeded(trials), adjoint)
