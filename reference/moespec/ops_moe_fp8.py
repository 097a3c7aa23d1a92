"""The ops moe_fp8 and moe_fp8_backward: the router of `moe` before FP8 experts (SPEC: MFP)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moespec.arrays import Float
from moespec.config import MoEConfig
from moespec.expert_fp8 import Fp8Expert, scheme_b
from moespec.linear import Operand
from moespec.moe import MoEWeights
from moespec.moe_fp8 import Fp8Weights, layer_backward, layer_forward
from moespec.ops_fp8 import entered
from moespec.ops_routing import chance, routed_backward_by, routed_by, split
from moespec.quant import LIFTED, Quantized, Scheme, lift

Tensors = dict[str, Any]


def weights_of(cfg: MoEConfig, given: Tensors) -> Fp8Weights:
    """The experts' matrices by name; MFP-8: those in E2M1 as E4M3."""
    made = {
        name.removesuffix("_codes"): matrix(cfg, given, name.removesuffix("_codes"))
        for name in given
        if name.endswith("_codes")
    }
    routed, shared = ({name: made.get(prefix + name) for name in Fp8Expert._fields} for prefix in ("", "shared_"))
    alone = None if shared["up_proj"] is None else Fp8Expert(**shared)  # type: ignore[arg-type]
    return Fp8Weights(Fp8Expert(**routed), alone)  # type: ignore[arg-type]


def matrix(cfg: MoEConfig, given: Tensors, name: str) -> Operand:
    """One matrix, or a stack of them."""
    scheme = scheme_b(cfg)
    stored = entered(given[f"{name}_codes"], given[f"{name}_scale"], scheme)
    return lifted(stored, scheme) if cfg.b_format == "e2m1" else Operand(stored, scheme)


def lifted(stored: Quantized, scheme: Scheme) -> Operand:
    """MFP-8: E2M1 as E4M3 in blocks of 128x128, matrix by matrix."""
    target = scheme._replace(format="e4m3", block=LIFTED)
    if stored.codes.ndim == 2:  # noqa: PLR2004 - the shared experts' one matrix
        return Operand(lift(stored, scheme, target), target)
    each = [lift(Quantized(*one), scheme, target) for one in zip(*stored, strict=True)]
    return Operand(Quantized(np.stack([q.codes for q in each]), np.stack([q.scale for q in each])), target)


def moe_fp8(cfg: MoEConfig, *, x: Float, gate_weight: Float, **given: Any) -> Tensors:  # noqa: ANN401 - arrays
    """The layer on float32 x (T, H), its experts in FP8: y (T, H), and its routing and parts as traces."""
    routing, weights = split(given)
    noise = chance(cfg, routing)
    chosen, (sent_idx, sent_weight, _) = routed_by(cfg, noise, x=x, weight=gate_weight, **routing)
    routed, shared, _ = layer_forward(x, sent_idx, sent_weight, weights_of(cfg, weights), cfg)
    return {**chosen, "routed": routed, "shared": shared, "y": routed + shared}  # MOE-1


def moe_fp8_backward(cfg: MoEConfig, *, x: Float, gate_weight: Float, dy: Float, **given: Any) -> Tensors:  # noqa: ANN401
    """Gradients of x and of every trained tensor, all float32, for given ids."""
    routing, weights = split(given)
    noise = chance(cfg, routing)
    w, dw = weights_of(cfg, weights), gradients(cfg, x)
    _, sent = routed_by(cfg, noise, x=x, weight=gate_weight, **routing)
    _, _, cache = layer_forward(x, sent[0], sent[1], w, cfg)
    dx_routed, dx_shared, dtopk_weight = layer_backward(dy, cache, w, dw, cfg)
    through = routed_backward_by(cfg, dtopk_weight, sent[2], x=x, weight=gate_weight, **routing)
    names = [name.removesuffix("_codes") for name in weights if name.endswith("_codes")]
    named = {"d" + name: dw._asdict()[name] for name in names}
    named |= {"dgate_weight": through.pop("dweight"), "dtopk_weight": dtopk_weight}
    return {**named, **through, "dx": through["dx"] + dx_routed + dx_shared}


def gradients(cfg: MoEConfig, x: Float) -> MoEWeights:
    """Buffers for the weights' gradients, of zeros (MOE-4)."""
    e, f, h, s = cfg.n_routed_experts, cfg.moe_intermediate_size, cfg.hidden_size, cfg.shared_width
    gates = 1 if cfg.gated else 0
    shapes = ((e, h), (e, f * gates, h), (e, f, h), (e, h, f), (s * gates, h), (s, h), (h, s))
    return MoEWeights(*(np.zeros_like(x, shape=shape) for shape in shapes))


MOE_FP8_OPS: dict[str, Callable[..., Tensors]] = {"moe_fp8": moe_fp8, "moe_fp8_backward": moe_fp8_backward}
