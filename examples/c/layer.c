#include "layer.h"

#include "base.h"
#include "dispatch.h"

/* The matrices of routed expert e. */
static Expert expert_of(const Config *cfg, Expert stacks, size_t e)
{
    size_t h = cfg->hidden_size, f = cfg->moe_intermediate_size;
    return (Expert){slice(stacks.gate_proj, e, f), slice(stacks.up_proj, e, f), slice(stacks.down_proj, e, h)};
}

/* Numbers times the weight of each row's slot: (n,H). */
static Matrix weighted(Matrix rows, const int64_t *token, const int64_t *slot, Matrix topk_weight)
{
    Matrix out = matrix(rows.rows, rows.cols);
    for (size_t i = 0; i < rows.rows; i++) {
        float weight = row_of(topk_weight, (size_t)token[i])[slot[i]];
        for (size_t j = 0; j < rows.cols; j++)
            row_of(out, i)[j] = weight * row_of(rows, i)[j];
    }
    return out;
}

/* Add rows to the tokens that they belong to. */
static void add_rows(Matrix out, Matrix rows, const int64_t *token)
{
    for (size_t i = 0; i < rows.rows; i++) {
        for (size_t j = 0; j < rows.cols; j++)
            row_of(out, (size_t)token[i])[j] += row_of(rows, i)[j];
    }
}

/* MOE-2: each token's experts in order of their ids, each output times its weight: (T,H). */
static Matrix routed_forward(const Config *cfg, Expert stacks, Matrix x, const Gate *gate)
{
    Matrix routed = matrix(x.rows, x.cols);
    Rows rows = rows_by_expert(gate->topk_idx, cfg->n_routed_experts);
    const int64_t *token = rows.token, *slot = rows.slot;
    for (size_t e = 0; e < cfg->n_routed_experts; e++) {
        size_t n = (size_t)rows.expert_count[e];
        ExpertRun run = expert_forward(expert_of(cfg, stacks, e), gather(x, token, n));
        add_rows(routed, weighted(run.y, token, slot, gate->topk_weight), token);
        token += n;
        slot += n;
    }
    return routed;
}

/* Gradient of the weights of one expert's rows: dtopk_weight[t, k] = <dy[t], y>. */
static void weight_backward(Matrix dy, Matrix y, const int64_t *token, const int64_t *slot, Matrix dtopk_weight)
{
    for (size_t i = 0; i < y.rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < y.cols; j++)
            sum += (double)row_of(dy, i)[j] * (double)row_of(y, i)[j];
        row_of(dtopk_weight, (size_t)token[i])[slot[i]] = (float)sum;
    }
}

/* Gradients of x (T,H), which is returned, of topk_weight (T,W), and of the experts (MOE-4: zeros without tokens). */
static Matrix routed_backward(const Config *cfg, Expert stacks, Matrix x, const Gate *gate, Matrix dy,
                              Matrix dtopk_weight, Expert dstacks)
{
    Matrix dx = matrix(x.rows, x.cols);
    Rows rows = rows_by_expert(gate->topk_idx, cfg->n_routed_experts);
    const int64_t *token = rows.token, *slot = rows.slot;
    for (size_t e = 0; e < cfg->n_routed_experts; e++) {
        size_t n = (size_t)rows.expert_count[e];
        Expert w = expert_of(cfg, stacks, e), dw = expert_of(cfg, dstacks, e);
        Matrix x_e = gather(x, token, n), dy_e = gather(dy, token, n);
        ExpertRun run = expert_forward(w, x_e);

        /* MOE-2 was: routed[t] += topk_weight[t, k] * y */
        weight_backward(dy_e, run.y, token, slot, dtopk_weight);
        Matrix dy_weighted = weighted(dy_e, token, slot, gate->topk_weight);
        add_rows(dx, expert_backward(w, &run, x_e, dy_weighted, dw), token);
        token += n;
        slot += n;
    }
    return dx;
}

LayerRun layer_forward(const Config *cfg, Layer w, Matrix x, Matrix bias, Ids given, const unsigned char *mask)
{
    LayerRun run = {.gate = gate_forward(cfg, x, w.gate_weight, bias, given, mask)};
    run.routed = routed_forward(cfg, w.routed, x, &run.gate);

    /* MOE-1: the shared expert sees every token, has no weight and no scale; MOE-3: all of them are one */
    run.shared = matrix(x.rows, x.cols);
    if (cfg->n_shared_experts > 0)
        run.shared = expert_forward(w.shared, x).y;
    run.y = matrix(x.rows, x.cols);
    add_to(run.y, run.routed);
    add_to(run.y, run.shared);
    return run;
}

void layer_backward(const Config *cfg, Layer w, Matrix x, Ids given, Matrix dy, Matrix dx, Layer dw)
{
    const Matrix absent = {0};
    Gate gate = gate_forward(cfg, x, w.gate_weight, absent, given, NULL);

    /* MOE-1 was: y = routed + shared */
    Matrix dtopk_weight = matrix(given.tokens, given.slots);
    Matrix dx_routed = routed_backward(cfg, w.routed, x, &gate, dy, dtopk_weight, dw.routed);

    /* MOE-5: x was used three times */
    gate_backward(cfg, &gate, x, w.gate_weight, dtopk_weight, absent, absent, dx, dw.gate_weight);
    add_to(dx, dx_routed);
    if (cfg->n_shared_experts > 0) {
        ExpertRun run = expert_forward(w.shared, x);
        add_to(dx, expert_backward(w.shared, &run, x, dy, dw.shared));
    }
}
