"""Section 3 and ARR-3 to ARR-6: the tensors of a call, checked."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from moespec_conformance.adapters.plain.config import Config, require
from moespec_conformance.adapters.plain.formats import load, load_scale

Floats = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.integer[Any]]
Tensors = dict[str, npt.NDArray[Any]]

# Letters stand for sizes (S for SF); after them # says that the tensor holds ids or other whole numbers, ! that it is
# a mask, and ? that a caller may leave it out. *a says that it holds codes in a_format, /a that it is the grid of
# scales of such codes in a_block; q is for format and block themselves.
ROUTER = "bias:E token_ids:T# tid2eid:VK# noise:TE? noise_weight:EH group_weight:GH"
GATE, EXPERT = f"x:TH weight:EH {ROUTER}", "x:NH gate_proj:FH up_proj:FH down_proj:HF row_weight:N"
SHARED = "shared_gate_proj:SH shared_up_proj:SH shared_down_proj:HS"
LAYER = f"x:TH gate_weight:EH gate_proj:EFH up_proj:EFH down_proj:EHF {SHARED}"
RANKED = f"{LAYER} topk_idx:TW# token_rank:T#"
MIXTURE, NORM, ENTROPY = "topk_weight:TE expert_out:TEH target:TH", "x:TH weight:H", "logits:TV target:T#"
ROOM = "scores:TE topk_idx:TW# topk_weight:TW noise:TE? protected:T!?"
BALANCE = "scores:TE logits:TE topk_idx:TW# seq_ids:T#? mask:T!?"
MATRICES = "gate_proj:EFH up_proj:EFH down_proj:EHF shared_gate_proj:SH shared_up_proj:SH shared_down_proj:HS"
SHAPES = [item.split(":") for item in MATRICES.split()]
LAYER_FP8 = f"x:TH gate_weight:EH {' '.join(f'{n}_codes:{of}*b {n}_scale:{of}/b' for n, of in SHAPES)}"
CODED, MOMENTS = "codes:MC*a scale:MC/a", "param:MC exp_avg:MC exp_avg_sq:MC grad:MC step:#"
GROUPED = "a_codes:MC*a a_scale:MC/a b_codes:ENC*b b_scale:ENC/b"
INPUTS = {
    "gate": f"{GATE} mask:T!? topk_idx:TW#?",
    "gate_backward": f"{GATE} topk_idx:TW# dtopk_weight:TW dscores:TE? dlogits:TE?",
    "expert": EXPERT,
    "expert_backward": f"{EXPERT} dy:NH",
    "dispatch": "x:TH topk_idx:TW#",
    "combine": "rows:NH row_token:N# row_slot:N# topk_weight:TW topk_idx:TW#",
    "layout": "x:TH topk_idx:TW#",
    "k_grouped_matmul": "a:NF b:NH expert_size:E# c:EFH",
    "dispatch_ranks": "x:TH topk_idx:TW# topk_weight:TW token_rank:T#",
    "combine_ranks": "rows:MH recv_topk_weight:MW recv_token:M# recv_count:D# token_rank:T#",
    "moe_ranks": RANKED,
    "moe_ranks_backward": f"{RANKED} dy:TH",
    "moe": f"{LAYER} {ROUTER} mask:T!? topk_idx:TW#?",
    "moe_backward": f"{LAYER} {ROUTER} topk_idx:TW# dy:TH",
    "mixture_loss": MIXTURE,
    "mixture_loss_backward": f"{MIXTURE} dloss:",
    "capacity": ROOM,
    "capacity_backward": f"{ROOM} dtopk_weight:TW",
    "balance_loss": BALANCE,
    "balance_loss_backward": f"{BALANCE} dloss:",
    "bias_update": "bias:E expert_count:E#",
    "bias_steps": "bias:E topk_idx:PTW# mask:PT!? pass_kind:P# pass_step:P# pass_rank:P#",
    "rms_norm": NORM,
    "rms_norm_backward": f"{NORM} dy:TH",
    "cross_entropy": ENTROPY,
    "cross_entropy_backward": f"{ENTROPY} dloss:",
}
FP8 = {
    "cast": "x:MC",
    "quantize": "x:MC",
    "dequantize": "codes:MC*q scale:MC/q",
    "requantize": CODED,
    "lift_fp4": CODED,
    "matmul_fp8": "a_codes:MC*a a_scale:MC/a b_codes:NC*b b_scale:NC/b c:MN?",
    "grouped_matmul_fp8 contiguous": f"{GROUPED} group_index:M#",
    "grouped_matmul_fp8 psum": f"{GROUPED} expert_end:E#",
    "grouped_matmul_fp8 masked": "a_codes:EMC*a a_scale:EMC/a b_codes:ENC*b b_scale:ENC/b expert_count:E#",
    "grouped_matmul_fp8 k_grouped": "a_codes:MC*a a_scale:MC/a b_codes:NC*b b_scale:NC/b expert_size:E# c:EMN",
    "moe_fp8": f"{LAYER_FP8} {ROUTER} mask:T!? topk_idx:TW#?",
    "moe_fp8_backward": f"{LAYER_FP8} {ROUTER} topk_idx:TW# dy:TH",
    "adamw": MOMENTS,
}


def of_layer(op: str, c: Config) -> dict[str, bool]:
    """Which tensors of section 3's brackets the config has, for the ops of the layer."""
    return {
        **dict.fromkeys(("token_ids", "tid2eid"), c["hash_routing"]),
        "noise": c["router"] == "noisy_topk" or (op.startswith("moe") and c["drop_policy"] == "gshard"),
        "noise_weight": c["router"] == "noisy_topk",
        **dict.fromkeys(("shared_up_proj", "shared_down_proj"), c["n_shared_experts"] > 0),
        "bias": c["selection_bias"],
        "group_weight": c["router"] == "hierarchical",
        "gate_proj": c["gated"],
        "shared_gate_proj": c["gated"] and c["n_shared_experts"] > 0,
        "row_weight": c["weight_position"] == "before_down",
    }


