"""torch itself: its casts to and from small floats, its scaled product, and its AdamW, on a CPU."""

# the libraries leave much untyped
# pyright: basic, reportMissingImports=false, reportPrivateImportUsage=false

import torch

from moespec_conformance.adapters.float8 import (
    TORCH,
    Array,
    Config,
    dtype_of,
    entered,
    fixed,
    left,
    scale_entered,
    tensor,
)
from moespec_conformance.protocol import NotSupported, to_numpy

# what `.to` does beyond the largest number; it cannot be chosen
OVERFLOW = {"e4m3": "saturate", "e5m2": "nan", "e4m3fnuz": "nan", "e5m2fnuz": "nan", "bfloat16": "nan"}


class Adapter:
    """One op a method."""

    name = "torch"
    version = torch.__version__
    arithmetic = ("float32",)
    profiles = ("fp8", "fp8-products", "moments")

    def cast(self, config: Config, *, x: Array) -> dict[str, Array]:
        """`Tensor.to`."""
        dtype = dtype_of(config["format"], *TORCH)
        given = tensor(x)
        if (given.abs() > torch.finfo(dtype).max).any():
            fixed(config, overflow=OVERFLOW[config["format"]])
        return {"codes": left(given.to(dtype))}

    def dequantize(self, config: Config, *, codes: Array, scale: Array) -> dict[str, Array]:
        """Codes and scales as torch reads them, multiplied."""
        numbers = entered(codes, config["format"], *TORCH).to(torch.float32)
        (m, c), (bm, bn) = numbers.shape, config["block"]
        each = scale_entered(scale).to(torch.float32).repeat_interleave(bm, 0)[:m].repeat_interleave(bn, 1)[:, :c]
        return {"x": to_numpy(numbers * each)}

    def matmul_fp8(
        self, config: Config, *, a_codes: Array, a_scale: Array, b_codes: Array, b_scale: Array
    ) -> dict[str, Array]:
        """`torch._scaled_mm`, which has one scale a row, and does not promote."""
        fixed(config, accumulate="float32")
        a = entered(a_codes, config["a_format"], "e4m3", "e5m2")
        b = entered(b_codes, config["b_format"], "e4m3", "e5m2")
        scales = [
            row_scales(scale, block[0], len(codes))
            for scale, block, codes in ((a_scale, config["a_block"], a), (b_scale, config["b_block"], b))
        ]
        y = torch._scaled_mm(a, b.t(), scales[0], scales[1].t(), out_dtype=torch.float32)  # noqa: SLF001 - its name
        return {"y": to_numpy(y)}

    def adamw(  # noqa: PLR0913 - the op's tensors
        self, config: Config, *, param: Array, exp_avg: Array, exp_avg_sq: Array, grad: Array, step: Array
    ) -> dict[str, Array]:
        """`torch.optim.AdamW`, which keeps its moments in the parameter's dtype."""
        fixed(config, moment_format="float32")
        weight = torch.nn.Parameter(tensor(param))
        weight.grad = tensor(grad)
        optimizer = torch.optim.AdamW(
            [weight],
            lr=config["learning_rate"],
            betas=(config["adam_beta1"], config["adam_beta2"]),
            eps=config["adam_epsilon"],
            weight_decay=config["weight_decay"],
        )
        state = {"exp_avg": tensor(exp_avg), "exp_avg_sq": tensor(exp_avg_sq)}
        optimizer.state[weight] = {"step": torch.tensor(float(step) - 1), **state}
        optimizer.step()
        return {"param": to_numpy(weight), **{name: to_numpy(moment) for name, moment in state.items()}}


def row_scales(scale: Array, height: int, rows: int) -> torch.Tensor:
    """One scale a row (rows, 1), if there is only one along the contraction."""
    if scale.shape[1] != 1:
        raise NotSupported("on a CPU torch._scaled_mm has one scale a row")
    return scale_entered(scale).to(torch.float32).repeat_interleave(height, 0)[:rows].contiguous()
