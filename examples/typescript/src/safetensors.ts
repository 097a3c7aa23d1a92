// The file format of tensors: 8 bytes with the header's length (little-endian), a JSON header that gives each tensor's
// dtype, shape and byte range, then the bytes. A file may come from anywhere, so nothing in it is believed unchecked.

import { readFileSync, writeFileSync } from "node:fs";
import { demand } from "./errors.js";

/** Bytes of a number, of dtypes that this program does not compute with. */
const UNREAD = {
  ...{ F64: 8, F16: 2, BF16: 2, I16: 2, I8: 1, U64: 8, U32: 4, U16: 2, U8: 1 },
  ...{ F8_E4M3: 1, F8_E5M2: 1, F8_E4M3FNUZ: 1, F8_E5M2FNUZ: 1, F8_E8M0: 1 },
};

type Of<Dtype, Data> = { readonly dtype: Dtype; readonly shape: readonly number[]; readonly data: Data };

type Unread = Of<keyof typeof UNREAD, Uint8Array>;

/** A named array of one of the dtypes. */
export type Tensor =
  | Of<"F32", Float32Array>
  | Of<"I64", BigInt64Array>
  | Of<"I32", Int32Array>
  | Of<"BOOL", Uint8Array>
  | Unread;
export type Tensors = ReadonlyMap<string, Tensor>;

const BYTES: Readonly<Record<Tensor["dtype"], number>> = { F32: 4, I64: 8, I32: 4, BOOL: 1, ...UNREAD };
const LONGEST_HEADER = 100_000_000;

interface Entry {
  readonly name: string;
  readonly dtype: Tensor["dtype"];
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** The tensors of a file. */
export function read(path: string): Tensors {
  return parse(readFileSync(path));
}

/** The tensors in the bytes of a file. */
export function parse(file: Uint8Array): Tensors {
  demand(file.length >= 8, "safetensors: shorter than 8 bytes");
  const length = new DataView(file.buffer, file.byteOffset, 8).getBigUint64(0, true);
  demand(length <= LONGEST_HEADER && length <= file.length - 8, "safetensors: the header is longer than the file");
  const body = file.subarray(8 + Number(length));
  const entries = Object.entries(header(file.subarray(8, 8 + Number(length))))
    .filter(([name]) => name !== "__metadata__")
    .map(([name, value]) => entry(name, value));
  covers(entries, body.length);
  return new Map(entries.map((each) => [each.name, tensor(each, body)]));
}

function header(bytes: Uint8Array): object {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    value = null;
  }
  demand(isObject(value), "safetensors: the header is no JSON object");
  return value;
}

function entry(name: string, value: unknown): Entry {
  demand(isObject(value), `safetensors: ${name} is no object`);
  const { dtype, shape, data_offsets: range } = value as Record<string, unknown>;
  demand(isDtype(dtype), `safetensors: ${name} has an unknown dtype`);
  demand(areSizes(shape), `safetensors: ${name} has a malformed shape`);
  demand(areSizes(range) && range.length === 2, `safetensors: ${name} has malformed offsets`);
  const [begin, end] = range as [number, number];
  const size = shape.reduce((product, axis) => product * axis, BYTES[dtype]);
  demand(end - begin === size, `safetensors: ${name} has ${end - begin} bytes where its shape says ${size}`);
  return { name, dtype, shape, begin, end };
}

/** The ranges follow one another without a gap and end where the file ends, so none lies outside and no two overlap. */
function covers(entries: Entry[], length: number): void {
  let reached = 0;
  for (const { name, begin, end } of entries.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    demand(begin === reached, `safetensors: ${name} begins at ${begin}, not at ${reached}`);
    reached = end;
  }
  demand(reached === length, `safetensors: ${length} bytes of data, of which ${reached} belong to a tensor`);
}

/** A tensor over bytes of its own; processors that Node.js runs on are little-endian, like the file. */
function tensor({ dtype, shape, begin, end }: Entry, body: Uint8Array): Tensor {
  const bytes = new Uint8Array(body.subarray(begin, end)).buffer;
  if (dtype === "F32") return { dtype, shape, data: new Float32Array(bytes) };
  if (dtype === "I64") return { dtype, shape, data: new BigInt64Array(bytes) };
  if (dtype === "I32") return { dtype, shape, data: new Int32Array(bytes) };
  return { dtype, shape, data: new Uint8Array(bytes) };
}

/** Write tensors; the header is filled up with spaces, so that the data begins at a multiple of 8. */
export function write(path: string, tensors: Tensors): void {
  const header: Record<string, object> = {};
  const parts: Uint8Array[] = [];
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    end += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padding = Buffer.alloc((8 - (text.length % 8)) % 8, " ");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length + padding.length));
  writeFileSync(path, Buffer.concat([length, text, padding, ...parts]));
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isDtype(value: unknown): value is Tensor["dtype"] {
  return typeof value === "string" && Object.hasOwn(BYTES, value);
}

function areSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}
