"""AdamW step by step: moments in bfloat16 and in float32, gradients that stop, and moments that must go on decaying."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases.grids import as_matrix, beside, both_signs, told
from moespec_conformance.cases.inputs import Draw, Tensor, mixed
from moespec_conformance.cases.reject import bad_tensor, cast, cut, drop, put
from moespec_conformance.protocol import Case, Tensors

STEP, STORED, DECAY = ("OPT-1",), ("OPT-1", "OPT-2", "OPT-3"), ("OPT-2", "OPT-3", "CFG-20")
Change = Callable[[Draw, Tensors], None]
SLOWEST = 1 - 2.0**-8  # of the betas that bfloat16 moments can follow


def in_eight_digits(x: Tensor) -> Tensor:
    """The same numbers without what bfloat16 cannot hold."""
    return (np.asarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def first(_: Draw, t: Tensors) -> None:
    """The first step: no moments yet."""
    t["exp_avg"][:], t["exp_avg_sq"][:], t["step"] = 0, 0, np.asarray(1)


def at_step(n: int) -> Change:
    """A later step: the corrections differ, and are nothing in the end."""

    def change(_: Draw, t: Tensors) -> None:
        t["step"] = np.asarray(n)

    return change


def no_gradient(_: Draw, t: Tensors) -> None:
    """The gradient is 0, as for an expert without tokens: moments decay, weights still move."""
    t["grad"][:] = 0


def nothing(_: Draw, t: Tensors) -> None:
    """Neither gradient nor moments: weights decay alone."""
    t["grad"][:], t["exp_avg"][:], t["exp_avg_sq"][:] = 0, 0, 0


def small(draw: Draw, t: Tensors) -> None:
    """Gradients of 2**-34 … 2**-20, about epsilon: what is added inside the root, or without it, shows."""
    t["grad"] = mixed(draw, t["grad"], -34, -20)
    t["exp_avg"] = in_eight_digits(t["grad"] / 2)
    t["exp_avg_sq"] = in_eight_digits(t["grad"] * t["grad"])


def large(draw: Draw, t: Tensors) -> None:
    """Gradients up to 2**30; their squares are still numbers."""
    t["grad"] = mixed(draw, t["grad"], 10, 30)


def weights_of_nothing(_: Draw, t: Tensors) -> None:
    """Weights are 0: what comes out is the step itself, to all its digits; what was rounded before use shows."""
    t["param"][:] = 0


def all_digits(_: Draw, t: Tensors) -> None:
    """Moments with each of the 128 digits of bfloat16, and no gradient: each must become less."""
    digits = (1 + np.arange(128) / 128).astype(np.float32)
    sign = np.where(np.arange(128) % 2, np.float32(-1), np.float32(1))
    t |= {"param": np.zeros((4, 128), np.float32), "grad": np.zeros((4, 128), np.float32)}
    t["exp_avg"] = digits * sign * np.exp2([[0], [-9], [-20], [3]]).astype(np.float32)
    t["exp_avg_sq"] = digits * np.exp2([[0], [-18], [-30], [6]]).astype(np.float32)


def decaying(_: Draw, t: Tensors) -> None:
    """A gradient that was 1 and is now 2**-12: the second moment is far above its square, and must come down."""
    t["exp_avg_sq"] = in_eight_digits(1 - np.arange(t["param"].size).reshape(t["param"].shape) * 2.0**-12)
    t["exp_avg"], t["grad"] = in_eight_digits(t["exp_avg_sq"]), np.full_like(t["grad"], 2.0**-12)


def growing(_: Draw, t: Tensors) -> None:
    """A gradient that was next to nothing and is now 1."""
    t["exp_avg_sq"][:], t["exp_avg"][:], t["grad"][:] = 2.0**-24, 2.0**-12, 1


def halfway(_: Draw, t: Tensors) -> None:
    """What is stored is the gradient and its square: halfway between two numbers, beside that, and beyond the last."""
    middles = np.concatenate([1 + (2 * np.arange(128) + 1) / 256, [17, 19, 21]])  # odd squares of nine digits
    beyond = [1.84e19, 1.8446e19]  # the second one's square is a float32, and no bfloat16
    grad = as_matrix(both_signs(np.append(beside(middles, -1, 0, 1), beyond)))
    t |= {"param": np.ones_like(grad), "grad": grad}
    t |= {"exp_avg": np.zeros_like(grad), "exp_avg_sq": np.zeros_like(grad)}


def one(slug: str, change: Change | None = None, clauses: tuple[str, ...] = STORED, **how: Any) -> Case:  # noqa: ANN401
    """One case of adamw; `how` holds size, config fields, and fields of Case."""
    size, title = how.pop("size", (24, 40)), f"adamw-{slug}"
    fields, cfg = told(how)

    def build() -> Tensors:
        draw = Draw(title)
        t: Tensors = {"param": draw.normal(*size), "exp_avg": in_eight_digits(draw.normal(*size, shift=3))}
        t["exp_avg_sq"] = in_eight_digits(draw.positive(*size) * np.float32(2.0**-5))
        t |= {"grad": draw.normal(*size, shift=2), "step": np.asarray(7)}
        if change:
            change(Draw(title + "/change"), t)
        return {name: np.asarray(tensor) for name, tensor in t.items()}

    return Case(title, "adamw", cfg, build, clauses, profiles=("moments",), **fields)


def steps() -> Iterator[Case]:
    """The same families with moments of both kinds."""
    for kind in ("bfloat16", "float32"):
        how, about = {"moment_format": kind}, STORED if kind == "bfloat16" else STEP
        yield one(f"{kind}-ordinary", None, about, **how)
        yield one(f"{kind}-first", first, about, **how)
        yield one(f"{kind}-second", at_step(2), about, **how)
        yield one(f"{kind}-step-1000", at_step(1000), about, **how)
        yield one(f"{kind}-no-gradient", no_gradient, about, **how)
        yield one(f"{kind}-nothing", nothing, about, **how)
        yield one(f"{kind}-small", small, about, **how)
        yield one(f"{kind}-large", large, about, **how)
        yield one(f"{kind}-step-alone", weights_of_nothing, about, learning_rate=0.5, **how)
        yield one(f"{kind}-no-decay-of-weights", None, about, weight_decay=0.0, **how)
        yield one(f"{kind}-no-step", None, about, learning_rate=0.0, **how)
        yield one(f"{kind}-large-epsilon", None, about, adam_epsilon=0.25, **how)
        yield one(f"{kind}-betas-apart", None, about, adam_beta1=0.75, adam_beta2=0.5, **how)
        yield one(f"{kind}-no-memory", None, about, adam_beta1=0.0, adam_beta2=0.0, **how)
        yield one(f"{kind}-growing", growing, about, **how)
        yield one(f"{kind}-strided", None, ("MOE-8",), manner="strided", **how)
        yield one(f"{kind}-again", None, ("MOE-8",), manner="again", **how)
    nothing_else = {"adam_beta1": 0.0, "adam_beta2": 0.0, "learning_rate": 0.0}
    yield one("bfloat16-halfway", halfway, ("FMT-1", "OPT-2"), kind="exact", **nothing_else)
    yield one("no-row", size=(0, 16))
    yield one("one-number", size=(1, 1))


def decays() -> Iterator[Case]:
    """OPT-3: whatever a moment is, a step without gradient makes it less, with every beta that is allowed."""
    for slug, beta in (("95", 0.95), ("99", 0.99), ("slowest", SLOWEST)):
        yield one(f"decays-{slug}", all_digits, DECAY, adam_beta1=beta, adam_beta2=beta, learning_rate=0.5)
        yield one(f"gradient-decays-{slug}", decaying, DECAY, adam_beta2=beta, learning_rate=0.5)
    float32 = {"moment_format": "float32", "learning_rate": 0.5}
    yield one("float32-999", decaying, ("OPT-1", "CFG-20"), adam_beta2=0.999, **float32)
    yield one("float32-9999", all_digits, ("OPT-1", "CFG-20"), adam_beta1=0.9999, adam_beta2=0.9999, **float32)


BAD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("moment-stalls", {"adam_beta2": 0.999}),
    ("moment-just-stalls", {"adam_beta2": 1 - 2.0**-9}),
    ("first-moment-stalls", {"adam_beta1": 0.999}),
    ("beta1-one", {"adam_beta1": 1.0, "moment_format": "float32"}),
    ("beta2-one", {"adam_beta2": 1.0, "moment_format": "float32"}),
    ("beta-negative", {"adam_beta1": -0.1}),
    ("beta-nan", {"adam_beta2": float("nan")}),
    ("epsilon-negative", {"adam_epsilon": -1e-8}),
    ("learning-rate-infinite", {"learning_rate": float("inf")}),
    ("learning-rate-negative", {"learning_rate": -1e-3}),
    ("weight-decay-nan", {"weight_decay": float("nan")}),
    ("unknown-moments", {"moment_format": "float16"}),
)


def rejects() -> Iterator[Case]:
    """Betas with which a moment stalls, and steps that are none."""
    good = one("for-rejects", learning_rate=0.001)
    for slug, changed in BAD:
        bad = {**good.config, **changed}
        yield Case(f"reject-{slug}", "adamw", bad, good.build, ("CFG-20",), "reject", profiles=("reject",), good=good)
    yield bad_tensor("step-zero", "OPT-1", good, lambda t: t.update(step=np.asarray(0)))
    yield bad_tensor("step-negative", "OPT-1", good, lambda t: t.update(step=np.asarray(-3)))
    yield bad_tensor("second-moment-negative", "OPT-1", good, put("exp_avg_sq", (3, 4), -0.25))
    yield bad_tensor("step-with-a-point", "ARR-4", good, cast("step", "float32"))
    yield bad_tensor("gradient-float64", "ARR-4", good, cast("grad", "float64"))
    yield bad_tensor("gradient-short", "ARR-5", good, cut("grad", 0))
    yield bad_tensor("moment-missing", "ARR-3", good, drop("exp_avg_sq"))


def cases() -> Iterator[Case]:
    """Every case of the profile `moments`, and what its op refuses."""
    yield from steps()
    yield from decays()
    yield from rejects()
