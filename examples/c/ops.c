#include "ops.h"

#include "dispatch.h"
#include "expert.h"
#include "gate.h"
#include "layer.h"

#include <string.h>

/* A tensor as a matrix; of a stack (E,F,H) the matrices stand one under another. */
static Matrix numbers(const Tensors *in, const char *name)
{
    const Tensor *t = tensors_find(in, name);
    if (t == NULL)
        return (Matrix){0};
    size_t cols = t->shape.size[t->shape.rank - 1], rows = 1;
    for (size_t i = 0; i + 1 < t->shape.rank; i++)
        rows *= t->shape.size[i];
    return (Matrix){rows, cols, t->data};
}

/* Ids of 64 bits; a vector has one slot. */
static Ids ids(const Tensors *in, const char *name)
{
    const Tensor *t = tensors_find(in, name);
    if (t == NULL)
        return (Ids){0};
    Ids wide = {t->shape.size[0], t->shape.rank > 1 ? t->shape.size[1] : 1, t->data};
    if (t->dtype == I32) {
        wide.v = take(t->count, sizeof(int64_t));
        for (size_t i = 0; i < t->count; i++)
            wide.v[i] = ((const int32_t *)t->data)[i];
    }
    return wide;
}

static const unsigned char *mask(const Tensors *in)
{
    const Tensor *t = tensors_find(in, "mask");
    return t == NULL ? NULL : t->data;
}

/* One more output that is a matrix already. */
static void put(Tensors *out, const char *name, Matrix a)
{
    void *data = tensors_add(out, name, F32, (Shape){2, {a.rows, a.cols}});
    memcpy(data, a.v, a.rows * a.cols * sizeof(float));
}

static void put_ids(Tensors *out, const char *name, const int64_t *v, Shape shape)
{
    void *data = tensors_add(out, name, I64, shape);
    memcpy(data, v, out->tensor[out->count - 1].count * sizeof(int64_t));
}

/* One more output of zeros, shaped as an input: the gradient of that. */
static Matrix gradient(Tensors *out, const char *name, const Tensors *in, const char *of)
{
    const Tensor *t = tensors_find(in, of);
    if (t == NULL)
        return (Matrix){0};
    tensors_add(out, name, F32, t->shape);
    return numbers(out, name);
}

static void gate_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    Gate gate = gate_forward(cfg, numbers(in, "x"), numbers(in, "weight"), numbers(in, "bias"), ids(in, "topk_idx"),
                             mask(in));
    put(out, "logits", gate.logits);
    put(out, "scores", gate.scores);
    if (cfg->n_group > 1)
        put(out, "group_scores", gate.group_scores);
    put_ids(out, "topk_idx", gate.topk_idx.v, (Shape){2, {gate.topk_idx.tokens, gate.topk_idx.slots}});
    put(out, "topk_weight", gate.topk_weight);
}

static void gate_backward_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    Matrix x = numbers(in, "x"), weight = numbers(in, "weight");
    Gate gate = gate_forward(cfg, x, weight, numbers(in, "bias"), ids(in, "topk_idx"), NULL);
    Matrix dx = gradient(out, "dx", in, "x"), dweight = gradient(out, "dweight", in, "weight");
    gate_backward(cfg, &gate, x, weight, numbers(in, "dtopk_weight"), numbers(in, "dscores"), numbers(in, "dlogits"),
                  dx, dweight);
}

static void expert_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    (void)cfg;
    Expert w = {numbers(in, "gate_proj"), numbers(in, "up_proj"), numbers(in, "down_proj")};
    ExpertRun run = expert_forward(w, numbers(in, "x"));
    put(out, "h", run.h);
    put(out, "y", run.y);
}

static void expert_backward_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    (void)cfg;
    Matrix x = numbers(in, "x");
    Expert w = {numbers(in, "gate_proj"), numbers(in, "up_proj"), numbers(in, "down_proj")};
    Expert dw = {gradient(out, "dgate_proj", in, "gate_proj"), gradient(out, "dup_proj", in, "up_proj"),
                 gradient(out, "ddown_proj", in, "down_proj")};
    ExpertRun run = expert_forward(w, x);
    put(out, "dx", expert_backward(w, &run, x, numbers(in, "dy"), dw));
}

static void dispatch_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    Rows rows = rows_by_expert(ids(in, "topk_idx"), cfg->n_routed_experts);
    put_ids(out, "expert_count", rows.expert_count, (Shape){1, {cfg->n_routed_experts}});
    put_ids(out, "row_token", rows.token, (Shape){1, {rows.count}});
    put_ids(out, "row_slot", rows.slot, (Shape){1, {rows.count}});
    put(out, "rows", gather(numbers(in, "x"), rows.token, rows.count));
}

static void combine_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    Matrix topk_weight = numbers(in, "topk_weight");
    tensors_add(out, "y", F32, (Shape){2, {topk_weight.rows, cfg->hidden_size}});
    combine(numbers(out, "y"), numbers(in, "rows"), ids(in, "row_token").v, ids(in, "row_slot").v, topk_weight);
}

static Layer layer(const Tensors *in)
{
    return (Layer){
        numbers(in, "gate_weight"),
        {numbers(in, "gate_proj"), numbers(in, "up_proj"), numbers(in, "down_proj")},
        {numbers(in, "shared_gate_proj"), numbers(in, "shared_up_proj"), numbers(in, "shared_down_proj")},
    };
}

static void moe_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    LayerRun run = layer_forward(cfg, layer(in), numbers(in, "x"), numbers(in, "bias"), ids(in, "topk_idx"), mask(in));
    put_ids(out, "topk_idx", run.gate.topk_idx.v, (Shape){2, {run.gate.topk_idx.tokens, run.gate.topk_idx.slots}});
    put(out, "topk_weight", run.gate.topk_weight);
    put(out, "routed", run.routed);
    put(out, "shared", run.shared);
    put(out, "y", run.y);
}

static void moe_backward_op(const Config *cfg, const Tensors *in, Tensors *out)
{
    Matrix dx = gradient(out, "dx", in, "x");
    Layer dw = {
        gradient(out, "dgate_weight", in, "gate_weight"),
        {gradient(out, "dgate_proj", in, "gate_proj"), gradient(out, "dup_proj", in, "up_proj"),
         gradient(out, "ddown_proj", in, "down_proj")},
        {gradient(out, "dshared_gate_proj", in, "shared_gate_proj"),
         gradient(out, "dshared_up_proj", in, "shared_up_proj"),
         gradient(out, "dshared_down_proj", in, "shared_down_proj")},
    };
    layer_backward(cfg, layer(in), numbers(in, "x"), ids(in, "topk_idx"), numbers(in, "dy"), dx, dw);
}

static const Op OPS[] = {
    {"gate", GATE_TAKES, gate_op},
    {"gate_backward", GATE_BACKWARD_TAKES, gate_backward_op},
    {"expert", EXPERT_TAKES, expert_op},
    {"expert_backward", EXPERT_BACKWARD_TAKES, expert_backward_op},
    {"dispatch", DISPATCH_TAKES, dispatch_op},
    {"combine", COMBINE_TAKES, combine_op},
    {"moe", MOE_TAKES, moe_op},
    {"moe_backward", MOE_BACKWARD_TAKES, moe_backward_op},
};

const Op *op_find(const char *name)
{
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++) {
        if (strcmp(OPS[i].name, name) == 0)
            return &OPS[i];
    }
    return NULL;
}
