/* The gate: which experts each token goes to, and with what weight (SPEC section 6). */
#ifndef GATE_H
#define GATE_H

#include "config.h"
#include "matrix.h"

/* What a gate made on its way. */
typedef struct {
    Matrix logits, scores, choice; /* (T,E) */
    Matrix group_scores;           /* (T,G) */
    Ids topk_idx;                  /* (T,W) */
    Matrix topk_weight;            /* (T,W) */
} Gate;

/* x (T,H), weight (E,H); bias (E) may be absent, and then is 0; so may ids that are given (T,W), and a mask (T). */
Gate gate_forward(const Config *cfg, Matrix x, Matrix weight, Matrix bias, Ids given, const unsigned char *mask);

/* Gradients of x and weight. dscores and dlogits (T,E) may be absent; the ids are the ones of the forward. */
void gate_backward(const Config *cfg, const Gate *gate, Matrix x, Matrix weight, Matrix dtopk_weight, Matrix dscores,
                   Matrix dlogits, Matrix dx, Matrix dweight);

#endif
