// From tokens to experts' rows and back. Section 8 of SPEC.md.

import { Ids, Matrix, addScaled } from "./matrix.js";

/** Where rows belong: row n is that of slot slot[n] of token token[n]. */
export interface Places {
  readonly token: Int32Array;
  readonly slot: Int32Array;
}

/** Rows by expert: expert e has the rows start[e] … start[e + 1] - 1. */
export interface Dispatched {
  readonly count: Int32Array;
  readonly start: Int32Array;
  readonly places: Places;
  readonly rows: Matrix;
}

/** Copy every token once for each expert that it goes to, ordered by expert, then token (DSP-1). */
export function dispatch(x: Matrix, topkIdx: Ids, experts: number): Dispatched {
  const count = new Int32Array(experts); // DSP-2: rows, not rounded up to any alignment
  for (const id of topkIdx.data) if (id >= 0) count[id]++;
  const start = new Int32Array(experts + 1);
  for (let e = 0; e < experts; e++) start[e + 1] = start[e] + count[e];
  const places = placesOf(topkIdx, start);
  const rows = new Matrix(start[experts], x.columns);
  places.token.forEach((token, n) => rows.row(n).set(x.row(token)));
  return { count, start, places, rows };
}

/** Tokens in order take the next place of their expert; an empty slot takes none (DSP-2). */
function placesOf(topkIdx: Ids, start: Int32Array): Places {
  const next = start.slice();
  const rows = start[start.length - 1];
  const places = { token: new Int32Array(rows), slot: new Int32Array(rows) };
  for (let t = 0; t < topkIdx.rows; t++) {
    topkIdx.row(t).forEach((id, slot) => {
      if (id < 0) return;
      const n = next[id]++;
      places.token[n] = t;
      places.slot[n] = slot;
    });
  }
  return places;
}

/** The other way round: the row of every slot, or -1. A row of padding has token -1, and no slot leads to it. */
export function rowOfSlot(places: Places, tokens: number, slots: number): Ids {
  const rowOf = new Ids(tokens, slots);
  places.token.forEach((token, n) => {
    if (token >= 0) rowOf.row(token)[places.slot[n]] = n;
  });
  return rowOf;
}

/** Add up every token's rows, slots ascending, each times the weight of its slot or as it is (DSP-3). */
export function combine(rows: Matrix, rowOf: Ids, weights?: Matrix): Matrix {
  const y = new Matrix(rowOf.rows, rows.columns);
  const sum = new Float64Array(rows.columns);
  for (let t = 0; t < rowOf.rows; t++) {
    sum.fill(0);
    rowOf.row(t).forEach((n, slot) => {
      if (n >= 0) addScaled(sum, weights ? weights.row(t)[slot] : 1, rows.row(n));
    });
    y.row(t).set(sum);
  }
  return y;
}

/** The gradient of combine's rows: the weight of the slot times dy of the token (MOE-2). */
export function combineBackward(dy: Matrix, places: Places, weights: Matrix): Matrix {
  const drows = new Matrix(places.token.length, dy.columns);
  places.token.forEach((token, n) => {
    const weight = weights.row(token)[places.slot[n]];
    drows.row(n).set(dy.row(token).map((d) => weight * d));
  });
  return drows;
}
