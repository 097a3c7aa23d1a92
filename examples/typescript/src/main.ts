// The protocol: `node dist/main.js` answers lines on stdin, `node dist/main.js DIR` answers the folders under DIR.

import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { checkWholeSizes } from "./config.js";
import { NotSupported, Refused, demand } from "./errors.js";
import { run } from "./ops.js";
import { read, write } from "./safetensors.js";

const ABOUT = {
  name: "moespec-example-typescript",
  version: "1.0.0",
  arithmetic: ["float32"],
  profiles: ["deepseek-v3"],
};

interface Reply {
  readonly case: string;
  readonly status: "done" | "not_supported" | "refused" | "failed";
  readonly reason?: string;
}

/** Answer the question in a folder, and say what came of it. */
function reply(name: string, folder: string): Reply {
  try {
    answer(folder);
    return { case: name, status: "done" };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (error instanceof Refused) return { case: name, status: "refused", reason };
    if (error instanceof NotSupported) return { case: name, status: "not_supported", reason };
    return { case: name, status: "failed", reason };
  }
}

/** Read prompt.json and in.safetensors, write out.safetensors. */
function answer(folder: string): void {
  const prompt = promptIn(readFileSync(join(folder, "prompt.json"), "utf8"));
  const outputs = run(prompt.op, prompt.config, () => read(join(folder, "in.safetensors")));
  write(join(folder, "out.safetensors"), outputs);
}

/** What to compute, of what this program offers. */
function promptIn(text: string): { op: string; config: unknown } {
  const { format, op, config, arithmetic } = objectIn(text);
  demand(typeof op === "string", "prompt.json names no op");
  if (!/^[12]\./.test(String(format))) throw new NotSupported(`format ${String(format)} is not offered`);
  if (arithmetic !== "float32") throw new NotSupported(`arithmetic ${String(arithmetic)} is not offered`);
  checkWholeSizes(text);
  return { op, config };
}

/** The JSON object that a text holds. */
function objectIn(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  demand(typeof value === "object" && value !== null && !Array.isArray(value), "not a JSON object");
  return value as Record<string, unknown>;
}

/** Answer the folders under a folder; what is not done is said in reply.json. Links are not followed. */
function answerAll(folder: string): void {
  if (existsSync(join(folder, "prompt.json"))) {
    const place = join(folder, "reply.json");
    const said = reply(idIn(folder), folder);
    if (said.status === "done") rmSync(place, { force: true });
    else writeFileSync(place, JSON.stringify(said) + "\n");
  }
  for (const each of readdirSync(folder, { withFileTypes: true })) {
    if (each.isDirectory()) answerAll(join(folder, each.name));
  }
}

/** The case that a prompt names; the folder's name where the prompt is unreadable. */
function idIn(folder: string): string {
  try {
    return String(objectIn(readFileSync(join(folder, "prompt.json"), "utf8"))["id"]);
  } catch {
    return basename(folder);
  }
}

/** Answer lines until told to stop, or until there are no more. */
async function converse(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = objectIn(line);
    if ("stop" in request) return;
    demand("start" in request || "run" in request, "a request is start, run or stop");
    const said = "start" in request ? ABOUT : reply(String(request["run"]), String(request["dir"]));
    process.stdout.write(JSON.stringify(said) + "\n");
  }
}

const folder = process.argv[2];
if (folder === undefined) await converse();
else answerAll(folder);
