/* One expert: a gated feed-forward network without biases (SPEC section 7). */
#ifndef EXPERT_H
#define EXPERT_H

#include "matrix.h"

/* The matrices of an expert, or their gradients: (F,H), (F,H), (H,F). */
typedef struct {
    Matrix gate_proj, up_proj, down_proj;
} Expert;

/* What an expert made of its rows: (N,F), (N,F), (N,F), (N,H). */
typedef struct {
    Matrix gate, up, h, y;
} ExpertRun;

/* x (N,H). */
ExpertRun expert_forward(Expert w, Matrix x);

/* Gradient of x (N,H); those of the matrices are written into dw, zeros if there are no rows (EXP-4). */
Matrix expert_backward(Expert w, const ExpertRun *run, Matrix x, Matrix dy, Expert dw);

#endif
