// Makes dist-buggy/: a copy of dist/ with one wrong line, to see how a bug in a foreign program is diagnosed.
// `node buggy.mjs [groups|bias|slope]`; groups is the default.

import { cpSync, readFileSync, writeFileSync } from "node:fs";

const BUGS = {
  // The groups that are not kept are masked with 0, which wins as soon as the kept choices are negative (GATE-4).
  groups: ["gate.js", "fill(-Infinity)", "fill(0)"],
  // The bias leaks into the weights (GATE-6).
  bias: ["gate.js", "topkWeight: weigh(config, scores", "topkWeight: weigh(config, choice"],
  // The backward of silu forgets a term (EXP-2).
  slope: ["expert.js", "return s + silu(gate) * (1 - s)", "return s"],
};

const name = process.argv[2] ?? "groups";
if (!Object.hasOwn(BUGS, name)) throw new Error(`no bug ${name}: ${Object.keys(BUGS).join(", ")}`);
const [file, right, wrong] = BUGS[name];
const parts = readFileSync(`dist/${file}`, "utf8").split(right);
if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times ${right}, not once`);
cpSync("dist", "dist-buggy", { recursive: true });
writeFileSync(`dist-buggy/${file}`, parts.join(wrong));
console.log(`dist-buggy/${file}: ${wrong} in place of ${right}`);
