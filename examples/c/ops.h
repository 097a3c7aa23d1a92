/* The ops: named tensors in, named tensors out (SPEC section 3). */
#ifndef OPS_H
#define OPS_H

#include "config.h"
#include "safetensors.h"
#include "signatures.h"

typedef struct {
    const char *name;
    const Input *inputs; /* up to one without a name */
    void (*run)(const Config *cfg, const Tensors *in, Tensors *out);
} Op;

/* The op of this name, or NULL. */
const Op *op_find(const char *name);

#endif
