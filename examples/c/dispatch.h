/* Rows by expert: from (token, slot) to rows that lie together by expert, and back (SPEC section 8). */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "matrix.h"

/* Which token and slot each row belongs to; -1 and -1 is a padding row. */
typedef struct {
    size_t count;
    int64_t *token, *slot; /* (N) */
    int64_t *expert_count; /* (E): the rows of expert 0 come first */
} Rows;

Rows rows_by_expert(Ids topk_idx, size_t n_experts);

/* The rows of `from` that these tokens have: (count,H). */
Matrix gather(Matrix from, const int64_t *token, size_t count);

/* DSP-3: y (T,H), zeros before, of rows (N,H) and their tokens' weights (T,W). */
void combine(Matrix y, Matrix rows, const int64_t *token, const int64_t *slot, Matrix topk_weight);

#endif
