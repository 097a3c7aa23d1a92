#include "signatures.h"

const Input GATE_TAKES[] = {
    {"x", "TH", NUMBERS, ALWAYS}, {"weight", "EH", NUMBERS, ALWAYS}, {"bias", "E", NUMBERS, WITH_BIAS},
    {"mask", "T", MASK, OPTIONAL}, {"topk_idx", "TW", IDS, OPTIONAL}, {0},
};
const Input GATE_BACKWARD_TAKES[] = {
    {"x", "TH", NUMBERS, ALWAYS}, {"weight", "EH", NUMBERS, ALWAYS}, {"bias", "E", NUMBERS, WITH_BIAS},
    {"topk_idx", "TW", IDS, ALWAYS}, {"dtopk_weight", "TW", NUMBERS, ALWAYS},
    {"dscores", "TE", NUMBERS, OPTIONAL}, {"dlogits", "TE", NUMBERS, OPTIONAL}, {0},
};
#define EXPERT_INPUTS \
    {"x", "NH", NUMBERS, ALWAYS}, {"gate_proj", "FH", NUMBERS, ALWAYS}, {"up_proj", "FH", NUMBERS, ALWAYS}, \
    {"down_proj", "HF", NUMBERS, ALWAYS}
#define LAYER_INPUTS \
    {"x", "TH", NUMBERS, ALWAYS}, {"gate_weight", "EH", NUMBERS, ALWAYS}, {"bias", "E", NUMBERS, WITH_BIAS}, \
    {"gate_proj", "EFH", NUMBERS, ALWAYS}, {"up_proj", "EFH", NUMBERS, ALWAYS}, {"down_proj", "EHF", NUMBERS, ALWAYS}, \
    {"shared_gate_proj", "SH", NUMBERS, WITH_SHARED}, {"shared_up_proj", "SH", NUMBERS, WITH_SHARED}, \
    {"shared_down_proj", "HS", NUMBERS, WITH_SHARED}
const Input EXPERT_TAKES[] = {EXPERT_INPUTS, {0}};
const Input EXPERT_BACKWARD_TAKES[] = {EXPERT_INPUTS, {"dy", "NH", NUMBERS, ALWAYS}, {0}};
const Input DISPATCH_TAKES[] = {{"x", "TH", NUMBERS, ALWAYS}, {"topk_idx", "TW", IDS, ALWAYS}, {0}};
const Input COMBINE_TAKES[] = {
    {"rows", "NH", NUMBERS, ALWAYS}, {"row_token", "N", INDEX, ALWAYS}, {"row_slot", "N", INDEX, ALWAYS},
    {"topk_weight", "TW", NUMBERS, ALWAYS}, {0},
};
const Input MOE_TAKES[] = {LAYER_INPUTS, {"mask", "T", MASK, OPTIONAL}, {"topk_idx", "TW", IDS, OPTIONAL}, {0}};
const Input MOE_BACKWARD_TAKES[] = {
    LAYER_INPUTS, {"topk_idx", "TW", IDS, ALWAYS}, {"dy", "TH", NUMBERS, ALWAYS}, {0},
};
