"""A second implementation of SPEC.md's ops of FP8, in NumPy once more; it shares no code with the reference.

Each step is a small method, so that an honest variant or a planted bug overrides one and inherits the rest.
"""

from typing import Any, ClassVar

import numpy as np
from planted.arith import Array, Tensors
from planted.checks_config import NEUTRAL
from planted.taking import Config

from .checks import check_all
from .honest_adam import Adam
from .honest_blocks import How
from .honest_formats import Blocked
from .honest_layer import Layer8, Matrices


class Fp8(Layer8, Adam):
    """Plain float32 between codes."""

    profiles: ClassVar[tuple[str, ...]] = ()
    ops: ClassVar[tuple[str, ...]] = ()
    clauses: ClassVar[tuple[str, ...]] = ()

    def _entering(self, op: str, config: Config, t: Tensors) -> tuple[Config, Tensors]:
        config = {**NEUTRAL, **config}
        check_all(self, op, config, t)
        floats = {n: self._read(n, a) for n, a in t.items() if not n.endswith(("codes", "scale"))}
        return config, {**t, **floats}

    def _blocked(self, t: Tensors, prefix: str, how: How) -> Blocked:
        codes, scale = self._inside(t[f"{prefix}codes"], how.format), self._scale_in(t[f"{prefix}scale"])
        return Blocked(codes, scale, how.format, how.block)

    def _leaving(self, q: Blocked, how: How) -> Tensors:
        return {"codes": self._outside(q.codes, q.format), "scale": self._scale_out(q.scale, how.scales)}

    def cast(self, config: Config, *, x: Array) -> Tensors:
        """Codes alone."""
        config, t = self._entering("cast", config, {"x": x})
        codes = self._encode(t["x"], config["format"], config["overflow"])
        return {"codes": self._outside(codes, config["format"])}

    def quantize(self, config: Config, *, x: Array) -> Tensors:
        """Codes and scales."""
        config, t = self._entering("quantize", config, {"x": x})
        return self._leaving(self._quantize(t["x"], How.of(config)), How.of(config))

    def dequantize(self, config: Config, **t: Array) -> Tensors:
        """Numbers again."""
        config, t = self._entering("dequantize", config, t)
        return {"x": self._dequantize(self._blocked(t, "", How.of(config)))}

    def requantize(self, config: Config, **t: Array) -> Tensors:
        """In other blocks."""
        config, t = self._entering("requantize", config, t)
        q, how = self._blocked(t, "", How.of(config, "a_")), How.of(config, "b_")
        return self._leaving(self._requantize(q, how), how)

    def lift_fp4(self, config: Config, **t: Array) -> Tensors:
        """E2M1 as E4M3."""
        config, t = self._entering("lift_fp4", config, t)
        q, how = self._blocked(t, "", How.of(config, "a_")), How.of(config, "b_")
        return self._leaving(self._lift(q, how), how)

    def _operands(self, config: Config, t: Tensors) -> tuple[Blocked, Blocked]:
        a, b = (self._blocked(t, letter, How.of(config, letter)) for letter in ("a_", "b_"))
        return a, b

    def matmul_fp8(self, config: Config, **t: Array) -> Tensors:
        """One product."""
        config, t = self._entering("matmul_fp8", config, t)
        return {"y": self._gemm("matmul", *self._operands(config, t), config, t.get("c"))}

    def grouped_matmul_fp8(self, config: Config, **t: Array) -> Tensors:
        """Every expert's product."""
        config, t = self._entering("grouped_matmul_fp8", config, t)
        a, b = self._operands(config, t)
        if config["layout"] == "k_grouped":
            return {"y": self._k_grouped(a, b, t["expert_size"], t["c"], config)}
        if config["layout"] == "masked":
            return {"y": self._boxes(a, b, t["expert_count"], config)}
        psum = config["layout"] == "psum"
        index = self._ends(t["expert_end"], len(a.codes), config) if psum else t["group_index"]
        return {"y": self._by_index(a, b, index, config)}

    def _matrices(self, config: Config, t: Tensors, prefix: str = "") -> Matrices | None:
        how = How.of(config, "b_")
        names = [f"{prefix}{name}_proj_" for name in ("gate", "up", "down")]
        made = [self._blocked(t, name, how) if f"{name}codes" in t else None for name in names]
        if made[1] is None or made[2] is None:
            return None
        if how.format == "e2m1":
            made = [q if q is None else self._lifted(q, how) for q in made]
        gate, up, down = made
        assert up is not None
        assert down is not None
        return Matrices(gate, up, down)

    def _lifted(self, q: Blocked, how: How) -> Blocked:
        target = how._replace(format="e4m3", block=(128, 128), overflow="saturate")
        if q.codes.ndim == 2:
            return self._lift(q, target)
        made = [self._lift(q.at(e), target) for e in range(len(q.codes))]
        return made[0]._replace(codes=np.stack([m.codes for m in made]), scale=np.stack([m.scale for m in made]))

    def _layer(self, op: str, config: Config, t: Tensors) -> tuple[Any, Any, Array, Tensors]:
        config, t = self._entering(op, config, t)
        routed, shared = self._matrices(config, t), self._matrices(config, t, "shared_")
        assert routed is not None
        r = self._route(config, t, backward="dy" in t)
        return r, t, *self._run(r, t, (routed, shared))

    def moe_fp8(self, config: Config, **t: Array) -> Tensors:
        """The layer."""
        return {"y": self._out(self._layer("moe_fp8", config, t)[2])}

    def moe_fp8_backward(self, config: Config, **t: Array) -> Tensors:
        """Gradients of the layer."""
        r, t, _, of = self._layer("moe_fp8_backward", config, t)
        dx, dw = of.pop("x"), of.pop("w")
        if config["drop_policy"]:
            dw, dscores = self._rested_vjp(self._asked(r), self._left(self._asked(r)), dw)
            r = r._replace(tensors={**r.tensors, "dscores": dscores})
        dx_gate, router = self._router_vjp(r, dw, "dgate_weight")
        for name in ("gate", "up", "down"):  # no expert had a row
            if name not in of and f"{name}_proj_scale" in t:
                of[name] = np.zeros(self._shape_of(r, name), np.float32)
        for name in ("gate", "up", "down"):
            if f"shared_{name}" not in of and f"shared_{name}_proj_scale" in t:
                of[f"shared_{name}"] = np.zeros(self._shape_of(r, name, shared=True), np.float32)
        return {**{f"d{name}_proj": self._out(a) for name, a in of.items()}, **router, "dx": self._out(dx + dx_gate)}

    def _shape_of(self, r: Any, name: str, *, shared: bool = False) -> tuple[int, ...]:
        h, f = r.cfg["hidden_size"], r.cfg["moe_intermediate_size"] * (r.cfg["n_shared_experts"] if shared else 1)
        shape = (h, f) if name == "down" else (f, h)
        return shape if shared else (r.cfg["n_routed_experts"], *shape)
