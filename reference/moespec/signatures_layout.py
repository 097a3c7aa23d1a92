"""The tensors of the ops of layouts and ranks: (name, letters, holds, when), as in signatures.py.

D is ranks. M is tokens that ranks receive, or the places of an expert in the masked layout.
"""

from moespec.config import MoEConfig

Row = tuple[str, ...]

X, CHOSEN, TOKEN_RANK = ("x", "T H"), ("topk_idx", "T W", "ids"), ("token_rank", "T", "index")
RECEIVED = (
    ("recv_count", "D", "index"),
    ("recv_token", "M", "index"),
)
LAYER = (
    ("gate_weight", "E H"),
    ("gate_proj", "E F H", "float", "gated"),
    ("up_proj", "E F H"),
    ("down_proj", "E H F"),
    ("shared_gate_proj", "SF H", "float", "shared_gated"),
    ("shared_up_proj", "SF H", "float", "shared"),
    ("shared_down_proj", "H SF", "float", "shared"),
)
GRADIENTS = (
    ("dx", "T H"),
    ("dgate_weight", "E H", "router"),
    *(("d" + name, *more) for name, *more in LAYER[1:]),
)

# by op: inputs, outputs
LAYOUT_ROWS: dict[str, tuple[tuple[Row, ...], tuple[Row, ...]]] = {
    "layout": (
        (X, CHOSEN),
        (
            ("expert_count", "E", "index"),
            ("group_index", "N", "index", "contiguous"),
            ("expert_end", "E", "index", "psum"),
            ("expert_size", "E", "index", "k_grouped"),
            ("row_token", "E M", "index", "masked"),
            ("row_slot", "E M", "index", "masked"),
            ("rows", "E M H", "float", "masked"),
            ("row_token", "N", "index", "in_line"),
            ("row_slot", "N", "index", "in_line"),
            ("rows", "N H", "float", "in_line"),
        ),
    ),
    "k_grouped_matmul": (
        (("a", "N F"), ("b", "N H"), ("expert_size", "E", "index"), ("c", "E F H", "router")),
        (("d", "E F H", "router"),),
    ),
    "dispatch_ranks": (
        (X, CHOSEN, ("topk_weight", "T W", "router"), TOKEN_RANK),
        (
            *RECEIVED,
            ("recv_topk_idx", "M W", "index"),
            ("recv_topk_weight", "M W", "router"),
            ("rows", "M H"),
        ),
    ),
    "combine_ranks": (
        (("rows", "M H"), ("recv_topk_weight", "M W", "router"), *RECEIVED, TOKEN_RANK),
        (("combined_topk_weight", "T W", "router"), ("y", "T H")),
    ),
    "moe_ranks": ((X, *LAYER, CHOSEN, TOKEN_RANK), (("y", "T H"),)),
    "moe_ranks_backward": ((X, *LAYER, CHOSEN, TOKEN_RANK, ("dy", "T H")), GRADIENTS),
}


def layout_there(cfg: MoEConfig) -> dict[str, bool]:
    """The conditions of these ops."""
    return {
        "contiguous": cfg.layout == "contiguous",
        "psum": cfg.layout == "psum",
        "k_grouped": cfg.layout == "k_grouped",
        "masked": cfg.layout == "masked",
        "in_line": cfg.layout != "masked",
        "by_row": cfg.layout != "k_grouped",
        "rows_in_line": cfg.layout in ("contiguous", "psum"),
    }
