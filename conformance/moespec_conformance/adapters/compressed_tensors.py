"""compressed-tensors: FP8 in blocks of a weight, and in groups along a row, on a CPU."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false, reportArgumentType=false

from importlib.metadata import version
from typing import Any

from moespec_conformance.adapters.float8 import (
    Array,
    Config,
    entered,
    fixed,
    left,
    scale_entered,
    scale_left,
    tensor,
    whole,
)
from moespec_conformance.protocol import NotSupported, to_numpy

try:
    import torch
    from compressed_tensors.quantization import QuantizationArgs, dequantize, quantize
    from compressed_tensors.quantization.utils import (
        calculate_qparams,
        compute_dynamic_scales_and_zp,
        maybe_pad_tensor_for_block_quant,
    )
except ImportError as error:
    raise ImportError("this adapter needs torch and compressed-tensors: pip install 'moespec[peers]'") from error


class Adapter:
    """One op a method."""

    name = "compressed-tensors"
    version = version("compressed-tensors")
    arithmetic = ("float32",)
    profiles = ("fp8",)

    def quantize(self, config: Config, *, x: Array) -> dict[str, Array]:
        """Blocks by `calculate_qparams` from what its observers see, the least and the largest; groups dynamically."""
        fixed(config, recipe="deepseek-v3", format="e4m3", scale_format="float32", overflow="saturate")
        if not x.size:
            raise NotSupported("a weight has elements")
        args, given = arguments(config, x.shape), tensor(x)
        if args.group_size:
            scale, zero = compute_dynamic_scales_and_zp(given, args, torch.nn.Identity())
        else:
            bm, bn = config["block"]
            padded = maybe_pad_tensor_for_block_quant(given, args.block_structure)
            tiles = padded.reshape(len(padded) // bm, bm, -1, bn)
            scale, zero = calculate_qparams(tiles.amin((1, 3)), tiles.amax((1, 3)), args)
        codes = quantize(given, scale, zero, args, dtype=torch.float8_e4m3fn)
        return {"codes": left(codes), "scale": scale_left(scale)}

    def dequantize(self, config: Config, *, codes: Array, scale: Array) -> dict[str, Array]:
        """`dequantize`, by the same arguments."""
        fixed(config, format="e4m3")
        if not codes.size:
            raise NotSupported("a weight has elements")
        args = arguments(config, codes.shape)
        multiplier = scale_entered(scale).to(torch.float32)
        return {"x": to_numpy(dequantize(entered(codes, "e4m3", "e4m3"), multiplier, args=args))}


def arguments(config: Config, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - its QuantizationArgs
    """Strategy `group` for blocks of one row, else `block`."""
    bm, bn = config["block"]
    if bm == 1:
        whole(shape, config["block"])
        return QuantizationArgs(num_bits=8, type="float", strategy="group", group_size=bn, symmetric=True, dynamic=True)
    return QuantizationArgs(num_bits=8, type="float", strategy="block", block_structure=[bm, bn], symmetric=True)