def of_op(op: str, c: Config) -> dict[str, bool]:
    """Which tensors an op has only with some configs."""
    kind, policy, before = c["balance_kind"], c["drop_policy"], c["weight_position"] == "before_down"
    if op.startswith("balance_loss"):
        counted = kind not in ("z", "importance")
        given = counted and c["balance_topk"] == "given"
        return {"scores": kind != "z", "logits": kind == "z", "seq_ids": counted, "topk_idx": given}
    if op.startswith("capacity"):
        return {"scores": policy == "reroute", "noise": policy == "gshard", "protected": policy == "device_probs"}
    if op == "combine":
        return {"topk_weight": not before, "topk_idx": before}
    return {} if op.startswith("bias_") else of_layer(op, c)


def check_shapes(c: Config, t: Tensors, letters: dict[str, str]) -> dict[str, int]:
    """Check ARR-5, and give the size of each letter; the first tensor to use T, N, V or W says what it is."""
    size = {"E": c["n_routed_experts"], "H": c["hidden_size"], "F": c["moe_intermediate_size"], "G": c["n_group"]}
    size |= {"K": c["num_experts_per_tok"], "D": c["n_device"], "S": c["n_shared_experts"] * c["moe_intermediate_size"]}
    for n, a in t.items():
        require(len(letters[n]) == a.ndim, f"ARR-5: {n} has {a.ndim} dimensions")
        for letter, length in zip(letters[n], a.shape, strict=True):
            require(size.setdefault(letter, length) == length, f"ARR-5: {n} has shape {a.shape}")
            require(letter != "W" or length, f"ARR-5: {n} has no slot")
    return size


def check_ids(t: Tensors, size: dict[str, int]) -> None:
    """Check ARR-6 for the experts of a token, and for the places of rows."""
    for place in np.ndindex(t["topk_idx"].shape[:-1]) if "topk_idx" in t else ():
        named = [e for e in t["topk_idx"][place].tolist() if e != -1]
        require(all(0 <= e < size["E"] for e in named), "ARR-6: an id names no expert")
        require(len(named) == len(set(named)), "ARR-6: a token names an expert twice")
    for n, letter in (("row_token", "T"), ("row_slot", "W")):
        require(n not in t or ((t[n] >= -1) & (t[n] < size[letter])).all(), f"ARR-6: {n} is out of range")
    if "row_token" in t:
        pairs = [*zip(t["row_token"].tolist(), t["row_slot"].tolist(), strict=True)]
        require(all((token < 0) == (slot < 0) for token, slot in pairs), "ARR-6: a row has only one of token and slot")
        taken = [pair for pair in pairs if pair[0] >= 0]
        require(len(taken) == len(set(taken)), "ARR-6: two rows are of the same token and slot")


