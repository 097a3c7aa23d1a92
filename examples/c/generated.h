/* Inputs that need no file: a prompt names their shape, a seed and a shift instead (golden/README.md). */
#ifndef GENERATED_H
#define GENERATED_H

#include "json.h"
#include "safetensors.h"

/* Make the tensors of the prompt's member `generated`, if there is one, beside those that were read. */
Status generated_add(const Json *prompt, Tensors *all);

#endif
