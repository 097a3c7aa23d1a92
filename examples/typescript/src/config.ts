// The config: what is malformed is refused, what is legal but no layer of DeepSeek-V3 is not supported.
// Section 5 of SPEC.md.

import { NotSupported, demand } from "./errors.js";

/** What the layer needs of a config; sizes have the letters of SPEC.md. */
export interface Config {
  readonly H: number; // hidden_size
  readonly F: number; // moe_intermediate_size
  readonly E: number; // n_routed_experts
  readonly S: number; // n_shared_experts
  readonly K: number; // num_experts_per_tok
  readonly G: number; // n_group
  readonly keptGroups: number; // topk_group
  readonly normalise: boolean; // norm_topk_prob
  readonly scale: number; // routed_scaling_factor
  readonly hasBias: boolean; // selection_bias
}

type Value = string | number | boolean | null;
type Fields = Readonly<Record<string, unknown>>;

/** CFG-9: what a config may leave out. */
const NEUTRAL: Readonly<Record<string, Value>> = {
  ...{ router: "topk", choose_by: "scores", softmax_over: "all", norm_when_k1: true, hash_routing: false },
  ...{ hidden_act: "silu", gated: true, swiglu_limit: null, weight_position: "after_down" },
  ...{ capacity_factor: null, drop_policy: null, n_device: 1, device_limit: 1, alignment: 1, layout: "contiguous" },
  ...{ balance_kind: null, alpha: 0, balance_topk: "given", bias_update: "sign", bias_update_rate: 0 },
  rms_norm_eps: 1e-6,
};

const COUNTS = ["hidden_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_group"];
const SIZES = [...COUNTS, "n_shared_experts", "topk_group", "n_device", "device_limit", "alignment"];
const FLAGS = ["norm_topk_prob", "selection_bias", "norm_when_k1", "hash_routing", "gated"];
const WORDS: Readonly<Record<string, readonly (string | null)[]>> = {
  group_score: ["max", "top2_sum", null],
  scoring_func: ["softmax", "sigmoid", "sqrtsoftplus"],
  router: ["topk", "noisy_topk", "expert_choice", "hierarchical"],
  choose_by: ["scores", "logits"],
  softmax_over: ["all", "chosen"],
  hidden_act: ["silu", "gelu_pytorch_tanh", "relu"],
  weight_position: ["after_down", "before_down"],
  drop_policy: ["position", "slot", "probs", "gshard", "device_probs", "reroute", null],
  layout: ["contiguous", "psum", "masked", "k_grouped"],
  balance_kind: ["expert", "device", "communication", "sequence", "z", "importance", null],
  balance_topk: ["given", "unbiased"],
  bias_update: ["sign", "sign_centred"],
};
const FIELDS = new Set([...SIZES, ...FLAGS, ...Object.keys(WORDS), ...Object.keys(NEUTRAL), "routed_scaling_factor"]);

/** The values that this program computes with. Fields that are not named here may have any legal value. */
const OFFERED: Readonly<Record<string, readonly Value[]>> = {
  ...{ scoring_func: ["sigmoid"], group_score: ["top2_sum", null], router: ["topk"], choose_by: ["scores"] },
  ...{ softmax_over: ["all"], norm_when_k1: [true], hash_routing: [false], hidden_act: ["silu"], gated: [true] },
  ...{ swiglu_limit: [null], weight_position: ["after_down"], capacity_factor: [null] },
};

/** Check a config. */
export function configOf(value: unknown): Config {
  demand(typeof value === "object" && value !== null && !Array.isArray(value), "CFG-10: the config is no mapping");
  const unknown = Object.keys(value).find((field) => !FIELDS.has(field));
  demand(unknown === undefined, `CFG-10: unknown field ${unknown}`);
  const fields: Fields = { ...NEUTRAL, ...value };
  checkEach(fields);
  checkGroups(fields);
  checkRouter(fields);
  checkRest(fields);
  for (const [field, values] of Object.entries(OFFERED)) {
    const given = fields[field] as Value;
    if (!values.includes(given)) throw new NotSupported(`${field} ${given} is not offered`);
  }
  const [H, F, E, K, G] = COUNTS.map((field) => fields[field]) as [number, number, number, number, number];
  const { n_shared_experts: S, topk_group: keptGroups } = fields as Record<string, number>;
  const scale = fields["routed_scaling_factor"] as number;
  const { norm_topk_prob: normalise, selection_bias: hasBias } = fields as Record<string, boolean>;
  return { H, F, E, S, K, G, keptGroups, normalise, scale, hasBias };
}

