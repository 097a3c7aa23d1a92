// What a reader of files from anywhere must refuse. Run after `npm run build`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Refused } from "../dist/errors.js";
import { parse } from "../dist/safetensors.js";

/** A file with this header, so many bytes of data, and perhaps a length that is not the header's. */
function file(header, bytes, length) {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(length ?? text.length));
  return Buffer.concat([prefix, text, Buffer.alloc(bytes)]);
}

const pair = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
const last = { ...pair, data_offsets: [8, 16] };
const MALFORMED = {
  "nothing": Buffer.alloc(0),
  "a length beyond the file": file("{}", 0, 3),
  "the largest length": file("{}", 0, 2n ** 64n - 1n),
  "no JSON": file("hello", 0),
  "a list": file([], 0),
  "a tensor that is null": file({ x: null }, 0),
  "an unknown dtype": file({ x: { ...pair, dtype: "toString" } }, 8),
  "no offsets": file({ x: { dtype: "F32", shape: [2] } }, 8),
  "a negative size": file({ x: { ...pair, shape: [-2] } }, 8),
  "half a size": file({ x: { ...pair, shape: [2.5] } }, 8),
  "a shape beyond all bytes": file({ x: { ...pair, shape: [2 ** 40, 2 ** 40] } }, 8),
  "a range backwards": file({ x: { ...pair, data_offsets: [8, 0] } }, 8),
  "a range beyond the data": file({ x: pair, y: last }, 12),
  "bytes that belong to nobody": file({ x: pair }, 9),
  "a hole": file({ y: last }, 16),
  "two tensors in one place": file({ x: pair, y: pair }, 8),
};

for (const [what, bytes] of Object.entries(MALFORMED)) {
  test(`refused: ${what}`, () => assert.throws(() => parse(bytes), Refused));
}

test("taken: metadata, no numbers, one number without an axis, any order", () => {
  const one = { dtype: "F32", shape: [], data_offsets: [0, 4] };
  const none = { dtype: "I64", shape: [0, 3], data_offsets: [4, 4] };
  const tensors = parse(file({ __metadata__: { made: "by hand" }, none, one }, 4));
  assert.deepEqual([...tensors.keys()].sort(), ["none", "one"]);
  assert.deepEqual(tensors.get("one").data, new Float32Array(1));
});
