/* One pass of a decoder over N tokens on a CPU, in fp32, without Python between its operations.

   A step of generation is a few dozen products of a few rows each; starting them one by one from Python takes as long as
   they do. Here rows are independent of one another: each token names its row of the cache and its position, so that a
   step of many sequences and the reading of prompts of any lengths are the same call, and what a row gives does not
   depend on which others come with it.

   Matrices lie in panels of PANEL columns, (panels, inputs, PANEL), filled up with zeros: a panel is read from its
   beginning to its end. Buffers of rows have their width rounded up to whole panels. Compiled by kernels/native.py, called
   by stages/models/compiled.py, which has the same two structures.

   GNU C: vectors of the width that the machine has (vector_size), which gcc and clang both know. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define MOST_ROWS 8
#elif defined(__AVX__)
#define LANES 8
#define MOST_ROWS 4
#else
#define LANES 4
#define MOST_ROWS 4
#endif
#define PANEL (2 * LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { RELU, SILU, GELU_TANH };

typedef struct {
    const float *norm_1, *norm_1_bias, *attention_in, *attention_in_bias, *q_norm, *q_norm_bias, *k_norm, *k_norm_bias;
    const float *attention_out, *attention_out_bias, *norm_2, *norm_2_bias, *mlp_in, *mlp_in_bias, *mlp_out, *mlp_out_bias;
    int64_t window; /* keys that a token sees, its own included; 0: all */
} Layer;

typedef struct {
    int64_t layers, width, heads, key_heads, head_width, inner, vocabulary;
    int64_t rms, pre_norm, gated, activation;
    double eps;
    const float *tokens, *positions, *final_norm, *final_norm_bias, *head;
    const Layer *blocks;
} Model;

typedef struct {
    float *kv; /* (layers, 2, rows, key_heads, room, head_width) */
    int64_t rows, room;
    const float *cos, *signed_sin; /* (room, head_width), or null */
} Cache;

