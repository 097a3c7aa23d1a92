// Which tensors an op takes, and what they must be: section 3 and clauses ARR-3 … ARR-6 of SPEC.md.

import type { Config } from "./config.js";
import { NotSupported, demand } from "./errors.js";
import { Ids, Matrix } from "./matrix.js";
import type { Tensor, Tensors } from "./safetensors.js";

/** Names and the letters of their shapes; with a ? where a caller may want it. */
type Signature = Readonly<Record<string, string>>;

const EXPERT: Signature = { x: "N,H", gate_proj: "F,H", up_proj: "F,H", down_proj: "H,F" };
const LAYER: Signature = {
  ...{ x: "T,H", gate_weight: "E,H", bias: "E", gate_proj: "E,F,H", up_proj: "E,F,H", down_proj: "E,H,F" },
  ...{ shared_gate_proj: "SF,H", shared_up_proj: "SF,H", shared_down_proj: "H,SF" },
};
const SIGNATURES: Readonly<Record<string, Signature>> = {
  gate: { x: "T,H", weight: "E,H", bias: "E", "mask?": "T", "topk_idx?": "T,W" },
  gate_backward: {
    ...{ x: "T,H", weight: "E,H", bias: "E", topk_idx: "T,W", dtopk_weight: "T,W" },
    ...{ "dscores?": "T,E", "dlogits?": "T,E" },
  },
  expert: EXPERT,
  expert_backward: { ...EXPERT, dy: "N,H" },
  dispatch: { x: "T,H", topk_idx: "T,W" },
  combine: { rows: "N,H", row_token: "N", row_slot: "N", topk_weight: "T,W" },
  moe: { ...LAYER, "mask?": "T", "topk_idx?": "T,W" },
  moe_backward: { ...LAYER, topk_idx: "T,W", dy: "T,H" },
};
const INTEGERS = ["topk_idx", "row_token", "row_slot"];
const MASKS = ["mask"];

/** The tensors of one call, checked. */
export class Inputs {
  private readonly sizes: Map<string, number>;

  constructor(
    op: string,
    private readonly config: Config,
    private readonly tensors: Tensors,
  ) {
    const { H, F, E, S } = config;
    this.sizes = new Map(Object.entries({ H, F, E, SF: S * F }));
    const left = new Set(tensors.keys());
    for (const [written, letters] of Object.entries(SIGNATURES[op] ?? {})) {
      const name = written.replace("?", "");
      if (this.isAbsent(name, written !== name)) continue;
      const tensor = tensors.get(name);
      demand(tensor !== undefined, `ARR-3: ${name} is missing`);
      checkKind(name, tensor);
      this.bind(name, letters.split(","), tensor.shape);
      left.delete(name);
    }
    demand(left.size === 0, `ARR-3: ${[...left].join(", ")} not expected`);
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** A letter's size in this call. */
  size(letter: string): number {
    return this.sizes.get(letter) ?? 0;
  }

  /** Numbers; of a stack the matrices one below the other. */
  matrix(name: string): Matrix {
    const { shape, data } = this.numbers(name);
    const columns = shape[shape.length - 1] ?? 1;
    return new Matrix(shape.slice(0, -1).reduce((rows, axis) => rows * axis, 1), columns, data);
  }

  optionalMatrix(name: string): Matrix | undefined {
    return this.has(name) ? this.matrix(name) : undefined;
  }

  /** GATE-11: one number an expert, all of them finite. */
  bias(): Float32Array | undefined {
    if (!this.config.hasBias) return undefined;
    const { data } = this.numbers("bias");
    demand(data.every(Number.isFinite), "GATE-11: the bias is not finite");
    return data;
  }

  mask(): Uint8Array | undefined {
    const tensor = this.tensors.get("mask");
    return tensor?.dtype === "BOOL" ? tensor.data : undefined;
  }

  /** ARR-6: experts' ids or -1; a token names an expert at most once. */
  topkIdx(): Ids {
    const ids = new Ids(this.size("T"), this.size("W"), this.integers("topk_idx", this.config.E));
    for (let t = 0; t < ids.rows; t++) {
      const named = ids.row(t).filter((id) => id >= 0);
      demand(new Set(named).size === named.length, `ARR-6: token ${t} names an expert twice`);
    }
    return ids;
  }

  /** Whole numbers from -1 to below - 1 (ARR-6), checked before they are narrowed. */
  integers(name: string, below: number): Int32Array {
    const tensor = this.tensors.get(name);
    const wide = tensor?.dtype === "I64" || tensor?.dtype === "I32" ? Array.from(tensor.data, Number) : [];
    for (const each of wide) demand(each >= -1 && each < below, `ARR-6: ${each} in ${name}`);
    return Int32Array.from(wide);
  }

  private numbers(name: string): { shape: readonly number[]; data: Float32Array } {
    const tensor = this.tensors.get(name);
    if (tensor?.dtype !== "F32") throw new Error(`${name} is not among the op's numbers`);
    return tensor;
  }

  /** Whether a tensor is rightly not there: the config has no use for it, or the caller did not want it. */
  private isAbsent(name: string, optional: boolean): boolean {
    if (name === "bias") return !this.config.hasBias;
    if (name.startsWith("shared_")) return this.config.S === 0;
    return optional && !this.has(name);
  }

  /** ARR-5: a letter means one size throughout the call. */
  private bind(name: string, letters: string[], shape: readonly number[]): void {
    demand(letters.length === shape.length, `ARR-5: ${name} has ${shape.length} axes, not ${letters.length}`);
    letters.forEach((letter, axis) => {
      const size = this.sizes.get(letter) ?? shape[axis];
      demand(size === shape[axis], `ARR-5: ${name} has ${shape[axis]} along ${letter}, not ${size}`);
      demand(letter !== "W" || size >= 1, `ARR-5: ${name} has no slot`);
      this.sizes.set(letter, size);
    });
  }
}

/** ARR-4: numbers are floating point, ids integers, a mask of bool. Of these, this program takes F32, I64 and I32. */
function checkKind(name: string, { dtype }: Tensor): void {
  const kind = dtype === "BOOL" ? "mask" : /^[IU]/.test(dtype) ? "integer" : "number";
  const wanted = MASKS.includes(name) ? "mask" : INTEGERS.includes(name) ? "integer" : "number";
  demand(kind === wanted, `ARR-4: ${name} is ${dtype}`);
  if (!["BOOL", "I64", "I32", "F32"].includes(dtype)) throw new NotSupported(`${name} is ${dtype}`);
}
