// The layer: gate, routed experts, shared expert. Section 9 of SPEC.md.

import type { Config } from "./config.js";
import { combine, combineBackward, dispatch, rowOfSlot, type Dispatched } from "./dispatch.js";
import { expert, expertBackward, type ExpertWeights } from "./expert.js";
import { gate, gateBackward, type Routing, type Wishes } from "./gate.js";
import { Ids, Matrix, add, dot } from "./matrix.js";

/** What the layer learns, and the bias that moves its choice. */
export interface LayerWeights {
  readonly gateWeight: Matrix;
  readonly experts: ExpertWeights;
  readonly shared: ExpertWeights | undefined; // MOE-3: one expert of width S * F; none if S = 0
}

/** The layer's result and the steps that lead to it. */
export interface LayerTrace {
  readonly routing: Routing;
  readonly routed: Matrix;
  readonly shared: Matrix;
  readonly y: Matrix;
}

/** Put x (T,H) through the layer. */
export function layer(config: Config, x: Matrix, weights: LayerWeights, wishes: Wishes): LayerTrace {
  const routing = gate(config, x, weights.gateWeight, wishes);
  const { topkIdx, topkWeight } = routing;
  const sent = dispatch(x, topkIdx, config.E);
  const outputs = throughExperts(config, sent, weights.experts);
  const routed = combine(outputs, rowOfSlot(sent.places, topkIdx.rows, topkIdx.slots), topkWeight); // MOE-2
  const shared = weights.shared ? expert(x, weights.shared).y : new Matrix(x.rows, x.columns);
  return { routing, routed, shared, y: add(routed, shared) }; // MOE-1
}

/** The gradients of all that the layer reads. */
export interface LayerGradients {
  readonly dx: Matrix;
  readonly dgateWeight: Matrix;
  readonly dexperts: ExpertWeights;
  readonly dshared: ExpertWeights | undefined;
}

/** The layer's backward at given ids. */
export function layerBackward(
  config: Config,
  x: Matrix,
  weights: LayerWeights,
  topkIdx: Ids,
  dy: Matrix,
): LayerGradients {
  const { topkWeight } = gate(config, x, weights.gateWeight, { topkIdx });
  const sent = dispatch(x, topkIdx, config.E);
  // MOE-2 was: routed = combine(outputs, topk_weight)
  const doutputs = combineBackward(dy, sent.places, topkWeight);
  const dtopkWeight = weightGradients(dy, sent, throughExperts(config, sent, weights.experts), topkIdx);
  const { drows, dexperts } = throughExpertsBackward(config, sent, weights.experts, doutputs);
  const routed = combine(drows, rowOfSlot(sent.places, topkIdx.rows, topkIdx.slots));
  const shared = weights.shared && expertBackward(x, weights.shared, dy); // MOE-1 was: y = routed + shared
  const routing = gateBackward(config, x, weights.gateWeight, { topkIdx, dtopkWeight });
  const dx = add(routing.dx, routed, ...(shared ? [shared.dx] : [])); // MOE-5
  return { dx, dgateWeight: routing.dweight, dexperts, dshared: shared?.dweights };
}

/** The output of its expert for every row. */
function throughExperts(config: Config, sent: Dispatched, experts: ExpertWeights): Matrix {
  const outputs = new Matrix(sent.rows.rows, sent.rows.columns);
  for (let e = 0; e < config.E; e++) {
    const [begin, end] = [sent.start[e], sent.start[e + 1]];
    if (begin === end) continue;
    const { y } = expert(sent.rows.slice(begin, end), ofExpert(config, experts, e));
    outputs.slice(begin, end).data.set(y.data);
  }
  return outputs;
}

/** The gradients of the rows and of all experts; that of an expert without a token stays zeros (MOE-4). */
function throughExpertsBackward(
  config: Config,
  sent: Dispatched,
  experts: ExpertWeights,
  doutputs: Matrix,
): { drows: Matrix; dexperts: ExpertWeights } {
  const drows = new Matrix(sent.rows.rows, sent.rows.columns);
  const dexperts = {
    gateProj: new Matrix(experts.gateProj.rows, config.H),
    upProj: new Matrix(experts.upProj.rows, config.H),
    downProj: new Matrix(experts.downProj.rows, config.F),
  };
  for (let e = 0; e < config.E; e++) {
    const [begin, end] = [sent.start[e], sent.start[e + 1]];
    if (begin === end) continue;
    const rows = sent.rows.slice(begin, end);
    const { dx, dweights } = expertBackward(rows, ofExpert(config, experts, e), doutputs.slice(begin, end));
    drows.slice(begin, end).data.set(dx.data);
    const own = ofExpert(config, dexperts, e);
    own.gateProj.data.set(dweights.gateProj.data);
    own.upProj.data.set(dweights.upProj.data);
    own.downProj.data.set(dweights.downProj.data);
  }
  return { drows, dexperts };
}

/** MOE-2: dtopk_weight[t, k] = <dy[t], output> */
function weightGradients(dy: Matrix, sent: Dispatched, outputs: Matrix, topkIdx: Ids): Matrix {
  const gradients = new Matrix(topkIdx.rows, topkIdx.slots);
  sent.places.token.forEach((token, n) => {
    gradients.row(token)[sent.places.slot[n]] = dot(dy.row(token), outputs.row(n));
  });
  return gradients;
}

/** One expert's matrices in the stacks, not copies. */
function ofExpert({ F, H }: Config, stack: ExpertWeights, e: number): ExpertWeights {
  return {
    gateProj: stack.gateProj.slice(e * F, (e + 1) * F),
    upProj: stack.upProj.slice(e * F, (e + 1) * F),
    downProj: stack.downProj.slice(e * H, (e + 1) * H),
  };
}
