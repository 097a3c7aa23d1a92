"""Every shape comment of the reference is executed and true, and a lie in any of them is caught."""

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from drive_fp8 import FILES as OF_FP8
from drive_fp8 import drive_fp8, drive_streamed_ranks

import moespec
from moespec_conformance.cases.inputs import config
from moespec_conformance.cases.router import ROUTERS
from moespec_conformance.readings.bounded import Bounded
from moespec_conformance.readings.foreign import Foreign
from moespec_conformance.readings.shape_comments import checked, claims, comments, execute, seen

SPEC = Path(__file__).parents[2] / "SPEC.md"
FILES = [path for path in sorted(Path(moespec.__path__[0]).glob("*.py")) if comments(path)]
READINGS: dict[str, Callable[[Any], Any]] = {"NumPy": np.asarray, "Bounded": Bounded.lift, "Foreign": Foreign}

# sizes that differ, so that no letter can stand for another
LETTERS = {"T": 7, "K": 5, "H": 11, "E": 12, "G": 3, "S": 6, "SF": 48, "V": 13}
SIZES = {
    "hidden_size": 11,
    "moe_intermediate_size": 8,
    "n_shared_experts": 6,
    "n_routed_experts": 12,
    "num_experts_per_tok": 5,
}


# on ranks T is a rank's tokens, and E its experts
ON_RANKS = ("ranks", "moe_ranks", "streamed_ranks")
RANK_LETTERS = {letter: LETTERS[letter] for letter in ("K", "H", "G", "S", "SF")}


def load(path: str = "", text: str = "", n_group: int = 3) -> ModuleType:
    """A checked copy of the reference, perhaps with another text for one of its files."""
    letters = RANK_LETTERS if Path(path).stem in ON_RANKS else {**LETTERS, "G": n_group}
    return checked("moespec", letters, {path: text} if text else {})


def weights_of(ref: ModuleType, cfg: Any, number: Callable[..., Any]) -> Any:
    """The trained tensors of a layer."""
    e, f, h, s = cfg.n_routed_experts, cfg.moe_intermediate_size, cfg.hidden_size, cfg.shared_width
    shapes = (e, h), (e, f * cfg.gated, h), (e, f, h), (e, h, f), (s * cfg.gated, h), (s, h), (h, s)
    return ref.moe.MoEWeights(*(number(*shape) for shape in shapes))


def drive(ref: ModuleType, cfg: Any, lift: Callable[[Any], Any] = np.asarray) -> None:
    """Gate, dispatch, combine and layer, forward and backward; own routing, and given routing with empty slots."""
    rng = np.random.default_rng(0)

    def number(*shape: int) -> Any:
        return lift(rng.standard_normal(shape))

    weights, bias = weights_of(ref, cfg, number), number(cfg.n_routed_experts)
    x, dy = number(LETTERS["T"], cfg.hidden_size), number(LETTERS["T"], cfg.hidden_size)
    topk_idx, topk_weight, _ = ref.gate.gate_forward(x, weights.gate_weight, bias, cfg)
    topk_idx[::3, 1] = -1
    rows = ref.dispatch.rows_by_expert(topk_idx, cfg.n_routed_experts)
    ref.dispatch.count_rows(topk_idx, cfg.n_routed_experts)
    values = ref.dispatch.dispatch_forward(x, rows)
    ref.dispatch.dispatch_backward(values, rows, topk_weight)
    ref.dispatch.combine_forward(values, rows, topk_weight)
    ref.dispatch.combine_backward(dy, values, rows, topk_weight)
    _, norm = ref.norm.rms_norm_forward(x, number(cfg.hidden_size), cfg.rms_norm_eps)
    ref.norm.rms_norm_backward(dy, norm)
    _, loss = ref.loss.cross_entropy_forward(number(LETTERS["T"], LETTERS["V"]), topk_idx[:, 0])
    ref.loss.cross_entropy_backward(number(), loss)
    ref.moe.moe(x, weights, bias, cfg)
    for _, cache in (ref.moe.moe_forward(x, weights, bias, cfg), ref.moe.moe_given(x, weights, topk_idx, cfg)):
        ref.moe.moe_backward(dy, cache, weights, weights._make(map(np.zeros_like, weights)), cfg)
    drive_family(ref, cfg, number)
    drive_balance(ref, cfg, number)
    drive_layouts(ref, rows, x, topk_weight)
    if cfg.n_group > 1:
        drive_routers(ref, lift)