def check_table(t: Tensors, size: dict[str, int]) -> None:
    """Check GATE-12; a row of the table obeys ARR-6 like the token whose experts it names."""
    ids, table = t["token_ids"], t["tid2eid"]
    require(((ids >= 0) & (ids < size["V"])).all(), "GATE-12: a token id is outside the table")
    require(((table >= 0) & (table < size["E"])).all(), "GATE-12: the table names no expert")
    require(all(len(row) == len(set(row)) for row in table.tolist()), "GATE-12: a row names an expert twice")


def side_of(kind: str) -> str:
    """What stands before `format` and `block` for codes or scales."""
    return "" if kind[-1] == "q" else f"{kind[-1]}_"


def unpacked(c: Config, t: Tensors, kinds: dict[str, str]) -> Tensors:
    """Check FMT-5 and FMT-6, and give codes one to a place and scales in float32."""
    t = dict(t)
    for n, kind in kinds.items():
        if n in t and "*" in kind:
            require(t[n].ndim > 1, f"ARR-5: {n} has {t[n].ndim} dimensions")
            t[n] = load(c[f"{side_of(kind)}format"], t[n])
        elif n in t and "/" in kind:
            t[n] = load_scale(t[n])
    return t


def check_grids(c: Config, t: Tensors, kinds: dict[str, str]) -> None:
    """Check QNT-1: a grid is as large as its codes' blocks are many."""
    for n in (n for n in t if "/" in kinds[n]):
        *boxes, rows, width = t[n.replace("scale", "codes")].shape
        height, breadth = c[f"{side_of(kinds[n])}block"]
        want = (*boxes, -(-rows // height), -(-width // breadth))
        require(t[n].shape == want, f"QNT-1: {n} has shape {t[n].shape}, and the blocks are {want}")


def check_numbers(op: str, t: Tensors, kinds: dict[str, str]) -> None:
    """Check ARR-4; where there are small formats, all other numbers are float32."""
    plain = {n: a for n, a in t.items() if not set("*/") & set(kinds[n])}
    for n, a in plain.items():
        of = "iu" if "#" in kinds[n] else "b" if "!" in kinds[n] else "f"
        require(a.dtype.kind in of, f"ARR-4: {n} holds {a.dtype}")
    numbers = {a.dtype.name for a in plain.values() if a.dtype.kind == "f"}
    able = {"float32", "float64"} if op in INPUTS else {"float32"}
    require(len(numbers) <= 1 and numbers <= able, f"ARR-4: not all of one of {sorted(able)}")


def kinds_of(op: str, c: Config) -> dict[str, str]:
    """What section 3 says of an op's tensors."""
    if op.startswith("grouped"):
        op = f"{op} {c['layout']}"
    return dict(item.split(":") for item in {**INPUTS, **FP8}[op].split())


def checked(op: str, c: Config, t: Tensors) -> Tensors:
    """Check the tensors of a call, and give them in plain memory order."""
    kinds, has = kinds_of(op, c), of_op(op, c)
    allowed = {n for n in kinds if has.get(n.removesuffix("_codes").removesuffix("_scale"), True)}
    needed = {n for n in allowed if "?" not in kinds[n]}
    require(needed <= set(t) <= allowed, f"ARR-3: {op} does not take {sorted(t)}")
    check_numbers(op, t, kinds)
    t = unpacked(c, t, kinds)
    plain = {n: a for n, a in t.items() if "/" not in kinds[n]}
    size = check_shapes(c, plain, {n: re.sub("[^A-Z]", "", kind) for n, kind in kinds.items()})
    check_grids(c, t, kinds)
    check_ids(t, size)
    require("bias" not in t or np.isfinite(t["bias"]).all(), "GATE-11: the bias is not finite")
    if "tid2eid" in t:
        check_table(t, size)
    return {n: np.array(a, order="C") for n, a in t.items()}  # MOE-8: strides do not matter
