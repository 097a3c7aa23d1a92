// Matrices of float32 and the few products that the layer needs. Sums are added up in double precision, as JavaScript's
// numbers do by themselves, and rounded once when they are stored.

/** Numbers in rows, C-contiguous. */
export class Matrix {
  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly data: Float32Array = new Float32Array(rows * columns),
  ) {}

  /** One row, not a copy. */
  row(index: number): Float32Array {
    return this.data.subarray(index * this.columns, (index + 1) * this.columns);
  }

  /** Rows begin … end - 1, not a copy. */
  slice(begin: number, end: number): Matrix {
    return new Matrix(end - begin, this.columns, this.data.subarray(begin * this.columns, end * this.columns));
  }
}

/** Expert ids in rows of slots; -1 is an empty slot (ARR-6). */
export class Ids {
  constructor(
    readonly rows: number,
    readonly slots: number,
    readonly data: Int32Array = new Int32Array(rows * slots).fill(-1),
  ) {}

  /** One row, not a copy. */
  row(index: number): Int32Array {
    return this.data.subarray(index * this.slots, (index + 1) * this.slots);
  }
}

/** The sum of products of two rows. */
export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** a @ b.T: both (out, in) as in checkpoints, so that all reading goes along rows. */
export function timesTransposed(a: Matrix, b: Matrix): Matrix {
  const product = new Matrix(a.rows, b.rows);
  for (let i = 0; i < a.rows; i++) {
    const left = a.row(i);
    const out = product.row(i);
    for (let j = 0; j < b.rows; j++) out[j] = dot(left, b.row(j));
  }
  return product;
}

/** a @ b */
export function times(a: Matrix, b: Matrix): Matrix {
  const product = new Matrix(a.rows, b.columns);
  const sum = new Float64Array(b.columns);
  for (let i = 0; i < a.rows; i++) {
    const left = a.row(i);
    sum.fill(0);
    for (let k = 0; k < b.rows; k++) addScaled(sum, left[k], b.row(k));
    product.row(i).set(sum);
  }
  return product;
}

/** sum += factor * row */
export function addScaled(sum: Float64Array, factor: number, row: Float32Array): void {
  for (let i = 0; i < row.length; i++) sum[i] += factor * row[i];
}

/** a.T */
export function transpose(a: Matrix): Matrix {
  const turned = new Matrix(a.columns, a.rows);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < a.columns; j++) turned.data[j * a.rows + i] = a.data[i * a.columns + j];
  }
  return turned;
}

/** The element-wise sum of matrices of one shape, rounded once. */
export function add(first: Matrix, ...others: Matrix[]): Matrix {
  const sum = Float64Array.from(first.data);
  for (const other of others) addScaled(sum, 1, other.data);
  return new Matrix(first.rows, first.columns, Float32Array.from(sum));
}

/** f of every element. */
export function map(a: Matrix, f: (value: number) => number): Matrix {
  return new Matrix(a.rows, a.columns, a.data.map(f));
}

/** ARR-1; exp may overflow to infinity, and the result is then 0, as it should be. */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}
