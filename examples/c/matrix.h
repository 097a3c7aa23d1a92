/* Matrices of float32, row after row, and the three products that a layer needs. */
#ifndef MATRIX_H
#define MATRIX_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t rows, cols;
    float *v; /* NULL: there is no such matrix */
} Matrix;

/* Ids of experts, a row for each token; -1 is an empty slot. */
typedef struct {
    size_t tokens, slots;
    int64_t *v; /* NULL: there are no ids */
} Ids;

/* Zeros. */
Matrix matrix(size_t rows, size_t cols);

float *row_of(Matrix a, size_t i);
int64_t *ids_of(Ids ids, size_t token);

/* Of a stack of matrices of this many rows, one matrix. */
Matrix slice(Matrix stack, size_t i, size_t rows);

/* out = a @ b.T: (M,N) of (M,C) and (N,C). */
void times_transposed(Matrix out, Matrix a, Matrix b);

/* out = a @ b: (M,N) of (M,C) and (C,N). */
void times(Matrix out, Matrix a, Matrix b);

/* out = a.T @ b: (M,N) of (C,M) and (C,N); zeros if C is 0. */
void transposed_times(Matrix out, Matrix a, Matrix b);

/* out += a */
void add_to(Matrix out, Matrix a);

#endif
