#include "dispatch.h"

#include "base.h"

#include <string.h>

/* DSP-2: how many slots name each expert; an empty one is counted nowhere. */
static int64_t *count_rows(Ids topk_idx, size_t n_experts)
{
    int64_t *count = take(n_experts, sizeof(int64_t));
    for (size_t i = 0; i < topk_idx.tokens * topk_idx.slots; i++) {
        if (topk_idx.v[i] >= 0)
            count[topk_idx.v[i]]++;
    }
    return count;
}

Rows rows_by_expert(Ids topk_idx, size_t n_experts)
{
    Rows rows = {.expert_count = count_rows(topk_idx, n_experts)};
    size_t *next = take(n_experts, sizeof(size_t)); /* where each expert's next row goes */
    for (size_t e = 0; e < n_experts; e++) {
        next[e] = rows.count;
        rows.count += (size_t)rows.expert_count[e];
    }
    rows.token = take(rows.count, sizeof(int64_t));
    rows.slot = take(rows.count, sizeof(int64_t));

    /* DSP-1: ordered by expert, then token; DSP-2: an empty slot makes no row */
    for (size_t i = 0; i < topk_idx.tokens * topk_idx.slots; i++) {
        if (topk_idx.v[i] < 0)
            continue;
        size_t place = next[topk_idx.v[i]]++;
        rows.token[place] = (int64_t)(i / topk_idx.slots);
        rows.slot[place] = (int64_t)(i % topk_idx.slots);
    }
    return rows;
}

Matrix gather(Matrix from, const int64_t *token, size_t count)
{
    Matrix rows = matrix(count, from.cols);
    for (size_t i = 0; i < count; i++)
        memcpy(row_of(rows, i), row_of(from, (size_t)token[i]), from.cols * sizeof(float));
    return rows;
}

/* The rows may come in any order, and with padding among them: a slot's row is looked up (W of each token, by slot). */
void combine(Matrix y, Matrix rows, const int64_t *token, const int64_t *slot, Matrix topk_weight)
{
    size_t w = topk_weight.cols;
    const float **row = take(y.rows * w, sizeof *row); /* NULL: the slot has none */
    for (size_t i = 0; i < rows.rows; i++) {
        if (token[i] >= 0)
            row[(size_t)token[i] * w + (size_t)slot[i]] = row_of(rows, i);
    }

    /* DSP-3: slots ascending; a slot without a row adds nothing */
    for (size_t i = 0; i < y.rows * w; i++) {
        for (size_t h = 0; row[i] != NULL && h < y.cols; h++)
            row_of(y, i / w)[h] += topk_weight.v[i] * row[i][h];
    }
}
