/* The layer: gate, routed experts, shared expert (SPEC section 9). */
#ifndef LAYER_H
#define LAYER_H

#include "expert.h"
#include "gate.h"

/* The trained tensors of a layer, or their gradients. */
typedef struct {
    Matrix gate_weight; /* (E,H) */
    Expert routed;      /* stacks: (E,F,H), (E,F,H), (E,H,F), written as (E*F,H), (E*F,H), (E*H,F) */
    Expert shared;      /* (SF,H), (SF,H), (H,SF); absent if there are no shared experts */
} Layer;

typedef struct {
    Gate gate;
    Matrix routed, shared, y; /* (T,H) */
} LayerRun;

/* x (T,H); bias, given ids and mask as for the gate. */
LayerRun layer_forward(const Config *cfg, Layer w, Matrix x, Matrix bias, Ids given, const unsigned char *mask);

/* Gradient of x into dx (T,H), and of the trained tensors into dw, which is zeros before. */
void layer_backward(const Config *cfg, Layer w, Matrix x, Ids given, Matrix dy, Matrix dx, Layer dw);

#endif
