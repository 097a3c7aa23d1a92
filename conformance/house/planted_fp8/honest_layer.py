"""The honest implementation's layer with FP8 experts, forward and backward: what is quantised, when, and how."""

from typing import NamedTuple

import numpy as np
from planted.arith import Array, Tensors
from planted.honest import Honest
from planted.honest_expert import Grads
from planted.honest_gate import Routing
from planted.honest_glu import Mlp

from .honest_blocks import RECIPES, How
from .honest_formats import Blocked, Config
from .honest_products import Products


class Matrices(NamedTuple):
    """The quantised matrices of one expert, or of all of them; gate may be missing."""

    gate: Blocked | None
    up: Blocked
    down: Blocked

    def one(self, e: int) -> "Matrices":
        """One expert of all."""
        return Matrices(None if self.gate is None else self.gate.at(e), self.up.at(e), self.down.at(e))


class Kept(NamedTuple):
    """What an expert's backward looks at; gate and up as they were kept."""

    x: Array
    codes: Blocked
    gate: Array | None
    up: Array
    w: Array
    y: Array


class Layer8(Products, Honest):
    """One expert and all of them; the router is that of the plain layer."""

    def _quant(self, name: str, x: Array, how: How) -> Blocked:  # noqa: ARG002 - for overriding
        return self._quantize(x, how)

    def _stored(self, name: str, a: Array) -> Array:  # noqa: ARG002 - for overriding
        return a

    def _how_sent(self, config: Config) -> How:
        """How x is quantised before it is sent, and the gradient likewise."""
        how = How.of(config, "a_")
        return how._replace(scales=RECIPES[how.recipe].sent or how.scales, overflow="saturate")

    def _how(self, config: Config) -> How:
        return How.of(config, "a_")._replace(overflow="saturate")

    def _mlp_of(self, config: Config) -> Mlp:
        """What the plain layer's activations want to see."""
        gate = np.empty(0) if config["gated"] else None
        return Mlp(gate, np.empty(0), np.empty(0), config)

    def _opened(self, config: Config, gate: Array | None, up: Array) -> Array:
        return self._glu(self._mlp_of(config), gate, up)

    def _opened_vjp(self, config: Config, kept: Kept, dh: Array) -> tuple[Array | None, Array]:
        return self._glu_vjp(self._mlp_of(config), kept.gate, kept.up, dh)

    def _keep(self, name: str, a: Array, config: Config) -> Array:
        return self._dequantize(self._quant(f"kept {name}", a, self._how(config)))

    def _entered(self, h: Array, w: Array, config: Config) -> Array:
        """What enters down_proj."""
        return h * w[:, None] if self._early(config) else h

    def _forward(self, x: Array, codes: Blocked, w: Array, m: Matrices, config: Config) -> tuple[Array, Kept]:
        gate = None if m.gate is None else self._stored("gate", self._gemm("gate", codes, m.gate, config))
        up = self._stored("up", self._gemm("up", codes, m.up, config))
        h = self._stored("h", self._entered(self._opened(config, gate, up), w, config))
        y = self._stored("out", self._gemm("down", self._quant("h", h, self._how(config)), m.down, config))
        kept_gate = None if gate is None else self._keep("gate", gate, config)
        kept = Kept(x, codes, kept_gate, self._keep("up", up, config), w, y)
        return (y if self._early(config) else self._stored("weighted", y * w[:, None])), kept

    def _by_token(self, name: str, x: Array, codes: Blocked, how: How) -> Blocked:
        """Rows as columns, in blocks along the tokens: of their codes or of the values."""
        source = self._dequantize(codes) if RECIPES[how.recipe].by_codes else x
        return self._quant(f"{name} by token", source.T, how)

    def _drow(self, d: Array, out: Array) -> Array:
        return (d * out).sum(axis=1)

    def _backward(self, dy: Array, kept: Kept, m: Matrices, config: Config) -> Grads:
        early, how, sent = self._early(config), self._how(config), self._how_sent(config)
        w = kept.w[:, None]
        h = self._opened(config, kept.gate, kept.up)
        dw = self._drow(dy, kept.y)
        dy = dy if early else self._stored("weighted dy", dy * w)
        codes = self._quant("dy", dy, sent)
        dh = self._stored("dh", self._gemm("dh", codes, self._turned("down", m.down), config))
        entered = self._quant("h by token", self._entered(h, kept.w, config).T, how)
        of = {"down": self._gemm("wdown", self._by_token("dy", dy, codes, sent), entered, config)}
        if early:
            dw, dh = self._drow(dh, h), dh * w
        x, dx = self._by_token("x", kept.x, kept.codes, sent), np.zeros_like(kept.x)
        dgate, dup = self._opened_vjp(config, kept, dh)
        for name, d, p in (("gate", dgate, m.gate), ("up", dup, m.up)):
            if d is not None and p is not None:
                made = self._quant(f"d{name}", d, how)
                dx = dx + self._gemm(f"dx {name}", made, self._turned(name, p), config)
                of[name] = self._gemm(f"w{name}", self._by_token(f"d{name}", d, made, how), x, config)
        return Grads(self._stored("dx", dx), of, dw)

    def _turned(self, name: str, m: Blocked) -> Blocked:  # noqa: ARG002 - for overriding
        return self._transposed(m)

    def _shared_input(self, x: Array, codes: Blocked, config: Config) -> Blocked:  # noqa: ARG002
        return codes

    def _routed_input(self, x: Array, codes: Blocked, token: Array, config: Config) -> Blocked:  # noqa: ARG002
        return codes.at(token)

    def _run(self, r: Routing, t: Tensors, matrices: tuple[Matrices, Matrices | None]) -> tuple[Array, Tensors]:
        """The routed and the shared sum; and, with dy, the gradients."""
        (routed, shared), config = matrices, r.cfg
        ids, w = self._left_of(r)
        rows, weight, x = self._plan(ids, len(r.weight)), w.astype(np.float32), r.x
        codes = self._quant("x", x, self._how_sent(config))
        out, dx, dw = np.zeros((len(rows.token), x.shape[1]), np.float32), np.zeros_like(x), np.zeros_like(weight)
        of: Tensors = {}
        for e, at in rows.segments():
            token, mine = rows.token[at], weight[rows.token[at], rows.slot[at]]
            sent = self._routed_input(x, codes, token, config)
            out[at], kept = self._forward(x[token], sent, mine, routed.one(e), config)
            if "dy" in t:
                g = self._backward(t["dy"][token], kept, routed.one(e), config)
                dx[token] += g.x
                dw[token, rows.slot[at]] = g.w
                for name, grad in g.of.items():
                    of.setdefault(name, self._blank(name, (len(r.weight), *grad.shape)))[e] = grad
        y = self._scatter(out, rows, w.shape)
        if shared is not None and len(x):
            more, kept = self._forward(x, self._shared_input(x, codes, config), np.ones_like(x[:, 0]), shared, config)
            y = self._sum(r, y, more)
            if "dy" in t:
                g = self._backward(t["dy"], kept, shared, config)
                dx = dx + g.x
                of |= {f"shared_{name}": a for name, a in g.of.items()}
        return y, {**of, "x": dx, "w": dw}
