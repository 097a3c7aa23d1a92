"""Hugging Face transformers: how it quantises and dequantises FP8 checkpoints (`finegrained_fp8`), on a CPU."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false, reportArgumentType=false

from importlib.metadata import version
from types import SimpleNamespace
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
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
except ImportError as error:
    raise ImportError("this adapter needs torch and transformers: pip install 'moespec[peers]'") from error


class Adapter:
    """One op a method."""

    name = "transformers-fp8"
    version = version("transformers")
    arithmetic = ("float32",)
    profiles = ("fp8",)

    def quantize(self, config: Config, *, x: Array) -> dict[str, Array]:
        """`Fp8Quantize`, of which weight_block_size and scale_fmt are configured."""
        fixed(config, recipe=("deepseek-v3", "deepseek-v3.1"), format="e4m3", overflow="saturate")
        if not x.size:
            raise NotSupported("a weight has elements")
        whole(x.shape, config["block"])
        scale_fmt = {"float32": "float", "ue8m0": "ue8m0"}[config["scale_format"]]
        made = Fp8Quantize(quantizer(config["block"], scale_fmt)).convert({"weight": tensor(x)})
        return {"codes": left(made["weight"]), "scale": scale_left(made["weight_scale_inv"])}

    def dequantize(self, config: Config, *, codes: Array, scale: Array) -> dict[str, Array]:
        """`Fp8Dequantize`, which reads the blocks' size off the grid of scales; FP4 comes as int8."""
        if not codes.size:
            raise NotSupported("a weight has elements")
        fmt = config["format"]
        weight = tensor(codes.view("int8")) if fmt == "e2m1" else entered(codes, fmt, "e4m3", "e2m1")
        given = {"weight": weight, "weight_scale_inv": scale_entered(scale)}
        converted = Fp8Dequantize(quantizer(config["block"], "float")).convert(
            given, full_layer_name="layer.weight", model=destination()
        )
        return {"x": to_numpy(converted["layer.weight"])}


def quantizer(block: list[int], scale_fmt: str) -> Any:  # noqa: ANN401 - what these ops read of their quantizer
    """A quantizer with this configuration."""
    configuration = SimpleNamespace(weight_block_size=tuple(block), scale_fmt=scale_fmt)
    return SimpleNamespace(quantization_config=configuration)


def destination() -> torch.nn.Module:
    """A model with one float32 layer, whose dtype is what a weight becomes."""
    return torch.nn.ModuleDict({"layer": torch.nn.Linear(1, 1, bias=False)})
