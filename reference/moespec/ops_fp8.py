"""The ops of FP8 and of the optimiser: codes as others store them in and out (SPEC: FMT, QNT, LIN, OPT)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moespec.arrays import Float, Int
from moespec.config import MoEConfig
from moespec.formats import FORMATS, encode
from moespec.linear import Adding, Operand, grouped, k_grouped, matmul, rows_of
from moespec.linear import expert_of as matrix_of
from moespec.optim import Trained, adamw
from moespec.quant import Quantized, Scheme, dequantize, lift, quantize, requantize
from moespec.storage import inside, outside, scale_inside, scale_outside

Tensors = dict[str, Any]


def scheme_q(cfg: MoEConfig) -> Scheme:
    """The config's `format` and `block`."""
    return Scheme(cfg.recipe, cfg.format, cfg.block, cfg.scale_format, cfg.overflow)


def schemes(cfg: MoEConfig) -> tuple[Scheme, Scheme]:
    """Those of a_ and of b_."""
    q = scheme_q(cfg)
    return q._replace(format=cfg.a_format, block=cfg.a_block), q._replace(format=cfg.b_format, block=cfg.b_block)


def entered(codes: Any, scale: Any, scheme: Scheme) -> Quantized:  # noqa: ANN401 - arrays of ml_dtypes
    """Codes and scales from outside."""
    return Quantized(inside(codes, scheme.fmt), scale_inside(scale))


def left(quantized: Quantized, scheme: Scheme) -> Tensors:
    """Codes and scales as others store them."""
    scale = scale_outside(quantized.scale, scheme.scale_format)
    return {"scale": scale, "codes": outside(quantized.codes, scheme.fmt)}


def cast_op(cfg: MoEConfig, *, x: Float) -> Tensors:
    """Codes of float32 x (M, C) in `format`, without a scale."""
    fmt = FORMATS[cfg.format]
    return {"codes": outside(encode(x, fmt, cfg.overflow), fmt)}


def quantize_op(cfg: MoEConfig, *, x: Float) -> Tensors:
    """Codes (M, C) and scales of the blocks of float32 x, by the config's recipe."""
    return left(quantize(x, scheme_q(cfg)), scheme_q(cfg))


def dequantize_op(cfg: MoEConfig, *, codes: Any, scale: Any) -> Tensors:  # noqa: ANN401 - arrays of ml_dtypes
    """What codes and scales stand for: x (M, C) float32."""
    return {"x": dequantize(entered(codes, scale, scheme_q(cfg)), scheme_q(cfg))}


def requantize_op(cfg: MoEConfig, *, codes: Any, scale: Any) -> Tensors:  # noqa: ANN401 - arrays of ml_dtypes
    """The same matrix from a_format in a_block to b_format in b_block."""
    a, b = schemes(cfg)
    return left(requantize(entered(codes, scale, a), a, b), b)


def lift_fp4_op(cfg: MoEConfig, *, codes: Any, scale: Any) -> Tensors:  # noqa: ANN401 - arrays of ml_dtypes
    """E2M1 in a_block as E4M3 in b_block, without loss."""
    a, b = schemes(cfg)
    return left(lift(entered(codes, scale, a), a, b), b)


def matmul_fp8(  # noqa: PLR0913 - the op's tensors
    cfg: MoEConfig,
    *,
    a_codes: Any,  # noqa: ANN401 - arrays of ml_dtypes
    a_scale: Any,  # noqa: ANN401
    b_codes: Any,  # noqa: ANN401
    b_scale: Any,  # noqa: ANN401
    c: Float | None = None,
) -> Tensors:
    """a (M, C) times the transpose of b (N, C), block-scaled: y (M, N) float32; c (M, N) is what was there before."""
    a, b = operands(cfg, a_codes=a_codes, a_scale=a_scale, b_codes=b_codes, b_scale=b_scale)
    return {"y": matmul(a, b, Adding(cfg.accumulate, cfg.promote_every), c)}


def operands(cfg: MoEConfig, **given: Any) -> tuple[Operand, Operand]:  # noqa: ANN401 - arrays of ml_dtypes
    """Both operands of a product."""
    a, b = schemes(cfg)
    of_a, of_b = (entered(given[f"{o}_codes"], given[f"{o}_scale"], s) for o, s in (("a", a), ("b", b)))
    return Operand(of_a, a), Operand(of_b, b)


def grouped_matmul_fp8(cfg: MoEConfig, **given: Any) -> Tensors:  # noqa: ANN401 - arrays of ml_dtypes
    """Each expert's rows by its matrix, in the config's layout: y (M, N), (E, M, N) masked or k_grouped, float32."""
    a, b = operands(cfg, **given)
    how = Adding(cfg.accumulate, cfg.promote_every)
    if cfg.layout == "k_grouped":
        return {"y": k_grouped(a, b, given["expert_size"].tolist(), given["c"], how)}
    if cfg.layout == "masked":
        return {"y": boxed(a, b, given["expert_count"].tolist(), how)}
    index = given["group_index"] if cfg.layout == "contiguous" else index_of(given["expert_end"], a, cfg)
    return {"y": grouped(a, b, index, how)}


def boxed(a: Operand, b: Operand, counts: list[int], how: Adding) -> Float:
    """LIN-5: each expert's box of rows (E, M, N); zeros behind its rows."""
    (experts, size), width = a.matrix.codes.shape[:2], b.matrix.codes.shape[1]
    y = np.zeros_like(a.matrix.scale, shape=(experts, size, width))
    for e, count in enumerate(counts):
        if count:
            y[e, :count] = matmul(rows_of(matrix_of(a, e), slice(count)), matrix_of(b, e), how)
    return y


def index_of(expert_end: Int, a: Operand, cfg: MoEConfig) -> Int:
    """DSP-6: which expert each row is of, from where experts' rows end; -1 between them."""
    index = np.full_like(expert_end, -1, shape=a.matrix.codes.shape[:1])
    start = 0
    for e, end in enumerate(expert_end.tolist()):
        index[start:end] = e
        start = -(-end // cfg.alignment) * cfg.alignment
    return index


def adamw_op(  # noqa: PLR0913 - the op's tensors
    cfg: MoEConfig, *, param: Float, exp_avg: Float, exp_avg_sq: Float, grad: Float, step: Int
) -> Tensors:
    """One step of AdamW: param, exp_avg, exp_avg_sq (M, C)."""
    return adamw(Trained(param, exp_avg, exp_avg_sq), grad, int(step), cfg)._asdict()


FP8_OPS: dict[str, Callable[..., Tensors]] = {
    "cast": cast_op,
    "quantize": quantize_op,
    "dequantize": dequantize_op,
    "requantize": requantize_op,
    "lift_fp4": lift_fp4_op,
    "matmul_fp8": matmul_fp8,
    "grouped_matmul_fp8": grouped_matmul_fp8,
    "adamw": adamw_op,
}
