#include "fields.h"

#include <math.h>
#include <string.h>

enum { MOST_WORDS = 8 };

typedef enum { SIZE, FLAG, WORD, POSITIVE, POSITIVE_OR_NULL, NOT_NEGATIVE, UNREAD } Kind;

typedef struct {
    const char *name;
    size_t offset; /* in Config */
    Kind kind;
    bool required; /* CFG-10: it may not be left out */
    const char *clause;
    const char *words[MOST_WORDS]; /* legal ones */
} Field;

#define OF(field) #field, offsetof(Config, field)
#define NEEDED true
#define NEUTRAL false

/* All fields. Those of FP8 and of the optimiser are read by ops that are not offered here. */
static const Field FIELDS[] = {
    {OF(hidden_size), SIZE, NEEDED, "CFG-1", {0}},
    {OF(moe_intermediate_size), SIZE, NEEDED, "CFG-1", {0}},
    {OF(n_routed_experts), SIZE, NEEDED, "CFG-1", {0}},
    {OF(n_shared_experts), SIZE, NEEDED, "CFG-1", {0}},
    {OF(num_experts_per_tok), SIZE, NEEDED, "CFG-1", {0}},
    {OF(n_group), SIZE, NEEDED, "CFG-1", {0}},
    {OF(topk_group), SIZE, NEEDED, "CFG-4", {0}},
    {OF(n_device), SIZE, NEUTRAL, "CFG-1", {0}},
    {OF(device_limit), SIZE, NEUTRAL, "CFG-15", {0}},
    {OF(alignment), SIZE, NEUTRAL, "CFG-1", {0}},
    {OF(group_score), WORD, NEEDED, "CFG-6", {"null", "top2_sum", "max"}},
    {OF(scoring_func), WORD, NEEDED, "CFG-11", {"sigmoid", "softmax", "sqrtsoftplus"}},
    {OF(choose_by), WORD, NEUTRAL, "CFG-11", {"scores", "logits"}},
    {OF(softmax_over), WORD, NEUTRAL, "CFG-11", {"all", "chosen"}},
    {OF(router), WORD, NEUTRAL, "CFG-12", {"topk", "noisy_topk", "expert_choice", "hierarchical"}},
    {OF(hidden_act), WORD, NEUTRAL, "CFG-13", {"silu", "gelu_pytorch_tanh", "relu"}},
    {OF(weight_position), WORD, NEUTRAL, "CFG-13", {"after_down", "before_down"}},
    {OF(drop_policy), WORD, NEUTRAL, "CFG-14",
     {"null", "gshard", "reroute", "position", "slot", "probs", "device_probs"}},
    {OF(layout), WORD, NEUTRAL, "CFG-15", {"contiguous", "masked", "psum", "k_grouped"}},
    {OF(balance_kind), WORD, NEUTRAL, "CFG-16",
     {"null", "expert", "device", "communication", "sequence", "z", "importance"}},
    {OF(balance_topk), WORD, NEUTRAL, "CFG-16", {"given", "unbiased"}},
    {OF(bias_update), WORD, NEUTRAL, "CFG-16", {"sign", "sign_centred"}},
    {OF(norm_topk_prob), FLAG, NEEDED, "CFG-8", {0}},
    {OF(selection_bias), FLAG, NEEDED, "CFG-8", {0}},
    {OF(norm_when_k1), FLAG, NEUTRAL, "CFG-8", {0}},
    {OF(hash_routing), FLAG, NEUTRAL, "CFG-8", {0}},
    {OF(gated), FLAG, NEUTRAL, "CFG-8", {0}},
    {OF(routed_scaling_factor), POSITIVE, NEEDED, "CFG-7", {0}},
    {OF(rms_norm_eps), POSITIVE, NEUTRAL, "NRM-4", {0}},
    {OF(swiglu_limit), POSITIVE_OR_NULL, NEUTRAL, "CFG-13", {0}},
    {OF(capacity_factor), POSITIVE_OR_NULL, NEUTRAL, "CFG-14", {0}},
    {OF(alpha), NOT_NEGATIVE, NEUTRAL, "CFG-16", {0}},
    {OF(bias_update_rate), NOT_NEGATIVE, NEUTRAL, "CFG-16", {0}},
    {"recipe", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"format", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"a_format", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"b_format", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"scale_format", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"overflow", 0, UNREAD, NEUTRAL, "CFG-17", {0}},
    {"block", 0, UNREAD, NEUTRAL, "CFG-18", {0}},
    {"a_block", 0, UNREAD, NEUTRAL, "CFG-18", {0}},
    {"b_block", 0, UNREAD, NEUTRAL, "CFG-18", {0}},
    {"accumulate", 0, UNREAD, NEUTRAL, "CFG-19", {0}},
    {"promote_every", 0, UNREAD, NEUTRAL, "CFG-19", {0}},
    {"adam_beta1", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
    {"adam_beta2", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
    {"adam_epsilon", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
    {"learning_rate", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
    {"weight_decay", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
    {"moment_format", 0, UNREAD, NEUTRAL, "CFG-20", {0}},
};
enum { N_FIELDS = sizeof FIELDS / sizeof *FIELDS };

/* CFG-1: a whole number; all but n_shared_experts are at least 1. */
static Status read_size(const Field *field, const Json *value, size_t *size)
{
    int64_t least = strcmp(field->name, "n_shared_experts") == 0 ? 0 : 1;
    bool good = value->kind == JSON_NUMBER && value->whole && value->integer >= least;
    REQUIRE(good, "%s: %s must be a whole number of at least %d", field->clause, field->name, (int)least);
    *size = (size_t)value->integer;
    return DONE;
}

/* CFG-11 ... CFG-16: one of the legal words; "null" stands for JSON's null. */
static Status read_word(const Field *field, const Json *value, size_t *word)
{
    const char *said = value->kind == JSON_STRING ? value->text : "";
    for (*word = 0; *word < MOST_WORDS && field->words[*word] != NULL; ++*word) {
        bool null = strcmp(field->words[*word], "null") == 0;
        if (null ? value->kind == JSON_NULL : strcmp(field->words[*word], said) == 0)
            return DONE;
    }
    return refused("%s: %s has no such value", field->clause, field->name);
}

/* CFG-7, CFG-13, CFG-14, CFG-16: a finite number, above 0 or not below it; null becomes 0. */
static Status read_number(const Field *field, const Json *value, double *number)
{
    *number = 0;
    if (field->kind == POSITIVE_OR_NULL && value->kind == JSON_NULL)
        return DONE;
    REQUIRE(value->kind == JSON_NUMBER && isfinite(value->number), "%s: %s must be a finite number", field->clause,
            field->name);
    bool good = field->kind == NOT_NEGATIVE ? value->number >= 0 : value->number > 0;
    REQUIRE(good, "%s: %s is too small", field->clause, field->name);
    *number = value->number;
    return DONE;
}

static Status read_field(const Field *field, const Json *value, Config *cfg)
{
    void *place = (char *)cfg + field->offset;
    switch (field->kind) {
    case SIZE:
        return read_size(field, value, place);
    case WORD:
        return read_word(field, value, place);
    case FLAG:
        REQUIRE(value->kind == JSON_BOOL, "%s: %s must be true or false", field->clause, field->name);
        *(bool *)place = value->truth;
        return DONE;
    case UNREAD:
        return DONE;
    default:
        return read_number(field, value, place);
    }
}

Status fields_read(const Json *object, Config *cfg)
{
    REQUIRE(object != NULL && object->kind == JSON_OBJECT, "CFG-10: there is no config");
    for (const Json *member = object->child; member != NULL; member = member->next) {
        size_t i = 0;
        while (i < N_FIELDS && strcmp(FIELDS[i].name, member->key) != 0)
            i++;
        REQUIRE(i < N_FIELDS, "CFG-10: unknown field %s", member->key);
    }
    *cfg = (Config){.n_device = 1, .device_limit = 1, .alignment = 1, .norm_when_k1 = true, .gated = true}; /* CFG-9 */
    for (size_t i = 0; i < N_FIELDS; i++) {
        const Json *value = json_member(object, FIELDS[i].name);
        REQUIRE(value != NULL || !FIELDS[i].required, "CFG-10: missing field %s", FIELDS[i].name);
        Status status = value == NULL ? DONE : read_field(&FIELDS[i], value, cfg);
        if (status != DONE)
            return status;
    }
    return DONE;
}
