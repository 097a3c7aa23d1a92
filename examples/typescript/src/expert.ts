// One expert: a feed-forward network with a gate. Section 7 of SPEC.md.

import { Matrix, add, sigmoid, times, timesTransposed, transpose } from "./matrix.js";

/** gate_proj and up_proj (F,H), down_proj (H,F); or stacks of them, one expert's rows after the other's. */
export interface ExpertWeights {
  readonly gateProj: Matrix;
  readonly upProj: Matrix;
  readonly downProj: Matrix;
}

/** Put x (N,H) through an expert: h (N,F) and y (N,H). */
export function expert(x: Matrix, weights: ExpertWeights): { h: Matrix; y: Matrix } {
  const gate = timesTransposed(x, weights.gateProj); // EXP-1
  const up = timesTransposed(x, weights.upProj);
  const h = new Matrix(gate.rows, gate.columns);
  for (let i = 0; i < h.data.length; i++) h.data[i] = silu(gate.data[i]) * up.data[i]; // EXP-2
  return { h, y: timesTransposed(h, weights.downProj) }; // EXP-3
}

/** The gradients of x and the weights; without rows those of the weights are zeros (EXP-4). */
export function expertBackward(x: Matrix, weights: ExpertWeights, dy: Matrix): { dx: Matrix; dweights: ExpertWeights } {
  const gate = timesTransposed(x, weights.gateProj);
  const up = timesTransposed(x, weights.upProj);
  const dh = times(dy, weights.downProj); // EXP-3 was: y = h @ down_proj.T
  const h = new Matrix(gate.rows, gate.columns);
  const dgate = new Matrix(gate.rows, gate.columns);
  const dup = new Matrix(gate.rows, gate.columns);
  for (let i = 0; i < h.data.length; i++) {
    // EXP-2 was: h = silu(gate) * up
    h.data[i] = silu(gate.data[i]) * up.data[i];
    dup.data[i] = dh.data[i] * silu(gate.data[i]);
    dgate.data[i] = dh.data[i] * up.data[i] * siluSlope(gate.data[i]);
  }
  // EXP-1 was: gate = x @ gate_proj.T, up = x @ up_proj.T
  const dx = add(times(dgate, weights.gateProj), times(dup, weights.upProj));
  const dweights = {
    gateProj: times(transpose(dgate), x),
    upProj: times(transpose(dup), x),
    downProj: times(transpose(dy), h),
  };
  return { dx, dweights };
}

/** EXP-2 */
function silu(gate: number): number {
  return gate * sigmoid(gate);
}

function siluSlope(gate: number): number {
  const s = sigmoid(gate);
  return s + silu(gate) * (1 - s);
}
