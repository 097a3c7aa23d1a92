/* What an op refuses before it computes anything: wrong names, dtypes, shapes, ids or values (SPEC section 4). */
#ifndef CHECKS_H
#define CHECKS_H

#include "ops.h"

Status check(const Op *op, const Config *cfg, const Tensors *in);

#endif