# what the other members change: scores, groups, the clamp and the weight's place, experts without a gate
MEMBERS: tuple[dict[str, Any], ...] = (
    {"scoring_func": "softmax", "hidden_act": "gelu_pytorch_tanh"},
    {"scoring_func": "sqrtsoftplus", "swiglu_limit": 1.0, "weight_position": "before_down"},
    {"gated": False, "hidden_act": "relu"},
    {"gated": False, "hidden_act": "relu", "weight_position": "before_down"},
)


def drive_family(ref: ModuleType, cfg: Any, number: Callable[..., Any]) -> None:
    """The layer of every member, forward, in place and backward; a table and a mask."""
    for changed in MEMBERS:
        member = replace(cfg, **changed, **({"group_score": "max"} if cfg.n_group > 1 else {}))
        weights, bias = weights_of(ref, member, number), number(cfg.n_routed_experts)
        x, dy = number(LETTERS["T"], cfg.hidden_size), number(LETTERS["T"], cfg.hidden_size)
        ref.moe.moe(x, weights, bias, member)
        y, cache = ref.moe.moe_forward(x, weights, bias, member)
        ref.moe.moe_backward(y, cache, weights, weights._make(map(np.zeros_like, weights)), member)
    rng, like = np.random.default_rng(3), type(dy) if type(dy).__name__ == "Foreign" else np.asarray
    table = like(rng.integers(0, cfg.n_routed_experts, (LETTERS["V"], LETTERS["K"])))
    topk_idx = ref.gate.look_up(like(rng.integers(0, LETTERS["V"], LETTERS["T"])), table)
    ref.gate.masked(topk_idx, like(rng.random(LETTERS["T"]) < 0.5))


def drive_layouts(ref: ModuleType, rows: Any, x: Any, topk_weight: Any) -> None:
    """Every layout of some rows, and a product along them."""
    for lay in (ref.layouts.contiguous, ref.layouts.masked):
        places = lay(rows, 4)
        ref.layouts.compact(places)
        values = ref.layouts.lay_out_forward(x, places)
        ref.layouts.lay_out_backward(values, places, topk_weight)
    ref.layouts.expert_end(rows.expert_count, 4)
    size, values = (
        ref.layouts.aligned(rows.expert_count, 4),
        ref.layouts.lay_out_forward(x, ref.layouts.contiguous(rows, 4)),
    )
    c = np.zeros_like(x, shape=(LETTERS["E"], 8, LETTERS["H"]))
    ref.layouts.k_grouped(values[:, :8], values, size, c)


def drive_ranks(ref: ModuleType, lift: Callable[[Any], Any] = np.asarray) -> None:
    """The layer on two ranks, forward and backward, with empty slots; a copy loaded for one of ON_RANKS."""
    rng, cfg = np.random.default_rng(0), replace(config_of(ref), n_device=2)

    def number(*shape: int) -> Any:
        return lift(rng.standard_normal(shape))

    weights, x = weights_of(ref, cfg, number), number(LETTERS["T"], cfg.hidden_size)
    topk_idx, _, _ = ref.gate.gate_forward(x, weights.gate_weight, number(cfg.n_routed_experts), cfg)
    topk_idx[::3, 1] = -1
    x, topk_idx = ([a[:3], a[3:]] for a in (x, topk_idx))
    shards, dshards = (ref.moe_ranks.shard(w, 2) for w in (weights, weights._make(map(np.zeros_like, weights))))
    y, cache = ref.moe_ranks.moe_ranks_forward(x, topk_idx, shards, cfg, ref.ranks.in_process(2))
    ref.moe_ranks.moe_ranks_backward(y, cache, shards, dshards, cfg)


