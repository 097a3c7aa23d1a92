#include "checks.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LETTERS = 128 };
static const size_t FREE = SIZE_MAX; /* a letter that is not bound yet */

/* Ids are of 32 or 64 bits. */
static int64_t id_at(const Tensor *t, size_t i)
{
    return t->dtype == I32 ? ((const int32_t *)t->data)[i] : ((const int64_t *)t->data)[i];
}

/* ARR-3: whether this config has the tensor at all. */
static bool there(const Input *input, const Config *cfg)
{
    return !(input->when == WITH_BIAS && !cfg->selection_bias) &&
           !(input->when == WITH_SHARED && cfg->n_shared_experts == 0);
}

/* ARR-3: no tensor too many, none too few. */
static Status check_names(const Op *op, const Config *cfg, const Tensors *in)
{
    for (size_t i = 0; i < in->count; i++) {
        const Input *input = op->inputs;
        while (input->name != NULL && strcmp(input->name, in->tensor[i].name) != 0)
            input++;
        REQUIRE(input->name != NULL && there(input, cfg), "ARR-3: %s takes no %s", op->name, in->tensor[i].name);
    }
    for (const Input *input = op->inputs; input->name != NULL; input++) {
        bool needed = input->when != OPTIONAL && there(input, cfg);
        REQUIRE(!needed || tensors_find(in, input->name) != NULL, "ARR-3: %s needs %s", op->name, input->name);
    }
    return DONE;
}

/* ARR-4: numbers are float32, ids are integers, a mask is of bool. */
static Status check_dtype(const Input *input, const Tensor *t)
{
    if (input->holds == NUMBERS)
        REQUIRE(t->dtype == F32, "ARR-4: %s must be float32", t->name);
    else if (input->holds == MASK)
        REQUIRE(t->dtype == BOOL, "ARR-4: %s must be of bool", t->name);
    else
        REQUIRE(t->dtype == I64 || t->dtype == I32, "ARR-4: %s must be int32 or int64", t->name);
    return DONE;
}

/* ARR-5: as many axes as letters; T, N and W are bound at first sight. */
static Status check_shape(const Input *input, const Tensor *t, size_t letter[LETTERS])
{
    REQUIRE(t->shape.rank == strlen(input->letters), "ARR-5: %s has not the axes %s", t->name, input->letters);
    for (size_t i = 0; i < t->shape.rank; i++) {
        size_t *bound = &letter[(unsigned char)input->letters[i]], size = t->shape.size[i];
        if (*bound == FREE)
            *bound = size;
        REQUIRE(*bound == size, "ARR-5: %s has a wrong size along %c", t->name, input->letters[i]);
        REQUIRE(size > 0 || input->letters[i] != 'W', "ARR-5: %s has no slot", t->name);
    }
    return DONE;
}

/* ARR-6: ids lie in -1 ... size - 1. */
static Status check_range(const Tensor *t, size_t size)
{
    for (size_t i = 0; i < t->count; i++) {
        int64_t id = id_at(t, i);
        REQUIRE(id >= -1 && (id < 0 || (size_t)id < size), "ARR-6: %s holds an id out of range", t->name);
    }
    return DONE;
}

/* ARR-6: ids name experts, or nothing; a token names an expert only once. */
static Status check_ids(const Tensor *t, size_t n_experts)
{
    Status status = check_range(t, n_experts);
    if (status != DONE)
        return status;
    size_t slots = t->shape.size[1], *named_by = take(n_experts, sizeof(size_t)); /* the last token that did, plus 1 */
    for (size_t i = 0; i < t->count; i++) {
        int64_t id = id_at(t, i);
        if (id < 0)
            continue;
        REQUIRE(named_by[id] != i / slots + 1, "ARR-6: a token names an expert twice in %s", t->name);
        named_by[id] = i / slots + 1;
    }
    return DONE;
}

/* ARR-6: a row is of a token and a slot, or of neither; a slot has one row at most. */
static Status check_rows(const Tensor *token, const Tensor *slot, size_t tokens, size_t slots)
{
    Status status = check_range(token, tokens);
    status = status == DONE ? check_range(slot, slots) : status;
    if (status != DONE)
        return status;
    unsigned char *taken = take(tokens * slots, 1);
    for (size_t i = 0; i < token->count; i++) {
        int64_t t = id_at(token, i), s = id_at(slot, i);
        REQUIRE((t < 0) == (s < 0), "ARR-6: a row has only one of token and slot");
        if (t < 0)
            continue;
        REQUIRE(!taken[(size_t)t * slots + (size_t)s], "ARR-6: two rows are of the same token and slot");
        taken[(size_t)t * slots + (size_t)s] = 1;
    }
    return DONE;
}

/* GATE-11: the bias is finite. */
static Status check_bias(const Tensor *bias)
{
    for (size_t i = 0; i < bias->count; i++)
        REQUIRE(isfinite(((const float *)bias->data)[i]), "GATE-11: the bias must be finite");
    return DONE;
}

/* Values, once all shapes are right. */
static Status check_values(const Op *op, const Config *cfg, const Tensors *in, const size_t letter[LETTERS])
{
    const Tensor *bias = tensors_find(in, "bias"), *token = tensors_find(in, "row_token");
    Status status = bias != NULL ? check_bias(bias) : DONE;
    for (const Input *input = op->inputs; input->name != NULL && status == DONE; input++) {
        const Tensor *t = tensors_find(in, input->name);
        if (t != NULL && input->holds == IDS)
            status = check_ids(t, cfg->n_routed_experts);
    }
    if (token != NULL && status == DONE)
        status = check_rows(token, tensors_find(in, "row_slot"), letter['T'], letter['W']);
    return status;
}

Status check(const Op *op, const Config *cfg, const Tensors *in)
{
    size_t letter[LETTERS];
    for (size_t i = 0; i < LETTERS; i++)
        letter[i] = FREE;
    letter['H'] = cfg->hidden_size;
    letter['F'] = cfg->moe_intermediate_size;
    letter['E'] = cfg->n_routed_experts;
    letter['S'] = cfg->n_shared_experts * cfg->moe_intermediate_size;
    Status status = check_names(op, cfg, in);
    for (const Input *input = op->inputs; input->name != NULL && status == DONE; input++) {
        const Tensor *t = tensors_find(in, input->name);
        if (t == NULL)
            continue;
        status = check_dtype(input, t);
        status = status == DONE ? check_shape(input, t, letter) : status;
    }
    return status == DONE ? check_values(op, cfg, in, letter) : status;
}
