#include "gate.h"

#include <math.h>

/* ARR-1: the exponential never overflows, and what is small keeps its digits. */
static double sigmoid(double x)
{
    double e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

/* GATE-2: scores (T,E) of logits, each expert by itself. */
static Matrix score(Matrix logits)
{
    Matrix scores = matrix(logits.rows, logits.cols);
    for (size_t i = 0; i < logits.rows * logits.cols; i++)
        scores.v[i] = (float)sigmoid((double)logits.v[i]);
    return scores;
}

/* Gradient of logits (T,E). GATE-2 was: scores = sigmoid(logits). */
static Matrix score_backward(Matrix dscores, Matrix scores)
{
    Matrix dlogits = matrix(scores.rows, scores.cols);
    for (size_t i = 0; i < scores.rows * scores.cols; i++) {
        double s = (double)scores.v[i];
        dlogits.v[i] = (float)((double)dscores.v[i] * s * (1 - s));
    }
    return dlogits;
}

/* GATE-3: what the gate chooses by (T,E): the score plus the bias, which moves the choice and never the weight. */
static Matrix biased(Matrix scores, Matrix bias)
{
    Matrix choice = matrix(scores.rows, scores.cols);
    for (size_t t = 0; t < scores.rows; t++) {
        for (size_t e = 0; e < scores.cols; e++)
            row_of(choice, t)[e] = row_of(scores, t)[e] + (bias.v != NULL ? bias.v[e] : 0);
    }
    return choice;
}

/* GATE-4: a group of experts with consecutive ids counts as the sum of its two largest choices: (T,G). */
static Matrix score_groups(Matrix choice, size_t n_group)
{
    Matrix sums = matrix(choice.rows, n_group);
    size_t size = choice.cols / n_group;
    for (size_t i = 0; i < choice.rows * n_group; i++) {
        const float *group = choice.v + i * size; /* a row of choice is its groups, one after another */
        float first = -INFINITY, second = -INFINITY;
        for (size_t j = 0; j < size; j++) {
            if (group[j] > first) {
                second = first;
                first = group[j];
            } else if (group[j] > second) {
                second = group[j];
            }
        }
        sums.v[i] = first + second;
    }
    return sums;
}

/* ARR-2: the k largest of those that stand, largest first; of equals the lower index first. They stand no longer. */
static void top_k(const float *values, unsigned char *stands, size_t count, size_t k, int64_t *index)
{
    for (size_t i = 0; i < k; i++) {
        size_t best = count;
        for (size_t j = 0; j < count; j++) {
            if (stands[j] && (best == count || values[j] > values[best]))
                best = j;
        }
        stands[best] = 0;
        index[i] = (int64_t)best;
    }
}

/* GATE-5: the K experts of each token (T,K), by choice, and by group_scores if there are groups. */
static Ids select_experts(const Config *cfg, Matrix choice, Matrix group_scores)
{
    size_t k = cfg->num_experts_per_tok, g = cfg->n_group, size = cfg->n_routed_experts / g;
    Ids ids = {choice.rows, k, take(choice.rows * k, sizeof(int64_t))};
    int64_t *kept = take(cfg->topk_group, sizeof(int64_t));
    unsigned char *group_stands = take(g, 1), *stands = take(choice.cols, 1);
    for (size_t t = 0; t < choice.rows; t++) {
        for (size_t i = 0; i < g; i++)
            group_stands[i] = 1;
        for (size_t e = 0; e < choice.cols; e++)
            stands[e] = g == 1;
        if (g > 1) { /* GATE-4: only the experts of the best groups stand */
            top_k(row_of(group_scores, t), group_stands, g, cfg->topk_group, kept);
            for (size_t i = 0; i < cfg->topk_group * size; i++)
                stands[(size_t)kept[i / size] * size + i % size] = 1;
        }
        top_k(row_of(choice, t), stands, choice.cols, k, ids_of(ids, t));
    }
    return ids;
}

/* GATE-13: the ids without those of padding tokens. */
static Ids masked(Ids ids, const unsigned char *mask)
{
    Ids left = {ids.tokens, ids.slots, take(ids.tokens * ids.slots, sizeof(int64_t))};
    for (size_t i = 0; i < ids.tokens * ids.slots; i++)
        left.v[i] = mask == NULL || mask[i / ids.slots] ? ids.v[i] : -1;
    return left;
}

/* GATE-7: what a token's starting weights are divided by: their sum, or 1 if they are not normalised. */
static double denominator(const Config *cfg, const float *scores, const int64_t *ids, size_t slots)
{
    double sum = 0;
    for (size_t k = 0; k < slots; k++)
        sum += ids[k] < 0 ? 0 : (double)scores[ids[k]];
    return cfg->norm_topk_prob ? sum + 1e-20 : 1;
}

/* Weights of the chosen experts (T,W). */
static Matrix weigh(const Config *cfg, Matrix scores, Ids topk_idx)
{
    Matrix topk_weight = matrix(topk_idx.tokens, topk_idx.slots);
    for (size_t t = 0; t < topk_idx.tokens; t++) {
        const int64_t *ids = ids_of(topk_idx, t);
        double denom = denominator(cfg, row_of(scores, t), ids, topk_idx.slots);
        for (size_t k = 0; k < topk_idx.slots; k++) {
            double start = ids[k] < 0 ? 0 : (double)row_of(scores, t)[ids[k]];             /* GATE-6 */
            row_of(topk_weight, t)[k] = (float)(start / denom * cfg->routed_scaling_factor); /* GATE-7, GATE-8 */
        }
    }
    return topk_weight;
}

/* GATE-10: gradient of scores (T,E). GATE-8 was: topk_weight = share * scale, with share = score / denom. */
static Matrix weigh_backward(const Config *cfg, Matrix dtopk_weight, Matrix scores, Ids topk_idx)
{
    Matrix dscores = matrix(scores.rows, scores.cols);
    for (size_t t = 0; t < topk_idx.tokens; t++) {
        const int64_t *ids = ids_of(topk_idx, t);
        const float *d = row_of(dtopk_weight, t), *s = row_of(scores, t);
        double denom = denominator(cfg, s, ids, topk_idx.slots), through_sum = 0;
        for (size_t k = 0; k < topk_idx.slots && cfg->norm_topk_prob; k++) {
            if (ids[k] >= 0)
                through_sum += cfg->routed_scaling_factor * (double)d[k] * (double)s[ids[k]] / denom;
        }
        for (size_t k = 0; k < topk_idx.slots; k++) {
            if (ids[k] >= 0)
                row_of(dscores, t)[ids[k]] = (float)((cfg->routed_scaling_factor * (double)d[k] - through_sum) / denom);
        }
    }
    return dscores;
}

Gate gate_forward(const Config *cfg, Matrix x, Matrix weight, Matrix bias, Ids given, const unsigned char *mask)
{
    Gate gate = {.logits = matrix(x.rows, weight.rows)};
    times_transposed(gate.logits, x, weight); /* GATE-1 */
    gate.scores = score(gate.logits);
    gate.choice = biased(gate.scores, bias);
    if (cfg->n_group > 1)
        gate.group_scores = score_groups(gate.choice, cfg->n_group);
    Ids ids = given.v != NULL ? given : select_experts(cfg, gate.choice, gate.group_scores); /* GATE-9 */
    gate.topk_idx = masked(ids, mask);
    gate.topk_weight = weigh(cfg, gate.scores, gate.topk_idx);
    return gate;
}

void gate_backward(const Config *cfg, const Gate *gate, Matrix x, Matrix weight, Matrix dtopk_weight, Matrix dscores,
                   Matrix dlogits, Matrix dx, Matrix dweight)
{
    /* GATE-6 was: topk_weight = weigh(scores, topk_idx); GATE-14: a loss on the scores is added to that */
    Matrix all_dscores = weigh_backward(cfg, dtopk_weight, gate->scores, gate->topk_idx);
    if (dscores.v != NULL)
        add_to(all_dscores, dscores);

    /* GATE-2 was: scores = sigmoid(logits); GATE-14: so is a loss on the logits */
    Matrix all_dlogits = score_backward(all_dscores, gate->scores);
    if (dlogits.v != NULL)
        add_to(all_dlogits, dlogits);

    /* GATE-1 was: logits = x @ weight.T */
    times(dx, all_dlogits, weight);
    transposed_times(dweight, all_dlogits, x);
}