def drive_routers(ref: ModuleType, lift: Callable[[Any], Any]) -> None:
    """The routers outside DeepSeek's own, each with its own ids and with given ones, and the mixture."""
    rng, tokens, experts, hidden = np.random.default_rng(1), LETTERS["T"], LETTERS["E"], LETTERS["H"]

    def number(*shape: int) -> Any:
        return lift(rng.standard_normal(shape))

    x, weight, mask = number(tokens, hidden), number(experts, hidden), np.arange(tokens) != 2
    mask = lift(mask) if lift is Foreign else mask
    softmax = {**SIZES, **ROUTERS["expert-choice"], "capacity_factor": 0.5}
    cfg = ref.MoEConfig.from_dict(config(**softmax))
    _, topk_weight, cache = ref.expert_choice.choice_forward(x, weight, mask, cfg)
    ref.expert_choice.choice_backward(topk_weight, cache, weight, cfg)
    cfg = ref.MoEConfig.from_dict(config(**{**SIZES, **ROUTERS["noisy-topk"]}))
    weights = ref.router.NoisyWeights(weight, number(experts, hidden))
    _, topk_weight, cache = ref.router.noisy_forward(x, weights, number(tokens, experts), cfg)
    ref.router.noisy_backward(topk_weight, cache, weights, cfg)
    groups = {**ROUTERS["hierarchical"], "n_group": LETTERS["G"], "num_experts_per_tok": 8}
    cfg = ref.MoEConfig.from_dict(config(**{**SIZES, **groups}))
    levels = ref.hierarchical.TwoLevelWeights(weight, number(LETTERS["G"], hidden))
    _, topk_weight, cache = ref.hierarchical.hierarchical_forward(x, levels, cfg)
    ref.hierarchical.hierarchical_backward(topk_weight, cache, levels, cfg)
    some = lift(rng.random((tokens, experts)))
    _, cache = ref.mixture.mixture_forward(some, number(tokens, experts, hidden), x)
    ref.mixture.mixture_backward(number(), cache)


