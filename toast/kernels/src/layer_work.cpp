// The order of a decoder layer's steps.
#include "layer_work.h"

#include <algorithm>
#include <cstring>

#include "dense_work.h"
#include "floats_work.h"
#include "pieces.h"
#include "quantized_work.h"

namespace toast {
namespace {

// Where a layer's intermediate results lie in one piece of memory.
struct Workspace {
  char *normed, *rotated, *y, *r, *h, *gate, *up, *products, *inner, *mixed;
  size_t bytes;

  Workspace(const Layer& l, int rows, char* base) {
    Pieces piece{base};
    size_t one = (size_t)rows * size_of(l.type), x = l.width() * one, heads = l.q.N * one, wide = l.gate.N * one;
    normed = piece(x), rotated = piece(heads), y = piece(heads), r = piece(x), h = piece(x);
    bool mixture = l.experts.count;
    mixed = piece(mixture ? mix_bytes(l.experts, l.type, rows) : 0);
    gate = piece(mixture ? 0 : wide), up = piece(mixture ? 0 : wide);
    products = piece(project_bytes(rows, {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}));
    int rank = 0;
    for (auto& u : l.updates) rank = std::max(rank, u.a.N);
    inner = piece((size_t)rank * rows * sizeof(float));
    bytes = piece.bytes;
  }
};

Output output(const Layer& l, char* data) { return {data, l.type, {}}; }

// out[rows, N] += the update of a linear layer for x[rows, K].
void add_update(const LowRank& u, const char* x, int rows, char* out, char* inner) {
  if (!u.a.N) return;
  run({{(const float*)x, u.a.K, u.a, {inner, Type::f32, {}}}}, rows);
  Epilogue sum;
  sum.c = (const float*)out, sum.c_row = u.b.N, sum.alpha = u.scale;
  run({{(const float*)inner, u.b.K, u.b, {out, Type::f32, sum}}}, rows);
}

// What follows the product of linear layer i, for x[rows, K] -> out[rows, N]: its bias, its update.
void end_linear(const Layer& l, int i, const char* x, int rows, const QuantWeights& w, char* out, char* inner) {
  size_t row = w.N * size_of(l.type);
  for (int m = 0; l.biases[i] && m < rows; m++) kernels().add(out + m * row, l.biases[i], out + m * row, l.type, w.N);
  add_update(l.updates[i], x, rows, out, inner);
}

// x[rows, n] normed in place, where there is such a norm.
void norm_all(const Layer& l, const Norm& norm, char* x, size_t rows, size_t n) {
  if (norm.weight) rms_norm_rows(x, x, l.type, rows, n, norm);
}

// states: x -> x, q, k, v; keys and values stored in the cache.
void begin_layer(const Layer& l, const RaggedBatch& batch, const KvCaches& caches, char* states, char* memory) {
  Workspace w(l, batch.rows, memory);
  size_t one = (size_t)batch.rows * size_of(l.type);
  char *q = states + l.width() * one, *k = q + l.q.N * one, *v = k + l.k.N * one;
  rms_norm_rows(states, w.normed, l.type, batch.rows, l.width(), l.before);
  project(w.normed, l.type, batch.rows, w.products, {{&l.q, output(l, q)}, {&l.k, output(l, k)}, {&l.v, output(l, v)}});
  end_linear(l, 0, w.normed, batch.rows, l.q, q, w.inner);
  end_linear(l, 1, w.normed, batch.rows, l.k, k, w.inner);
  end_linear(l, 2, w.normed, batch.rows, l.v, v, w.inner);
  norm_all(l, l.q_norm, q, (size_t)batch.rows * l.heads, l.D);
  norm_all(l, l.k_norm, k, (size_t)batch.rows * l.kv_heads, l.D);
  store_rows(k, l.type, batch, &l.rope, caches.keys);
  store_rows(v, l.type, batch, nullptr, caches.values);
}

// w.normed -> w.r
void feed_forward(const Layer& l, int rows, const Workspace& w) {
  if (l.experts.count) return mix(l.experts, l.activation, w.normed, l.type, rows, w.r, w.mixed);
  project(w.normed, l.type, rows, w.products, {{&l.gate, output(l, w.gate)}, {&l.up, output(l, w.up)}});
  end_linear(l, 4, w.normed, rows, l.gate, w.gate, w.inner);
  end_linear(l, 5, w.normed, rows, l.up, w.up, w.inner);
  activate_all(l.activation, w.gate, w.up, w.gate, l.type, (size_t)rows * l.gate.N);
  project(w.gate, l.type, rows, w.products, {{&l.down, output(l, w.r)}});
  end_linear(l, 6, w.gate, rows, l.down, w.r, w.inner);
}

}  // namespace

size_t finish_layer_bytes(const Layer& l, int rows) { return Workspace(l, rows, nullptr).bytes; }

void finish_layer(const Layer& l, const char* states, const RaggedBatch& batch, const KvCaches& caches, char* y,
                  char* memory) {
  Workspace w(l, batch.rows, memory);
  size_t n = (size_t)batch.rows * l.width();
  const char *x = states, *q = states + n * size_of(l.type);
  attend({q, l.type, l.heads, l.scale, l.rope, w.rotated, w.y}, batch, caches);
  project(w.y, l.type, batch.rows, w.products, {{&l.o, output(l, w.r)}});
  end_linear(l, 3, w.y, batch.rows, l.o, w.r, w.inner);
  norm_all(l, l.after_attention, w.r, batch.rows, l.width());
  add_all(x, w.r, w.h, l.type, n);
  rms_norm_rows(w.h, w.normed, l.type, batch.rows, l.width(), l.after);
  feed_forward(l, batch.rows, w);
  norm_all(l, l.after_feed_forward, w.r, batch.rows, l.width());
  add_all(w.h, w.r, y, l.type, n);
}

size_t run_layers_bytes(const Layers& layers, int rows) {
  size_t most = 0;
  for (auto& l : layers) most = std::max(most, finish_layer_bytes(*l, rows));
  return most;
}

void run_layers(const Layers& layers, const char* x, const RaggedBatch& batch, const std::vector<KvCaches>& caches,
                char* states, char* memory) {
  std::memcpy(states, x, (size_t)batch.rows * layers[0]->width() * size_of(layers[0]->type));
  for (size_t i = 0; i < layers.size(); i++) {
    begin_layer(*layers[i], batch, caches[i], states, memory);
    if (i + 1 < layers.size()) finish_layer(*layers[i], states, batch, caches[i], states, memory);
  }
}

}  // namespace toast
