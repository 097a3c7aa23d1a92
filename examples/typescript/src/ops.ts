// The ops: named tensors in, named tensors out (section 3 of SPEC.md). Nothing is computed here.

import { configOf, type Config } from "./config.js";
import { combine, dispatch, rowOfSlot, type Places } from "./dispatch.js";
import { NotSupported, demand } from "./errors.js";
import { expert, expertBackward, type ExpertWeights } from "./expert.js";
import { gate, gateBackward, type Wishes } from "./gate.js";
import { Inputs } from "./inputs.js";
import { layer, layerBackward, type LayerWeights } from "./layer.js";
import type { Ids, Matrix } from "./matrix.js";
import type { Tensor, Tensors } from "./safetensors.js";

type Op = (config: Config, inputs: Inputs) => Record<string, Tensor>;

const OPS: Readonly<Record<string, Op>> = {
  gate(config, inputs) {
    const routing = gate(config, inputs.matrix("x"), inputs.matrix("weight"), wishesOf(inputs));
    return {
      logits: numbers(routing.logits),
      scores: numbers(routing.scores),
      ...(routing.groupScores && { group_scores: numbers(routing.groupScores) }),
      topk_idx: ids(routing.topkIdx),
      topk_weight: numbers(routing.topkWeight),
    };
  },

  gate_backward(config, inputs) {
    inputs.bias(); // changes nothing, but is refused where it is not finite
    const { dx, dweight } = gateBackward(config, inputs.matrix("x"), inputs.matrix("weight"), {
      topkIdx: inputs.topkIdx(),
      dtopkWeight: inputs.matrix("dtopk_weight"),
      dscores: inputs.optionalMatrix("dscores"),
      dlogits: inputs.optionalMatrix("dlogits"),
    });
    return { dx: numbers(dx), dweight: numbers(dweight) };
  },

  expert(_, inputs) {
    const { h, y } = expert(inputs.matrix("x"), expertWeights(inputs));
    return { h: numbers(h), y: numbers(y) };
  },

  expert_backward(_, inputs) {
    const { dx, dweights } = expertBackward(inputs.matrix("x"), expertWeights(inputs), inputs.matrix("dy"));
    return { dx: numbers(dx), ...gradients(dweights) };
  },

  dispatch(config, inputs) {
    const { count, places, rows } = dispatch(inputs.matrix("x"), inputs.topkIdx(), config.E);
    return {
      expert_count: integers(count),
      row_token: integers(places.token),
      row_slot: integers(places.slot),
      rows: numbers(rows),
    };
  },

  combine(_, inputs) {
    const [T, W] = [inputs.size("T"), inputs.size("W")];
    const places = { token: inputs.integers("row_token", T), slot: inputs.integers("row_slot", W) };
    checkPlaces(places, W);
    return { y: numbers(combine(inputs.matrix("rows"), rowOfSlot(places, T, W), inputs.matrix("topk_weight"))) };
  },

  moe(config, inputs) {
    const { routing, routed, shared, y } = layer(config, inputs.matrix("x"), layerWeights(inputs), wishesOf(inputs));
    return {
      topk_idx: ids(routing.topkIdx),
      topk_weight: numbers(routing.topkWeight),
      routed: numbers(routed),
      shared: numbers(shared),
      y: numbers(y),
    };
  },

  moe_backward(config, inputs) {
    inputs.bias();
    const x = inputs.matrix("x");
    const back = layerBackward(config, x, layerWeights(inputs), inputs.topkIdx(), inputs.matrix("dy"));
    return {
      dx: numbers(back.dx),
      dgate_weight: numbers(back.dgateWeight),
      ...gradients(back.dexperts, "", config.E),
      ...(back.dshared && gradients(back.dshared, "shared_")),
    };
  },
};

/** Compute an op; its tensors are read when op and config are found to be good. */
export function run(op: string, config: unknown, tensors: () => Tensors): Tensors {
  const compute = Object.hasOwn(OPS, op) ? OPS[op] : undefined;
  if (compute === undefined) throw new NotSupported(`op ${op} is not offered`);
  const checked = configOf(config);
  return new Map(Object.entries(compute(checked, new Inputs(op, checked, tensors()))));
}

function wishesOf(inputs: Inputs): Wishes {
  const topkIdx = inputs.has("topk_idx") ? inputs.topkIdx() : undefined;
  return { bias: inputs.bias(), mask: inputs.mask(), topkIdx };
}

function expertWeights(inputs: Inputs, prefix = ""): ExpertWeights {
  const [gateProj, upProj] = [inputs.matrix(`${prefix}gate_proj`), inputs.matrix(`${prefix}up_proj`)];
  return { gateProj, upProj, downProj: inputs.matrix(`${prefix}down_proj`) };
}

function layerWeights(inputs: Inputs): LayerWeights {
  const shared = inputs.has("shared_up_proj") ? expertWeights(inputs, "shared_") : undefined;
  return { gateWeight: inputs.matrix("gate_weight"), experts: expertWeights(inputs), shared };
}

/** ARR-6: token and slot are both -1 or neither, and no slot has two rows. */
function checkPlaces({ token, slot }: Places, slots: number): void {
  const taken = new Set<number>();
  token.forEach((t, n) => {
    demand(t >= 0 === slot[n] >= 0, `ARR-6: row ${n} has only one of token and slot`);
    const place = t * slots + slot[n];
    demand(t < 0 || !taken.has(place), `ARR-6: two rows for slot ${slot[n]} of token ${t}`);
    taken.add(place);
  });
}

function gradients({ gateProj, upProj, downProj }: ExpertWeights, prefix = "", stacked = 0): Record<string, Tensor> {
  return {
    [`d${prefix}gate_proj`]: numbers(gateProj, stacked),
    [`d${prefix}up_proj`]: numbers(upProj, stacked),
    [`d${prefix}down_proj`]: numbers(downProj, stacked),
  };
}

/** A matrix, or so many of them that stand one below the other. */
function numbers({ rows, columns, data }: Matrix, stacked = 0): Tensor {
  const shape = stacked > 0 ? [stacked, rows / stacked, columns] : [rows, columns];
  return { dtype: "F32", shape, data };
}

function integers(values: Int32Array, shape: readonly number[] = [values.length]): Tensor {
  return { dtype: "I64", shape, data: BigInt64Array.from(values, BigInt) };
}

function ids({ rows, slots, data }: Ids): Tensor {
  return integers(data, [rows, slots]);
}