def drive_balance(ref: ModuleType, cfg: Any, number: Callable[..., Any]) -> None:
    """Load, every kind of balance loss, the bias, and every policy of capacity, forward and backward."""
    t, e, k = LETTERS["T"], LETTERS["E"], LETTERS["K"]
    weight = number(t, k)
    lift: Callable[[Any], Any] = type(weight) if isinstance(weight, Foreign) else np.asarray
    ids = np.argsort(np.random.default_rng(1).random((t, e)), axis=-1)[:, :k]
    topk_idx, flag, seq_ids = lift(np.where(ids == 3, -1, ids)), lift(np.arange(t) != 2), lift(np.arange(t) // 3)
    for kind in ("expert", "device", "communication", "sequence"):
        asked = replace(cfg, balance_kind=kind, n_device=2)
        _, cache = ref.balance.balance_forward(number(t, e), topk_idx, seq_ids, flag, asked)
        ref.balance.balance_backward(number(), cache, asked)
    for name in ("z", "importance"):
        _, cache = getattr(ref.balance, f"{name}_forward")(number(t, e), flag, cfg)
        getattr(ref.balance, f"{name}_backward")(number(), cache, cfg)
    passes = lift(np.stack([ids, ids])), lift(np.ones((2, t), np.bool)), lift(np.arange(2)), lift(np.arange(2))
    step_count = ref.bias_update.step_counts(*passes, e)
    ref.bias_update.bias_steps(number(e), step_count, replace(cfg, bias_update="sign_centred"))
    for policy in ("position", "slot", "gshard", "probs", "device_probs", "reroute"):
        asked = replace(cfg, capacity_factor=0.5, drop_policy=policy, n_device=2)
        want = ref.capacity.wanted(topk_idx, weight, number(t, e))
        ref.capacity.drop_backward(number(t, k), ref.capacity.drop_forward(want, asked)[2])


def config_of(ref: ModuleType, n_group: int = 3, *, norm_topk_prob: bool = True) -> Any:
    """The config of a checked copy."""
    changed = {"n_group": n_group, "topk_group": min(n_group, 2), "norm_topk_prob": norm_topk_prob}
    return ref.MoEConfig.from_dict(config(**SIZES, **changed))


def test_every_comment_is_met_and_true() -> None:
    """With and without groups, with and without a norm, in every reading; no comment is left unexecuted."""
    seen.clear()
    for n_group in (1, 3):
        ref = load(n_group=n_group)
        for norm in (False, True):
            drive(ref, config_of(ref, n_group, norm_topk_prob=norm))
        for lift in READINGS.values():
            drive(ref, config_of(ref, n_group), lift)
    with np.errstate(over="ignore"):
        for lift in READINGS.values():
            drive_fp8(ref, lift)
    for lift in READINGS.values():
        drive_ranks(load("ranks"), lift)
        with np.errstate(over="ignore"):
            if lift != Bounded.lift:  # which has no codes
                drive_streamed_ranks(load("ranks"), lift)
    assert seen == {(str(path), line) for path in FILES for line, _ in comments(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_letters_are_the_specs(path: Path) -> None:
    """A name in a comment is a letter of SPEC.md, n for the rows of one expert, or a parameter."""
    legend = SPEC.read_text().split("## 1. ")[1].split("## 2. ")[0]
    letters = {*re.findall(r"^\| (\w+) \|", legend, re.MULTILINE), "n"}
    parameters = {node.arg for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.arg)}
    names = {name for _, dims in comments(path) for dim in dims for name in re.findall(r"(?<![.\w])[^\W\d]\w*", dim)}
    assert names <= letters | parameters


def lie_of(dims: tuple[str, ...]) -> str:
    """The last two axes swapped; where that says the same, one axis more."""
    swapped = (*dims[:-2], *dims[:-3:-1])
    return str(swapped if swapped != dims else (*dims, "1")).replace("'", "")


def drive_file(name: str, ref: ModuleType) -> None:
    """Run the lines of one file, on a copy loaded for it."""
    if name in OF_FP8:
        with np.errstate(over="ignore"):
            drive_fp8(ref)
    elif name in ON_RANKS:
        drive_ranks(ref)
        with np.errstate(over="ignore"):
            drive_streamed_ranks(ref, np.asarray)
    else:
        drive(ref, config_of(ref))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_lie_in_a_comment_is_caught(path: Path) -> None:
    """Each comment of the reference, changed."""
    text = path.read_text()
    for line, dims in comments(path):
        rows = text.split("\n")
        rows[line - 1] = re.sub(r"# \(.*", f"# {lie_of(dims)}", rows[line - 1])
        ref = load(str(path), "\n".join(rows))
        with pytest.raises(AssertionError, match=rf"{path.name}:\d+: .* has shape"):
            drive_file(path.stem, ref)


HEAD = """from typing import NamedTuple


class Pair(NamedTuple):
    a: object  # (T, H)
    b: object  # (H, T)


def f(
    x: object,  # (T, H)
) -> object:
    """

# by kind: lines after HEAD, run on x (3, 5), @ being the comment; the truth; a lie; what the lie is told
KINDS = {
    "assignment": ("y = x.T  # @", "(H, T)", "(T, H)", "y has shape (5, 3)"),
    "annotated": ("y: object = x.T  # @", "(H, T)", "(T, H)", "y has shape (5, 3)"),
    "augmented": ("x += 1  # @", "(T, H)", "(H, T)", "x has shape (3, 5)"),
    "augmented, as indexed": ("x[[2, 0]] += x[1]  # @", "(n, H)", "(T, H)", "x[[2, 0]] has shape (2, 5)"),
    "as indexed": ("x[:, 1] = 0  # @", "(T,)", "(H,)", "x[:, 1] has shape (3,)"),
    "an attribute": ("f.y = x.T  # @", "(H, T)", "(T, H)", "f.y has shape (5, 3)"),
    "every element": ("y, [z, w] = -x, (x, x)  # @", "(T, H)", "(T, T)", "y has shape (3, 5)"),
    "a later element": ("y, z = x, x[: len(x)]  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "beside a NamedTuple": ("y, pair = x, Pair(x, x.T)  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "a chain": ("y = z = x.T  # @", "(H, T)", "(T, H)", "y has shape (5, 3)"),
    "several lines": ("y = abs(\n        x.T\n    )  # @", "(H, T)", "(T, H)", "y has shape (5, 3)"),
    "if": ("if len(x):\n        y = x  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "else": ("if f is x:\n        pass\n    else:\n        y = x  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "with": ("with memoryview(b''):\n        y = x  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "for": ("for i in (1, 2):\n        y = x[:i]  # @", "(n, H)", "(T, H)", "y has shape (1, 5)"),
    "for, else": ("for _ in x:\n        pass\n    else:\n        y = x  # @", "(T, H)", "(H, T)", "y has shape (3, 5)"),
    "for, after it": (
        "for i in (1, 2):\n        y = x[:i]  # (n, H)\n    y = x  # @",
        "(n, H)",
        "(n, n)",
        "y has shape (3, 5)",
    ),
    "for, in one turn": (
        "for i in (1, 2):\n        y = x[:i]  # (n, H)\n        z = y  # @",
        "(n, H)",
        "(T, H)",
        "z has shape (1, 5)",
    ),
    "for, bound outside": (
        "y = x[:1]  # (n, H)\n    for i in (1, 2):\n        z = x[:i]  # @",
        "(m, H)",
        "(n, H)",
        "z has shape (2, 5)",
    ),
    "while": ("while len(x) > 1:\n        x = x[1:]  # @", "(n, H)", "(T, H)", "x has shape (2, 5)"),
    "a parameter": (
        "def g(\n        y,  # (T, H)\n        z,  # @\n    ): pass\n    g(x, x.T)",
        "(H, T)",
        "(T, H)",
        "z has shape (5, 3)",
    ),
    "a named parameter": (
        "def g(\n        *,\n        y,  # @\n    ): pass\n    g(y=x[:, :3])",
        "(T, T)",
        "(T, T + 1)",
        "y has shape (3, 3)",
    ),
    "a call": ("def g(y):\n        z = y  # @\n    g(x.T)", "(T, H)", "(T, T)", "z has shape (5, 3)"),
    "fields of an argument": (
        "x = Pair(x[:1], x[:1].T)\n    def g(pair):\n        y = pair.a  # @\n    g(x)",
        "(T, H)",
        "(H, T)",
        "y has shape (1, 5)",
    ),
    "one axis": ("y = x[0]  # @", "(H,)", "(T,)", "y has shape (5,)"),
    "too few axes": ("y = x  # @", "(T, H)", "(T,)", "y has shape (3, 5), not (T,): axes: 1"),
    "too many axes": ("y = x  # @", "(T, H)", "(T, H, 1)", "y has shape (3, 5), not (T, H, 1): axes: 3"),
    "a scalar": ("y = x.sum()  # @", "()", "(T,)", "y has shape ()"),
    "a number": ("y = 1.5  # @", "()", "(1,)", "y has shape ()"),
    "whole numbers": ("y = x[:, :1]  # @", "(3, 1)", "(3, 2)", "y has shape (3, 1)"),
    "one letter twice": ("y = x[:1, :2]  # @", "(n, m)", "(n, n)", "y has shape (1, 2)"),
    "a sum": ("y = x[1:]  # @", "(T - 1, H)", "(T + 1, H)", "y has shape (2, 5)"),
    "a product": ("y = x.reshape(-1)  # @", "(T * H,)", "(T * T,)", "y has shape (15,)"),
    "a quotient": ("y = x.reshape(1, 3, 5)  # @", "(G, T // G, H)", "(G, H // G, H)", "y has shape (1, 3, 5)"),
    "a free letter in a sum": (
        "y = x  # @",
        "(T, H)",
        "(T, m + 1)",
        "y has shape (3, 5), not (T, m + 1): name 'm' is not",
    ),
    "a variable": ("n = 2\n    y = x[:n]  # @", "(n, H)", "(n + 1, H)", "y has shape (2, 5)"),
    "a variable that is no size": (
        "n = x\n    y = x  # @",
        "(T, H)",
        "(n, H)",
        "y has shape (3, 5), not (n, H): only int",
    ),
    "an attribute's value": (
        "g = f\n    g.k = 2\n    y = x[:2]  # @",
        "(g.k, H)",
        "(g.k + 1, H)",
        "y has shape (2, 5)",
    ),
    "text after it": ("y = x.T  # @: turned, once (T, H)", "(H, T)", "(T, H)", "y has shape (5, 3)"),
}


def run(body: str, x: Any = None) -> Any:
    """Execute these lines after HEAD with their checks."""
    module = execute(HEAD + body + "\n", "text.py", ModuleType("text"), {})
    return module.f(np.ones((3, 5)) if x is None else x)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_line_tells_a_lie_from_the_truth(kind: str) -> None:
    """The message names file, line, what it is about, and its shape."""
    body, truth, lie, told = KINDS[kind]
    line = (HEAD + body).split("@")[0].count("\n") + 1
    run(body.replace("@", truth))
    with pytest.raises(AssertionError, match="^" + re.escape(f"text.py:{line}: {told}")):
        run(body.replace("@", lie))


def test_the_message_in_full() -> None:
    """File, line, name, shape, the comment, what it comes to, and the letters."""
    with pytest.raises(AssertionError) as caught:
        run("y = x.T  # (T, H // T)")
    assert str(caught.value) == "text.py:12: y has shape (5, 3), not (T, H // T): (3, 1), with {'T': 3, 'H': 5}"


@pytest.mark.parametrize("given", ["y, z = x, x.T", "y, z = x, [x]", "y, pair = x, x.T", "y = z = Pair(x, x.T)"])
def test_a_claim_is_about_every_element(given: str) -> None:
    """Also where the first is as claimed; only a NamedTuple beside an array is passed over."""
    with pytest.raises(AssertionError, match=r"text.py:12: (z|pair|y) has shape"):
        run(f"{given}  # (T, H)")


@pytest.mark.parametrize("make", ["Pair(x, @)", "Pair(b=@, a=x)", "Pair._make([x, @])", "Pair(x, x.T)._replace(b=@)"])
def test_a_named_tuple_is_checked_however_it_is_made(make: str) -> None:
    """Its letters hold within one tuple."""
    assert run("return " + make.replace("@", "x.T")).b.shape == (5, 3)
    with pytest.raises(AssertionError, match=r"^text.py:6: Pair.b has shape \(3, 5\), not \(H, T\)"):
        run("return " + make.replace("@", "x"))


@pytest.mark.parametrize(
    "body", ["y = 1  # (see SPEC)", "y = 1  # (as before) (T, H)", "y = 1  # a shape (T, H)", "# (T, H)"]
)
def test_prose_is_no_shape(body: str) -> None:
    """Words in parentheses, a shape further on, and a comment on a line of its own."""
    assert sorted(claims(HEAD + body, "text.py")) == [5, 6, 10]


@pytest.mark.parametrize(
    "shape", ["(N)", "(T H)", "(E // G)", "(T, H", "(T, 2F)", "(T; H)", "(T,, H)", "(T, f(x))", "(SF)", "(T, see SPEC)"]
)
def test_what_is_meant_as_a_shape_must_be_one(shape: str) -> None:
    """Neither a shape nor prose: refused when the text is loaded."""
    with pytest.raises(SyntaxError, match=r"text.py:12: .* is neither prose nor a shape"):
        run(f"y = x  # {shape}")


@pytest.mark.parametrize(
    "body",
    [
        "return x  # (T, H)",
        "y: object  # (T, H)",
        "print(x)  # (T, H)",
        "for _ in x:  # (H,)\n        pass",
        "y = (  # (T, H)\n    x)",
        "class A:\n        y: object  # (T, H)",
    ],
)
def test_a_shape_must_stand_where_it_can_be_checked(body: str) -> None:
    """A line that makes no array: refused when the text is loaded."""
    with pytest.raises(SyntaxError, match=r"text.py:1[23]: \(.*\) stands on a line that makes no array"):
        run(body)


def test_the_ordinary_modules_stay() -> None:
    """A checked copy is another module, with other functions; also a copy that fails leaves nothing behind."""
    before = dict(sys.modules)
    ref = load()
    with pytest.raises(SyntaxError):
        load(str(FILES[0]), "x = 1  # (N)")
    assert ref.gate.score is not moespec.gate.score
    assert {name: sys.modules[name] for name in before} == before