const NOT_WHOLE = new RegExp(`"(?:${SIZES.join("|")})"\\s*:\\s*-?[0-9]+[.eE]`);

/** CFG-1: JSON.parse makes 8 of 8.0, so it takes a look at the text to tell them apart. */
export function checkWholeSizes(text: string): void {
  demand(!NOT_WHOLE.test(text), "CFG-1: a size is not a whole number");
}

/** Each field by itself. */
function checkEach(fields: Fields): void {
  for (const field of FIELDS) demand(Object.hasOwn(fields, field), `CFG-10: ${field} is missing`);
  for (const field of SIZES) {
    const least = field === "n_shared_experts" ? 0 : 1;
    demand(Number.isSafeInteger(fields[field]) && Number(fields[field]) >= least, `CFG-1: ${field}`);
  }
  for (const field of FLAGS) demand(typeof fields[field] === "boolean", `CFG-8: ${field} is not true or false`);
  for (const [field, words] of Object.entries(WORDS)) {
    demand(words.includes(fields[field] as string | null), `CFG-11: ${field} is none of ${words.join(", ")}`);
  }
  demand(isPositive(fields["routed_scaling_factor"]), "CFG-7: routed_scaling_factor");
  demand(isPositive(fields["rms_norm_eps"]), "NRM-4: rms_norm_eps");
  for (const field of ["swiglu_limit", "capacity_factor"]) {
    demand(fields[field] === null || isPositive(fields[field]), `CFG-13, CFG-14: ${field}`);
  }
  for (const field of ["alpha", "bias_update_rate"]) {
    demand(fields[field] === 0 || isPositive(fields[field]), `CFG-16: ${field}`);
  }
}

function isPositive(value: unknown): boolean {
  return typeof value === "number" && Number.isFinite(value) && value > 0;
}

/** CFG-2 … CFG-6 */
function checkGroups(fields: Fields): void {
  const [, , E, K, G] = COUNTS.map((field) => fields[field]) as [number, number, number, number, number];
  const kept = fields["topk_group"] as number;
  demand(K <= E, "CFG-2: more slots than experts");
  demand(E % G === 0, "CFG-3: groups of different sizes");
  demand(kept <= G, "CFG-4: more groups kept than there are");
  demand((kept * E) / G >= K, "CFG-5: the kept groups hold too few experts");
  const scored = fields["group_score"];
  demand((scored !== null) === (G > 1 && fields["router"] === "topk"), "CFG-6: group_score");
  demand(scored !== "top2_sum" || E / G >= 2, "CFG-6: a group of one expert has no two largest");
}

/** CFG-11, CFG-12 */
function checkRouter(fields: Fields): void {
  const { router, softmax_over: over, hash_routing: hash, n_group: groups } = fields;
  if (hash) demand(router === "topk" && !fields["selection_bias"], "CFG-12: hash_routing");
  if (router === "topk" && over === "all") return;
  const softmax = fields["scoring_func"] === "softmax" && !fields["norm_topk_prob"] && !fields["selection_bias"];
  demand(softmax, "CFG-11, CFG-12: such a router is a softmax, neither normalised nor biased");
  demand(groups === 1 || router === "hierarchical", "CFG-12: groups");
  demand(router === "topk" || over === (router === "noisy_topk" ? "chosen" : "all"), "CFG-12: softmax_over");
}

/** CFG-13 … CFG-15 */
function checkRest(fields: Fields): void {
  const { router, softmax_over: over, drop_policy: policy, n_device: devices } = fields;
  const [E, D, limit] = [fields["n_routed_experts"], devices, fields["device_limit"]] as [number, number, number];
  demand(fields["swiglu_limit"] === null || fields["gated"] === true, "CFG-13: a limit without a gate");
  const capacity = fields["capacity_factor"] !== null;
  demand(capacity === (policy !== null || router === "expert_choice"), "CFG-14: capacity_factor and drop_policy");
  demand(policy === null || router !== "expert_choice", "CFG-14: expert_choice has no drop_policy");
  if (policy === "gshard" || policy === "reroute") {
    demand(router === "topk" && over === "all", "CFG-14: this policy goes by the scores of all experts");
  }
  demand(E % D === 0 && limit <= D, "CFG-15: n_device and device_limit");
}
