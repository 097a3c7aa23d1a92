#include "config.h"

#include "fields.h"

static const size_t LARGEST = (size_t)1 << 24; /* of any size that is offered */

/* CFG-2 ... CFG-6, CFG-15: sizes that agree. */
static Status check_sizes(const Config *c)
{
    size_t e = c->n_routed_experts, g = c->n_group, k = c->num_experts_per_tok;
    bool grouped = g > 1 && c->router == TOPK;
    REQUIRE(k <= e, "CFG-2: num_experts_per_tok exceeds n_routed_experts");
    REQUIRE(e % g == 0, "CFG-3: n_routed_experts is not a multiple of n_group");
    REQUIRE(c->topk_group <= g, "CFG-4: topk_group exceeds n_group");
    REQUIRE(c->topk_group * (e / g) >= k, "CFG-5: the kept groups hold too few experts");
    REQUIRE((c->group_score != NO_GROUP_SCORE) == grouped, "CFG-6: group_score is there if there are groups");
    REQUIRE(c->group_score != TOP2_SUM || e / g >= 2, "CFG-6: top2_sum needs two experts a group");
    REQUIRE(e % c->n_device == 0, "CFG-15: n_routed_experts is not a multiple of n_device");
    REQUIRE(c->device_limit <= c->n_device, "CFG-15: device_limit exceeds n_device");
    return DONE;
}

/* CFG-11 ... CFG-14: words that agree. */
static Status check_words(const Config *c)
{
    bool topk = c->router == TOPK, over_all = c->softmax_over == OVER_ALL, softmax = c->scoring_func == SOFTMAX;
    bool family = topk && over_all; /* DeepSeek's own routers */
    bool policy = c->drop_policy != NO_POLICY, capacity = c->capacity_factor > 0;
    REQUIRE(over_all || (softmax && !c->norm_topk_prob), "CFG-11: softmax_over chosen is softmax, and normalised");
    REQUIRE(family || (softmax && !c->selection_bias && !c->norm_topk_prob), "CFG-12: this router is plain softmax");
    REQUIRE(family || c->router == HIERARCHICAL || c->n_group == 1, "CFG-12: this router knows no groups");
    REQUIRE(topk || over_all == (c->router != NOISY_TOPK), "CFG-12: router and softmax_over do not agree");
    REQUIRE(c->router != EXPERT_CHOICE || capacity, "CFG-12: expert_choice needs a capacity_factor");
    REQUIRE(c->router != HIERARCHICAL || c->num_experts_per_tok % c->topk_group == 0, "CFG-12: uneven groups");
    REQUIRE(!c->hash_routing || (topk && !c->selection_bias), "CFG-12: hash_routing chooses alone");
    REQUIRE(c->swiglu_limit == 0 || c->gated, "CFG-13: swiglu_limit needs a gate");
    REQUIRE(policy == (capacity && c->router != EXPERT_CHOICE), "CFG-14: capacity_factor and drop_policy go together");
    bool by_scores = c->drop_policy == GSHARD || c->drop_policy == REROUTE;
    REQUIRE(family || !by_scores, "CFG-14: this drop_policy needs all scores");
    return DONE;
}

/* What is legal, but not DeepSeek-V3's layer. */
static Status check_offered(const Config *c)
{
    bool router = c->router == TOPK && c->scoring_func == SIGMOID && c->softmax_over == OVER_ALL && c->choose_by == 0;
    bool chosen = !c->hash_routing && c->norm_when_k1 && c->group_score != BEST_ONE && c->drop_policy == NO_POLICY;
    bool expert = c->gated && c->hidden_act == 0 && c->swiglu_limit == 0 && c->weight_position == 0;
    if (!router || !chosen || !expert)
        return not_supported("only DeepSeek-V3's gate and experts are offered");
    const size_t sizes[] = {c->hidden_size, c->moe_intermediate_size, c->n_routed_experts, c->n_shared_experts};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] > LARGEST)
            return not_supported("a size is too large");
    }
    return DONE;
}

Status config_read(const Json *object, Config *cfg)
{
    Status status = fields_read(object, cfg);
    status = status == DONE ? check_sizes(cfg) : status;
    status = status == DONE ? check_words(cfg) : status;
    return status == DONE ? check_offered(cfg) : status;
}
