// The gate: which experts a token goes to, and with which weights. Section 6 of SPEC.md.

import type { Config } from "./config.js";
import { Ids, Matrix, map, sigmoid, times, timesTransposed, transpose } from "./matrix.js";

/** What the gate makes of T tokens, stage by stage. */
export interface Routing {
  readonly logits: Matrix;
  readonly scores: Matrix;
  readonly groupScores: Matrix | undefined;
  readonly topkIdx: Ids;
  readonly topkWeight: Matrix;
}

/** What a caller may want besides. */
export interface Wishes {
  readonly bias?: Float32Array | undefined;
  readonly mask?: Uint8Array | undefined;
  readonly topkIdx?: Ids | undefined;
}

/** Route x (T,H) by weight (E,H). */
export function gate(config: Config, x: Matrix, weight: Matrix, wishes: Wishes): Routing {
  const logits = timesTransposed(x, weight); // GATE-1
  const scores = map(logits, sigmoid); // GATE-2
  const choice = biased(scores, wishes.bias);
  const groupScores = config.G > 1 ? bestTwoOfGroups(config, choice) : undefined;
  const ids = wishes.topkIdx ?? choose(config, choice, groupScores); // GATE-9: given ids are only weighed
  const topkIdx = hidePadding(ids, wishes.mask);
  return { logits, scores, groupScores, topkIdx, topkWeight: weigh(config, scores, topkIdx) };
}

/** What comes back to the gate. */
export interface Losses {
  readonly topkIdx: Ids;
  readonly dtopkWeight: Matrix;
  readonly dscores?: Matrix | undefined;
  readonly dlogits?: Matrix | undefined;
}

/** The gradients of x and weight. The ids are constants, and so the bias has no gradient (GATE-10). */
export function gateBackward(
  config: Config,
  x: Matrix,
  weight: Matrix,
  losses: Losses,
): { dx: Matrix; dweight: Matrix } {
  const scores = map(timesTransposed(x, weight), sigmoid);
  const dlogits = new Matrix(scores.rows, scores.columns);
  for (let t = 0; t < x.rows; t++) {
    const score = scores.row(t);
    // GATE-10, GATE-14. In double precision: the quotient by a tiny sum may be too large for float32.
    const dscore = Float64Array.from(losses.dscores?.row(t) ?? new Float64Array(config.E));
    weighTokenBackward(config, score, losses.topkIdx.row(t), losses.dtopkWeight.row(t), dscore);
    const extra = losses.dlogits?.row(t);
    // GATE-2 was: scores = sigmoid(logits)
    dlogits.row(t).set(dscore.map((d, e) => d * score[e] * (1 - score[e]) + (extra?.[e] ?? 0)));
  }
  // GATE-1 was: logits = x @ weight.T
  return { dx: times(dlogits, weight), dweight: times(transpose(dlogits), x) };
}

/** GATE-3: the bias moves the choice, never the weight. */
function biased(scores: Matrix, bias: Float32Array | undefined): Matrix {
  if (bias === undefined) return scores;
  const choice = new Matrix(scores.rows, scores.columns);
  for (let t = 0; t < scores.rows; t++) choice.row(t).set(scores.row(t).map((score, e) => score + bias[e]));
  return choice;
}

/** GATE-4: a group counts as the sum of its two largest choices, bias included. */
function bestTwoOfGroups(config: Config, choice: Matrix): Matrix {
  const size = config.E / config.G;
  const sums = new Matrix(choice.rows, config.G);
  for (let t = 0; t < choice.rows; t++) {
    for (let g = 0; g < config.G; g++) {
      const group = choice.row(t).subarray(g * size, (g + 1) * size);
      const [first, second] = largest(group, 2);
      sums.row(t)[g] = group[first] + group[second];
    }
  }
  return sums;
}

/** GATE-5: the K experts of the largest choices, best first. */
function choose(config: Config, choice: Matrix, groupScores: Matrix | undefined): Ids {
  const ids = new Ids(choice.rows, config.K);
  for (let t = 0; t < choice.rows; t++) {
    const row = choice.row(t);
    const standing = groupScores ? withinGroups(config, row, groupScores.row(t)) : row;
    ids.row(t).set(largest(standing, config.K));
  }
  return ids;
}

/** GATE-4: the best groups stand; the choice of every other expert becomes -inf. */
function withinGroups(config: Config, choice: Float32Array, groupScores: Float32Array): Float32Array {
  const size = config.E / config.G;
  const standing = new Float32Array(config.E).fill(-Infinity);
  for (const group of largest(groupScores, config.keptGroups)) {
    standing.set(choice.subarray(group * size, (group + 1) * size), group * size);
  }
  return standing;
}

/** ARR-2: indices of the k largest, largest first; of equal values the lower index. With NaN, some ids, all different. */
function largest(values: Float32Array, k: number): number[] {
  const left = Array.from(values.keys());
  const found: number[] = [];
  while (found.length < k) {
    let best = 0;
    for (let i = 1; i < left.length; i++) if (values[left[i]] > values[left[best]]) best = i;
    found.push(...left.splice(best, 1));
  }
  return found;
}

/** GATE-13: padding goes to no expert. */
function hidePadding(ids: Ids, mask: Uint8Array | undefined): Ids {
  if (mask === undefined) return ids;
  const hidden = new Ids(ids.rows, ids.slots);
  for (let t = 0; t < ids.rows; t++) if (mask[t]) hidden.row(t).set(ids.row(t));
  return hidden;
}

/** GATE-6 … GATE-8: weights from scores, at given ids. */
function weigh(config: Config, scores: Matrix, topkIdx: Ids): Matrix {
  const weights = new Matrix(topkIdx.rows, topkIdx.slots);
  for (let t = 0; t < topkIdx.rows; t++) {
    const score = scores.row(t);
    const ids = topkIdx.row(t);
    const out = weights.row(t);
    const denominator = config.normalise ? sumOf(score, ids) + 1e-20 : 1; // GATE-7
    ids.forEach((id, slot) => {
      if (id >= 0) out[slot] = (score[id] / denominator) * config.scale; // GATE-6, GATE-8
    });
  }
  return weights;
}

/** GATE-10: add to dscore (E) what comes from the weights of one token. */
function weighTokenBackward(
  config: Config,
  score: Float32Array,
  ids: Int32Array,
  dweight: Float32Array,
  dscore: Float64Array,
): void {
  const denominator = config.normalise ? sumOf(score, ids) + 1e-20 : 1;
  let mean = 0; // sum(g * share)
  if (config.normalise) {
    ids.forEach((id, slot) => {
      if (id >= 0) mean += config.scale * dweight[slot] * (score[id] / denominator);
    });
  }
  ids.forEach((id, slot) => {
    if (id >= 0) dscore[id] += (config.scale * dweight[slot] - mean) / denominator;
  });
}

/** The sum of a token's starting weights. */
function sumOf(score: Float32Array, ids: Int32Array): number {
  return ids.reduce((sum, id) => (id >= 0 ? sum + score[id] : sum), 0);
}
