/* Files of named tensors: 8 bytes of header length, a JSON header with dtype, shape and place of each, the bytes. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "base.h"
#include "json.h"

enum { MAX_RANK = 4, MAX_TENSORS = 32 };

typedef enum { F32, I64, I32, BOOL, OTHER } Dtype; /* OTHER: known to the format, but no op here takes it */

typedef struct {
    size_t rank, size[MAX_RANK];
} Shape;

typedef struct {
    const char *name;
    Dtype dtype;
    Shape shape;
    size_t count; /* elements */
    void *data;   /* C-contiguous */
} Tensor;

typedef struct {
    size_t count;
    Tensor tensor[MAX_TENSORS];
} Tensors;

/* The tensor of this name, or NULL. */
const Tensor *tensors_find(const Tensors *all, const char *name);

/* One more tensor, of zeros: its data. */
void *tensors_add(Tensors *all, const char *name, Dtype dtype, Shape shape);

/* A shape, or another list of at most so many whole numbers of 0 or more; false if this is something else. */
bool shape_read(const Json *array, Shape *shape);

/* Whatever is no such file is refused, or has failed if it cannot be read. */
Status tensors_read(const char *path, Tensors *all);

Status tensors_write(const char *path, const Tensors *all);

#endif
