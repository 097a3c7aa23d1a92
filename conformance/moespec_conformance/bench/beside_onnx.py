"""ONNX Runtime's operator com.microsoft.MoE on a CPU.

Its router is softmax over the chosen: given the logarithms of sigmoid scores that is DeepSeek-V3's. It takes SwiGLU
only with gate and up in alternating rows, in a tensor of its own. It has no backward.
"""

# the libraries leave much untyped, and need not be here
# mypy: disable-error-code="import-not-found,import-untyped"
# pyright: basic, reportMissingImports=false

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from moespec.arrays import Float
from moespec_conformance.bench.beside import BOTH, FORWARD, Calls, Task

OPSETS = {"": 17, "com.microsoft": 1}


def model(given: Task, inputs: dict[str, Float]) -> bytes:
    """The layer as a graph; its weights are inputs, which may be larger than a file of protobuf."""
    cfg = given.layer.cfg
    how = {"activation_type": "swiglu", "swiglu_fusion": 1, "normalize_routing_weights": 1}
    nodes = [
        helper.make_node("MatMul", ["x", "gate_weight"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Log", ["scores"], ["log_scores"]),
        helper.make_node(
            "MoE",
            ["x", "log_scores", "alternating", "", "down_proj"],
            ["unscaled"],
            domain="com.microsoft",
            k=cfg.num_experts_per_tok,
            **how,
        ),
        helper.make_node("Mul", ["unscaled", "scale"], ["y"]),
    ]
    said = {"y": inputs["x"]}
    taken, given_back = ([tensor(name, a) for name, a in each.items()] for each in (inputs, said))
    opsets = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    graph = helper.make_graph(nodes, "layer", taken, given_back)
    serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return serialized


def tensor(name: str, a: Float) -> Any:  # noqa: ANN401 - its protobuf
    """A float32 of this shape."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape)


def onnxruntime(given: Task) -> Calls:
    """A session on one thread."""
    weights, cfg = given.layer.weights, given.layer.cfg
    inputs = {
        "x": given.layer.x,
        "gate_weight": np.ascontiguousarray(weights.gate_weight.T),
        "alternating": np.stack([weights.gate_proj, weights.up_proj], axis=2).reshape(given.gate_up_proj.shape),
        "down_proj": weights.down_proj,
        "scale": np.array(cfg.routed_scaling_factor, np.float32),
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model(given, inputs), options, providers=["CPUExecutionProvider"])
    held = {name: ort.OrtValue.ortvalue_from_numpy(a) for name, a in inputs.items()}
    return {
        FORWARD: lambda: {"y": session.run_with_ort_values(None, held)[0].numpy()},
        BOTH: "it has no backward",
    }
