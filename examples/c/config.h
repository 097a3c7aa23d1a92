/* The config of a layer (SPEC section 5): read from JSON, checked, and whether it is one that is offered here. */
#ifndef CONFIG_H
#define CONFIG_H

#include "base.h"
#include "json.h"

#include <stdbool.h>

/* Fields that hold a word are the word's place in the lists of fields.c; what DeepSeek-V3 has comes first. */
enum { TOPK, NOISY_TOPK, EXPERT_CHOICE, HIERARCHICAL }; /* router */
enum { SIGMOID, SOFTMAX, SQRTSOFTPLUS };                /* scoring_func */
enum { OVER_ALL, OVER_CHOSEN };                         /* softmax_over */
enum { NO_GROUP_SCORE, TOP2_SUM, BEST_ONE };            /* group_score */
enum { NO_POLICY, GSHARD, REROUTE };                    /* drop_policy: the ones that CFG-14 names */

typedef struct {
    size_t hidden_size, moe_intermediate_size, n_routed_experts, n_shared_experts, num_experts_per_tok; /* H F E S K */
    size_t n_group, topk_group, n_device, device_limit, alignment;
    size_t group_score, scoring_func, router, choose_by, softmax_over, hidden_act, weight_position, drop_policy;
    size_t layout, balance_kind, balance_topk, bias_update;
    bool norm_topk_prob, selection_bias, norm_when_k1, hash_routing, gated;
    double routed_scaling_factor, rms_norm_eps, alpha, bias_update_rate;
    double swiglu_limit, capacity_factor; /* 0: null */
} Config;

/* Refused: what breaks a clause of CFG. Not supported: what is legal, but not this layer. */
Status config_read(const Json *object, Config *cfg);

#endif
