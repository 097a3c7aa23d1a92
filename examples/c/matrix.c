/* Sums are added up in double and rounded once (MOE-7 asks for float32 or better). */
#include "matrix.h"

#include "base.h"

Matrix matrix(size_t rows, size_t cols)
{
    return (Matrix){rows, cols, take(rows * cols, sizeof(float))};
}

float *row_of(Matrix a, size_t i)
{
    return a.v + i * a.cols;
}

int64_t *ids_of(Ids ids, size_t token)
{
    return ids.v + token * ids.slots;
}

Matrix slice(Matrix stack, size_t i, size_t rows)
{
    return (Matrix){rows, stack.cols, stack.v + i * rows * stack.cols};
}

/* The sum of `count` products of two numbers each; a_step and b_step lead to the next ones. */
static float dot(const float *a, size_t a_step, const float *b, size_t b_step, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)a[i * a_step] * (double)b[i * b_step];
    return (float)sum;
}

void times_transposed(Matrix out, Matrix a, Matrix b)
{
    for (size_t i = 0; i < a.rows; i++) {
        for (size_t j = 0; j < b.rows; j++)
            row_of(out, i)[j] = dot(row_of(a, i), 1, row_of(b, j), 1, a.cols);
    }
}

void times(Matrix out, Matrix a, Matrix b)
{
    for (size_t i = 0; i < a.rows; i++) {
        for (size_t j = 0; j < b.cols; j++)
            row_of(out, i)[j] = dot(row_of(a, i), 1, b.v + j, b.cols, a.cols);
    }
}

void transposed_times(Matrix out, Matrix a, Matrix b)
{
    for (size_t i = 0; i < a.cols; i++) {
        for (size_t j = 0; j < b.cols; j++)
            row_of(out, i)[j] = dot(a.v + i, a.cols, b.v + j, b.cols, a.rows);
    }
}

void add_to(Matrix out, Matrix a)
{
    for (size_t i = 0; i < out.rows * out.cols; i++)
        out.v[i] += a.v[i];
}