static int64_t padded(int64_t columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

static int64_t inner_columns(const Model *m) {
    return m->gated ? 2 * ((m->inner + LANES - 1) / LANES * LANES) : padded(m->inner);
}

static int64_t head_columns(const Model *m) { return padded((m->heads + 2 * m->key_heads) * m->head_width); }

int64_t lanes(void) { return LANES; }

/* Floats that `forward` needs to work with for N tokens. */
int64_t work_floats(const Model *m, int64_t N, int64_t room) {
    int64_t row = 2 * padded(m->width) + head_columns(m) + m->heads * m->head_width + inner_columns(m);
    return N * row + room + PANEL;
}

INLINE Floats choose(Ints yes, Floats a, Floats b) { return (Floats)((yes & (Ints)a) | (~yes & (Ints)b)); }

/* eˣ as 2ⁿ · eʳ with |r| ≤ ln 2 / 2, by the polynomial of Cephes' expf; what is not a number stays so. */
INLINE Floats exponential(Floats x) {
    x = choose(x < -87.0f, (Floats){} - 87.0f, x);
    x = choose(x > 88.0f, (Floats){} + 88.0f, x);
    Floats t = x * 1.44269504f;
    Ints n = __builtin_convertvector(t + choose(t < 0.0f, (Floats){} - 0.5f, (Floats){} + 0.5f), Ints);
    Floats whole = __builtin_convertvector(n, Floats);
    Floats r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (Floats)((n + 127) << 23);
}

/* GELU by tanh: x / 2 · (1 + tanh u) = x / (1 + e^(-2u)) with u = √(2/π) (x + 0.044715 x³). */
INLINE Floats activated(Floats x, int64_t kind) {
    if (kind == RELU) return choose(x < 0.0f, (Floats){}, x);
    if (kind == SILU) return x / (1.0f + exponential(-x));
    return x / (1.0f + exponential(x * (-1.5957691216f - 0.0713548162726f * x * x)));
}

/* y (rows, PANEL) ← or += x (rows, inputs) panel + bias, the sums kept in registers. */
INLINE void tile(const int rows, int64_t inputs, const float *x, int64_t x_step, const Floats *panel, const float *bias,
                 float *y, int64_t y_step, int add) {
    Floats sums[MOST_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        sums[i][0] = bias ? ((const Floats *)bias)[0] : (Floats){};
        sums[i][1] = bias ? ((const Floats *)bias)[1] : (Floats){};
    }
    for (int64_t k = 0; k < inputs; k++, panel += 2) {
        Floats left = panel[0], right = panel[1];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            sums[i][0] += x[i * x_step + k] * left;
            sums[i][1] += x[i * x_step + k] * right;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        Floats *out = (Floats *)(y + i * y_step);
        if (add) sums[i][0] += out[0], sums[i][1] += out[1];
        out[0] = sums[i][0], out[1] = sums[i][1];
    }
}

#define TILE(ROWS)                                                                           \
    case ROWS:                                                                               \
        tile(ROWS, inputs, x + n * x_step, x_step, panel, b, y + n * y_step + p * PANEL, y_step, add); \
        break;

/* y (N, columns) ← or += x (N, inputs) W + bias; `columns` are whole panels. */
static void product(int64_t N, int64_t inputs, int64_t columns, const float *x, int64_t x_step, const float *weight,
                    const float *bias, float *y, int64_t y_step, int add) {
    for (int64_t p = 0; p < columns / PANEL; p++) {
        const Floats *panel = (const Floats *)(weight + p * inputs * PANEL);
        const float *b = bias ? bias + p * PANEL : 0;
        for (int64_t n = 0; n < N; n += MOST_ROWS) switch (N - n < MOST_ROWS ? N - n : MOST_ROWS) {
                TILE(1) TILE(2) TILE(3) TILE(4)
#if MOST_ROWS > 4
                TILE(5) TILE(6) TILE(7) TILE(8)
#endif
            }
    }
}

/* y ← LayerNorm or RMSNorm of x (N, width); in place where y is x. */
static void norm(const Model *m, int64_t N, int64_t width, const float *x, int64_t step, const float *weight,
                 const float *bias, float *y) {
    for (int64_t n = 0; n < N; n++, x += step, y += step) {
        float mean = 0, square = 0;
        if (!m->rms) {
            for (int64_t c = 0; c < width; c++) mean += x[c];
            mean /= width;
        }
        for (int64_t c = 0; c < width; c++) square += (x[c] - mean) * (x[c] - mean);
        float scale = 1 / sqrtf(square / width + (float)m->eps);
        for (int64_t c = 0; c < width; c++) y[c] = (x[c] - mean) * scale * weight[c] + (bias ? bias[c] : 0);
    }
}

/* y (D) ← softmax(q · keys / √D) values over S keys; `scores` has room for S and a panel. */
INLINE void attend(const int64_t D, int64_t S, const float *q, const float *keys, const float *values, float *y,
                   float *scores) {
    float most = -INFINITY, total = 0, scale = 1 / sqrtf(D);
    for (int64_t j = 0; j < S; j++) {
        float sum = 0;
        for (int64_t d = 0; d < D; d++) sum += q[d] * keys[j * D + d];
        scores[j] = sum * scale;
    }
    for (int64_t j = 0; j < S; j++) most = scores[j] > most ? scores[j] : most;
    memset(scores + S, 0, LANES * sizeof(float));
    for (int64_t j = 0; j < S; j += LANES) *(Floats *)(scores + j) = exponential(*(Floats *)(scores + j) - most);
    for (int64_t j = 0; j < S; j++) total += scores[j];
    float part = 1 / total;
    for (int64_t d = 0; d + PANEL <= D; d += PANEL) { /* two keys at once: four sums that do not wait for each other */
        Floats even[2] = {}, odd[2] = {};
        int64_t j = 0;
        for (; j + 1 < S; j += 2) {
            const Floats *v = (const Floats *)(values + j * D + d), *w = (const Floats *)(values + (j + 1) * D + d);
            even[0] += scores[j] * v[0], even[1] += scores[j] * v[1];
            odd[0] += scores[j + 1] * w[0], odd[1] += scores[j + 1] * w[1];
        }
        if (j < S) {
            const Floats *v = (const Floats *)(values + j * D + d);
            even[0] += scores[j] * v[0], even[1] += scores[j] * v[1];
        }
        ((Floats *)(y + d))[0] = (even[0] + odd[0]) * part;
        ((Floats *)(y + d))[1] = (even[1] + odd[1]) * part;
    }
    for (int64_t d = D - D % PANEL; d < D; d++) {
        float sum = 0;
        for (int64_t j = 0; j < S; j++) sum += scores[j] * values[j * D + d];
        y[d] = sum * part;
    }
}

/* The usual widths of a head are known to the compiler. */
static void attend_any(int64_t D, int64_t S, const float *q, const float *keys, const float *values, float *y,
                       float *scores) {
    switch (D) {
        case 32: attend(32, S, q, keys, values, y, scores); break;
        case 64: attend(64, S, q, keys, values, y, scores); break;
        case 128: attend(128, S, q, keys, values, y, scores); break;
        default: attend(D, S, q, keys, values, y, scores);
    }
}

/* (x₁, x₂) ← (x₁ cos + x₂ sin₁, x₂ cos + x₁ sin₂), where x₁ and x₂ are the halves of each head. */
static void rotate(int64_t heads, int64_t D, float *x, const float *cos, const float *signed_sin) {
    for (int64_t h = 0; h < heads; h++, x += D)
        for (int64_t d = 0; d < D / 2; d++) {
            float left = x[d], right = x[d + D / 2];
            x[d] = left * cos[d] + right * signed_sin[d];
            x[d + D / 2] = right * cos[d + D / 2] + left * signed_sin[d + D / 2];
        }
}

/* inner ← activation(inner); of a gated mlp activation(gate) ⊙ up, which lie in turns, LANES columns each. */
static void activate(const Model *m, int64_t N, float *inner) {
    int64_t columns = inner_columns(m);
    for (int64_t n = 0; n < N; n++, inner += columns)
        for (int64_t c = 0; c < columns; c += m->gated ? PANEL : LANES) {
            Floats value = activated(*(Floats *)(inner + c), m->activation);
            if (m->gated) *(Floats *)(inner + c / 2) = value * *(Floats *)(inner + c + LANES);
            else *(Floats *)(inner + c) = value;
        }
}

/* Read N tokens (ids, positions, rows of the cache), of one sequence in order, into the cache. `logits`, where it is not
   null, gets (N, vocabulary in whole panels); without, the last block computes no more than keys and values. */
void forward(const Model *m, const Cache *cache, int64_t N, const int64_t *ids, const int64_t *positions,
             const int64_t *rows, float *work, float *logits) {
    int64_t C = m->width, H = m->heads, G = m->key_heads, D = m->head_width;
    int64_t step = padded(C), q_step = head_columns(m), inner_step = inner_columns(m);
    float *h = work, *x = h + N * step, *q = x + N * step, *y = q + N * q_step, *inner = y + N * H * D;
    float *scores = inner + N * inner_step;
    for (int64_t n = 0; n < N; n++)
        for (int64_t c = 0; c < C; c++)
            h[n * step + c] = m->tokens[ids[n] * C + c] + (m->positions ? m->positions[positions[n] * C + c] : 0);
    for (int64_t l = 0; l < m->layers; l++) {
        const Layer *b = m->blocks + l;
        if (m->pre_norm) norm(m, N, C, h, step, b->norm_1, b->norm_1_bias, x);
        product(N, C, q_step, m->pre_norm ? x : h, step, b->attention_in, b->attention_in_bias, q, q_step, 0);
        int64_t head = cache->room * D, half = cache->rows * G * head;
        float *keys = cache->kv + l * 2 * half, *values = keys + half;
        for (int64_t n = 0; n < N; n++) {
            float *heads = q + n * q_step;
            if (b->q_norm) norm(m, H, D, heads, D, b->q_norm, b->q_norm_bias, heads);
            if (b->k_norm) norm(m, G, D, heads + H * D, D, b->k_norm, b->k_norm_bias, heads + H * D);
            if (cache->cos) rotate(H + G, D, heads, cache->cos + positions[n] * D, cache->signed_sin + positions[n] * D);
            for (int64_t g = 0; g < G; g++) {
                int64_t at = (rows[n] * G + g) * head + positions[n] * D;
                memcpy(keys + at, heads + (H + g) * D, D * sizeof(float));
                memcpy(values + at, heads + (H + G + g) * D, D * sizeof(float));
            }
        }
        if (!logits && l == m->layers - 1) return;
        for (int64_t n = 0; n < N; n++) {
            int64_t S = positions[n] + 1, first = b->window && S > b->window ? S - b->window : 0;
            for (int64_t i = 0; i < H; i++) {
                int64_t at = (rows[n] * G + i / (H / G)) * head + first * D;
                attend_any(D, S - first, q + n * q_step + i * D, keys + at, values + at, y + (n * H + i) * D, scores);
            }
        }
        product(N, H * D, step, y, H * D, b->attention_out, b->attention_out_bias, h, step, 1);
        if (m->pre_norm) norm(m, N, C, h, step, b->norm_2, b->norm_2_bias, x);
        else norm(m, N, C, h, step, b->norm_1, b->norm_1_bias, h);
        product(N, C, inner_step, m->pre_norm ? x : h, step, b->mlp_in, b->mlp_in_bias, inner, inner_step, 0);
        activate(m, N, inner);
        product(N, m->inner, step, inner, inner_step, b->mlp_out, b->mlp_out_bias, h, step, 1);
        if (!m->pre_norm) norm(m, N, C, h, step, b->norm_2, b->norm_2_bias, h);
    }
    if (m->final_norm) norm(m, N, C, h, step, m->final_norm, m->final_norm_bias, x);
    product(N, C, padded(m->vocabulary), m->final_norm ? x : h, step, m->head, 0, logits, padded(m->vocabulary), 0);
}
