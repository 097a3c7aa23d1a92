"""The ops: named tensors in, named tensors out, with their shapes (SPEC: table of ops).

Shapes use SPEC.md's letters. T (tokens), N (rows) and W (slots of a given routing) are free and bind at first
sight; the others come from the config, and SF is the width of the shared experts together.
"""

from typing import NamedTuple

from moespec.config import MoEConfig
from moespec.signatures_balance import BALANCE_ROWS, balance_there
from moespec.signatures_fp8 import FP8_EXPERTS, FP8_ROWS
from moespec.signatures_layout import LAYOUT_ROWS, layout_there


class Tensor(NamedTuple):
    """One named tensor of an op: its letters, what it holds, and when it is there."""

    name: str
    dims: tuple[str, ...]
    holds: str = "float"  # float | router (float32 or wider) | ids (topk_idx) | index (any integer) | flag (bool)
    when: str = "always"  # always; a condition of `there`, also with a "?" before it: then it may be left out


class Op(NamedTuple):
    """One op. Optional outputs are traces: given or not, judged when given, in order of the computation."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def tensor(name: str, dims: str, holds: str = "float", when: str = "always") -> Tensor:
    """Write one tensor on one line."""
    return Tensor(name, tuple(dims.split()), holds, when)


def tensors(rows: tuple[tuple[str, ...], ...]) -> tuple[Tensor, ...]:
    """Tensors written as rows of a table."""
    return tuple(tensor(*row) for row in rows)


X = tensor("x", "T H")
BIAS = tensor("bias", "E", "router", "bias")
REPLAY = tensor("topk_idx", "T W", "ids", "?always")
CHOSEN = tensor("topk_idx", "T W", "ids")
MASK = tensor("mask", "T", "flag", "?always")
WEIGHT = tensor("weight", "E H")
TOPK_WEIGHT = tensor("topk_weight", "T W", "router")
# what single routers need besides
SPECIAL = (
    tensor("token_ids", "T", "index", "hash"),
    tensor("tid2eid", "V K", "index", "hash"),
    tensor("noise", "T E", "router", "?noise"),
    tensor("noise_weight", "E H", "float", "noise_weight"),
    tensor("group_weight", "G H", "float", "group_weight"),
)
# a layer's noise is its router's, or its second choices' (CAP-6)
LAYER_SPECIAL = tuple(t._replace(when="?layer_noise") if t.name == "noise" else t for t in SPECIAL)
EXPERT = (tensor("gate_proj", "F H", when="gated"), tensor("up_proj", "F H"), tensor("down_proj", "H F"))
ROW_WEIGHT = tensor("row_weight", "N", "router", "before_down")
ROWS = (tensor("row_token", "N", "index"), tensor("row_slot", "N", "index"))
LAYER = (
    tensor("gate_weight", "E H"),
    BIAS,
    tensor("gate_proj", "E F H", when="gated"),
    tensor("up_proj", "E F H"),
    tensor("down_proj", "E H F"),
    tensor("shared_gate_proj", "SF H", when="shared_gated"),
    tensor("shared_up_proj", "SF H", when="shared"),
    tensor("shared_down_proj", "H SF", when="shared"),
)
GAIN = tensor("weight", "H")
LOGITS = (tensor("logits", "T V", "router"), tensor("target", "T", "index"))


def gradients(tensors: tuple[Tensor, ...], router: tuple[str, ...] = ()) -> tuple[Tensor, ...]:
    """The gradients of what is trained: the same shapes, d before the name."""
    trained = (t for t in tensors if t.holds == "float")
    return tuple(t._replace(name="d" + t.name, holds="router" if t.name in router else "float") for t in trained)


# a mixture of all experts, each with its output
MIXTURE = (TOPK_WEIGHT._replace(dims=("T", "E")), tensor("expert_out", "T E H"), tensor("target", "T H"))
LAYER_OUT = (
    *(t._replace(when="?always") for t in (CHOSEN, TOPK_WEIGHT, tensor("routed", "T H"), tensor("shared", "T H"))),
    tensor("y", "T H"),
)
FP8_LAYER = (LAYER[0], BIAS, *tensors(FP8_EXPERTS))
DY = tensor("dy", "T H")
ROUTER = ("weight", "gate_weight", "noise_weight", "group_weight")
OPS: dict[str, Op] = {
    "gate": Op(
        (X, WEIGHT, BIAS, *SPECIAL, MASK, REPLAY),
        (
            tensor("logits", "T E", "router", "?always"),
            tensor("scores", "T E", "router", "?always"),
            tensor("group_scores", "T G", "router", "?groups"),
            CHOSEN,
            TOPK_WEIGHT,
        ),
    ),
    "gate_backward": Op(
        (
            X,
            WEIGHT,
            BIAS,
            *SPECIAL,
            CHOSEN,
            tensor("dtopk_weight", "T W", "router"),
            tensor("dscores", "T E", "router", "?always"),
            tensor("dlogits", "T E", "router", "?always"),
        ),
        gradients((X, WEIGHT, *SPECIAL), ROUTER),
    ),
    "expert": Op(
        (tensor("x", "N H"), *EXPERT, ROW_WEIGHT),
        (tensor("h", "N F", when="?always"), tensor("y", "N H")),
    ),
    "expert_backward": Op(
        (tensor("x", "N H"), *EXPERT, ROW_WEIGHT, tensor("dy", "N H")),
        (*gradients((tensor("x", "N H"), *EXPERT)), ROW_WEIGHT._replace(name="drow_weight")),
    ),
    "dispatch": Op(
        (X, CHOSEN),
        (tensor("expert_count", "E", "index"), *ROWS, tensor("rows", "N H")),
    ),
    "combine": Op(
        (
            tensor("rows", "N H"),
            *ROWS,
            TOPK_WEIGHT._replace(when="after_down"),
            CHOSEN._replace(when="before_down"),
        ),
        (tensor("y", "T H"),),
    ),
    "moe": Op((X, *LAYER, *LAYER_SPECIAL, MASK, REPLAY), LAYER_OUT),
    "moe_backward": Op((X, *LAYER, *LAYER_SPECIAL, CHOSEN, DY), gradients((X, *LAYER, *SPECIAL), ROUTER)),
    "moe_fp8": Op((X, *FP8_LAYER, *LAYER_SPECIAL, MASK, REPLAY), LAYER_OUT),
    "moe_fp8_backward": Op((X, *FP8_LAYER, *LAYER_SPECIAL, CHOSEN, DY), gradients((X, *LAYER, *SPECIAL), ROUTER)),
    "mixture_loss": Op(MIXTURE, (tensor("loss", "", "router"),)),
    "mixture_loss_backward": Op(
        (*MIXTURE, tensor("dloss", "", "router")),
        (
            tensor("responsibility", "T E", "router", "?always"),
            tensor("dtopk_weight", "T E", "router"),
            tensor("dexpert_out", "T E H"),
        ),
    ),
    "rms_norm": Op((X, GAIN), (tensor("y", "T H"),)),
    "rms_norm_backward": Op((X, GAIN, tensor("dy", "T H")), gradients((X, GAIN))),
    "cross_entropy": Op(LOGITS, (tensor("loss", "", "router"),)),
    "cross_entropy_backward": Op((*LOGITS, tensor("dloss", "", "router")), (tensor("dlogits", "T V", "router"),)),
    **{op: Op(*map(tensors, both)) for op, both in {**BALANCE_ROWS, **LAYOUT_ROWS, **FP8_ROWS}.items()},
}


def there(cfg: MoEConfig) -> dict[str, bool]:
    """The conditions on which a tensor depends, and whether this config fulfils them."""
    shared = cfg.n_shared_experts > 0
    return {
        "always": True,
        "bias": cfg.selection_bias,
        "shared": shared,
        "shared_gated": shared and cfg.gated,
        "gated": cfg.gated,
        "groups": cfg.n_group > 1 and cfg.router == "topk",
        "before_down": cfg.weight_position == "before_down",
        "after_down": cfg.weight_position == "after_down",
        "hash": cfg.hash_routing,
        "noise": cfg.router == "noisy_topk",
        "layer_noise": cfg.router == "noisy_topk" or cfg.drop_policy == "gshard",
        "noise_weight": cfg.router == "noisy_topk",
        "group_weight": cfg.router == "hierarchical",
        **balance_there(cfg),
        **layout_there(cfg),
    }


def optional(given: Tensor) -> bool:
    """Whether a tensor may be left out."""
    return given.when.startswith("?")


def expected(tensors: tuple[Tensor, ...], cfg: MoEConfig) -> dict[str, Tensor]:
    """The tensors this config needs or allows, by name."""
    fulfilled = there(cfg)
    return {t.name: t for t in tensors if fulfilled[t.when.removeprefix("?")]}


def sizes(cfg: MoEConfig) -> dict[str, int]:
    """The letters a config fixes."""
    return {
        "H": cfg.hidden_size,
        "F": cfg.moe_intermediate_size,
        "E": cfg.n_routed_experts,
        "K": cfg.num_experts_per_tok,
        "G": cfg.n_group,
        "D": cfg.n_device,
        "SF": cfg.shared_width,
    }
