#include "expert.h"

#include <math.h>

/* EXP-2: if exp(-g) overflows, this is 0, as it should be. */
static double silu(double g)
{
    return g / (1 + exp(-g));
}

/* EXP-2: h = silu(gate) * up (N,F). */
static Matrix open_up(Matrix gate, Matrix up)
{
    Matrix h = matrix(gate.rows, gate.cols);
    for (size_t i = 0; i < gate.rows * gate.cols; i++)
        h.v[i] = (float)(silu((double)gate.v[i]) * (double)up.v[i]);
    return h;
}

/* Gradients of gate and up (N,F). EXP-2 was: h = silu(gate) * up. */
static void open_up_backward(Matrix dh, Matrix gate, Matrix up, Matrix dgate, Matrix dup)
{
    for (size_t i = 0; i < dh.rows * dh.cols; i++) {
        double g = (double)gate.v[i], d = (double)dh.v[i], a = silu(g), s = 1 / (1 + exp(-g));
        dup.v[i] = (float)(d * a);
        dgate.v[i] = (float)(d * (double)up.v[i] * (s + a * (1 - s)));
    }
}

ExpertRun expert_forward(Expert w, Matrix x)
{
    size_t n = x.rows, f = w.up_proj.rows;
    ExpertRun run = {.gate = matrix(n, f), .up = matrix(n, f), .y = matrix(n, x.cols)};
    times_transposed(run.gate, x, w.gate_proj); /* EXP-1 */
    times_transposed(run.up, x, w.up_proj);
    run.h = open_up(run.gate, run.up);
    times_transposed(run.y, run.h, w.down_proj); /* EXP-3 */
    return run;
}

Matrix expert_backward(Expert w, const ExpertRun *run, Matrix x, Matrix dy, Expert dw)
{
    size_t n = x.rows, f = w.up_proj.rows;

    /* EXP-3 was: y = h @ down_proj.T */
    Matrix dh = matrix(n, f), dgate = matrix(n, f), dup = matrix(n, f);
    times(dh, dy, w.down_proj);
    transposed_times(dw.down_proj, dy, run->h);

    /* EXP-2 was: h = silu(gate) * up */
    open_up_backward(dh, run->gate, run->up, dgate, dup);

    /* EXP-1 was: gate = x @ gate_proj.T, up = x @ up_proj.T */
    transposed_times(dw.gate_proj, dgate, x);
    transposed_times(dw.up_proj, dup, x);
    Matrix dx = matrix(n, x.cols), dx_up = matrix(n, x.cols);
    times(dx, dgate, w.gate_proj);
    times(dx_up, dup, w.up_proj);
    add_to(dx, dx_up);
    return dx;
}
