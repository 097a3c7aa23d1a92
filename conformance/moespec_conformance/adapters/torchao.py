"""torchao: its block-wise FP8 training's quantisers as written in torch, and its MX formats, on a CPU."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false

from importlib.metadata import version
from typing import Any

from moespec_conformance.adapters.float8 import Array, Config, dtype_of, entered, fixed, left, scale_left, tensor, whole
from moespec_conformance.protocol import NotSupported, to_numpy

try:
    import torch
    from torchao.prototype.blockwise_fp8_training import kernels as blockwise
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.kernels import f32_to_f4_unpacked, pack_uint4
    from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
except ImportError as error:
    raise ImportError("this adapter needs torch and torchao: pip install 'moespec[peers]'") from error

MODES = {"mx-floor": ScaleCalculationMode.FLOOR, "mx-rceil": ScaleCalculationMode.RCEIL}
FP4 = torch.float4_e2m1fn_x2


class Adapter:
    """One op a method."""

    name = "torchao"
    version = version("torchao")
    arithmetic = ("float32",)
    profiles = ("recipe-torchao", "recipe-mx-floor", "recipe-mx-rceil", "fp8")

    def cast(self, config: Config, *, x: Array) -> dict[str, Array]:
        """FP4 only; the other formats are torch's."""
        fixed(config, format="e2m1")
        return {"codes": to_numpy(pack_uint4(f32_to_f4_unpacked(tensor(x))))}

    def quantize(self, config: Config, *, x: Array) -> dict[str, Array]:
        """By the recipe's own function."""
        if config["recipe"] in MODES:
            return mx(config, tensor(x))
        fixed(config, recipe="torchao", format="e4m3", scale_format="float32")
        bm, bn = config["block"]
        whole(x.shape, config["block"])
        if bm == 1:
            codes, scale = blockwise.torch_blockwise_scale_act_quant_lhs(tensor(x), bn)
        elif bn == 1:
            whole(x.shape, [bm, bm])  # it wants the columns to be a multiple too
            codes, scale = blockwise.torch_blockwise_scale_act_quant_rhs(tensor(x), bm)
        elif bm == bn:
            codes, scale = blockwise.torch_blockwise_scale_weight_quant(tensor(x), bn)
        else:
            raise NotSupported("blocks are one row high, one column wide, or square")
        return {"codes": left(codes), "scale": scale_left(scale)}

    def dequantize(self, config: Config, *, codes: Array, scale: Array) -> dict[str, Array]:
        """MX formats only: UE8M0 scales of blocks along a row."""
        if config["block"][0] != 1 or scale.dtype == "float32":
            raise NotSupported("dequantised are MX formats, blocks one row high and scales in UE8M0")
        width, exponents = config["block"][1], torch.tensor(scale.view("uint8")).view(torch.float8_e8m0fnu)
        if config["format"] == "e2m1":
            packed, dtype = tensor(codes), FP4
            whole((len(codes), 2 * codes.shape[1]), config["block"])
        else:
            packed = entered(codes, config["format"], "e4m3", "e5m2")
            dtype = packed.dtype
            whole(codes.shape, config["block"])
        return {"x": to_numpy(to_dtype(packed, exponents, dtype, width, torch.float32))}


def mx(config: Config, x: torch.Tensor) -> dict[str, Array]:
    """`to_mx`: blocks along a row; along a column of the transpose, as its layers do for the backward."""
    fixed(config, scale_format="ue8m0", overflow="saturate")
    fp4 = config["format"] == "e2m1"
    dtype: Any = FP4 if fp4 else dtype_of(config["format"], "e4m3", "e5m2", "e2m1")
    (bm, bn), across = config["block"], config["block"][0] > 1
    if across and (bn > 1 or fp4):
        raise NotSupported("blocks are one row high, or (but for FP4) one column wide")
    whole(tuple(x.shape), config["block"])
    scale, codes = to_mx(x.t().contiguous() if across else x, dtype, bm if across else bn, MODES[config["recipe"]])
    made = to_numpy(codes.view(torch.uint8)), scale_left(scale)
    return dict(zip(("codes", "scale"), (part.T for part in made) if across else made, strict=True))
