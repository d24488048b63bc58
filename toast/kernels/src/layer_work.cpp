// The order of a decoder layer's steps.
#include "layer_work.h"

#include <algorithm>
#include <cstring>

#include "dense_work.h"
#include "floats_work.h"
#include "pieces.h"
#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

// Where a layer's intermediate results lie in one piece of memory.
struct Workspace {
  char *normed, *gated, *rotated, *y, *r, *h, *gate, *up, *products, *inner, *mixed;
  std::vector<char*> in;
  size_t bytes;

  Workspace(const Layer& l, int rows, char* base) {
    Pieces piece{base};
    size_t one = (size_t)rows * size_of(l.type), x = l.width() * one, heads = l.o.K * one;
    size_t wide = l.gate.N * one;
    normed = piece(x), rotated = piece(heads), y = piece(heads), r = piece(x), h = piece(x);
    gated = piece(l.gated ? l.q.N * one : 0);
    for (auto& w : l.in) in.push_back(piece(w.N * one));
    bool mixture = l.experts.count;
    mixed = piece(mixture ? mix_bytes(l.experts, l.type, rows) : 0);
    gate = piece(mixture ? 0 : wide), up = piece(mixture ? 0 : wide);
    std::vector<const QuantWeights*> all{&l.gate, &l.up, &l.down};
    for (auto& w : l.in) all.push_back(&w);
    if (l.mixer) all.push_back(&l.out);
    if (l.attends()) all.insert(all.end(), {&l.q, &l.k, &l.v, &l.o});
    products = piece(project_bytes(rows, all));
    int rank = 0;
    for (auto& u : l.updates) rank = std::max(rank, u.a.N);
    inner = piece((size_t)rank * rows * sizeof(float));
    bytes = piece.bytes;
  }
};

Output output(const Layer& l, char* data) { return {data, l.type, {}}; }

// What is added to x.
Output residual(const Layer& l, char* data) {
  Epilogue scaled;
  scaled.alpha = l.residual;
  return {data, l.type, scaled};
}

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

// The same of each head of x[rows, heads D], or of all.
void norm_heads(const Layer& l, const Norm& norm, char* x, size_t rows, size_t heads) {
  l.whole ? norm_all(l, norm, x, rows, heads * l.D) : norm_all(l, norm, x, rows * heads, l.D);
}

// Queries and gates, side by side for each head -> q, gate
void part_gates(const Layer& l, size_t rows, const char* both, char* q, char* gate) {
  size_t head = l.D * size_of(l.type);
  each_rows(rows * l.heads, 2 * l.D, [&](size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
      std::memcpy(q + i * head, both + 2 * i * head, head);
      std::memcpy(gate + i * head, both + (2 * i + 1) * head, head);
    }
  });
}

// w.normed -> states q, k, v, gate; keys and values stored in the cache.
void begin_attention(const Layer& l, const RaggedBatch& batch, const KvCaches& caches, char* q, const Workspace& w) {
  size_t one = (size_t)batch.rows * size_of(l.type);
  char *k = q + l.o.K * one, *v = k + l.k.N * one, *gate = v + l.v.N * one, *to = l.gated ? w.gated : q;
  project(w.normed, l.type, batch.rows, w.products,
          {{&l.q, output(l, to)}, {&l.k, output(l, k)}, {&l.v, output(l, v)}});
  end_linear(l, 0, w.normed, batch.rows, l.q, to, w.inner);
  end_linear(l, 1, w.normed, batch.rows, l.k, k, w.inner);
  end_linear(l, 2, w.normed, batch.rows, l.v, v, w.inner);
  if (l.gated) part_gates(l, batch.rows, w.gated, q, gate);
  norm_heads(l, l.q_norm, q, batch.rows, l.heads);
  norm_heads(l, l.k_norm, k, batch.rows, l.kv_heads);
  store_rows(k, l.type, batch, &l.rope, caches.keys);
  store_rows(v, l.type, batch, nullptr, caches.values);
}

// w.normed -> y of the mixer, whose state is brought up to date.
void run_mixer(const Layer& l, const RaggedBatch& batch, const MixerState& state, char* y, const Workspace& w) {
  int64_t T = batch.segments[0].length;
  std::vector<Product> products;
  std::vector<Projected> projected;
  for (size_t i = 0; i < l.in.size(); i++) {
    products.push_back({&l.in[i], output(l, w.in[i])});
    projected.push_back({w.in[i], l.type, T * l.in[i].N, l.in[i].N});
  }
  project(w.normed, l.type, batch.rows, w.products, products);
  l.mixer.run(batch.segments.size(), T, projected, state, y);
}

void begin_layer(const Layer& l, const RaggedBatch& batch, const LayerCache& cache, char* states, char* memory) {
  Workspace w(l, batch.rows, memory);
  rms_norm_rows(states, w.normed, l.type, batch.rows, l.width(), l.before);
  size_t one = (size_t)batch.rows * size_of(l.type);
  char* y = states + l.width() * one;
  if (l.mixer) run_mixer(l, batch, cache.mixer, y, w);
  if (l.attends()) begin_attention(l, batch, cache, y + l.mixer.width * one, w);
}

// Queries, keys, values and gates -> w.y
void end_attention(const Layer& l, const RaggedBatch& batch, const KvCaches& caches, const char* q,
                   const Workspace& w) {
  attend({q, l.type, l.heads, l.scale, l.rope, w.rotated, w.y}, batch, caches);
  if (!l.gated) return;
  size_t n = (size_t)batch.rows * l.o.K;
  const char* gate = q + (n + (size_t)batch.rows * (l.k.N + l.v.N)) * size_of(l.type);
  activate_all(Activation::sigmoid, gate, nullptr, w.rotated, l.type, n);
  activate_all(Activation::none, w.y, w.rotated, w.y, l.type, n);
}

// w.normed -> w.r
void feed_forward(const Layer& l, int rows, const Workspace& w) {
  if (l.experts.count) return mix(l.experts, l.activation, w.normed, l.type, rows, w.r, w.mixed);
  project(w.normed, l.type, rows, w.products, {{&l.gate, output(l, w.gate)}, {&l.up, output(l, w.up)}});
  end_linear(l, 4, w.normed, rows, l.gate, w.gate, w.inner);
  end_linear(l, 5, w.normed, rows, l.up, w.up, w.inner);
  activate_all(l.activation, w.gate, w.up, w.gate, l.type, (size_t)rows * l.gate.N);
  project(w.gate, l.type, rows, w.products, {{&l.down, residual(l, w.r)}});
  end_linear(l, 6, w.gate, rows, l.down, w.r, w.inner);
}

}  // namespace

size_t states_width(const Layers& layers) {
  size_t most = 0;
  for (auto& l : layers) most = std::max(most, states_width(*l));
  return most;
}

size_t finish_layer_bytes(const Layer& l, int rows) { return Workspace(l, rows, nullptr).bytes; }

void finish_layer(const Layer& l, const char* states, const RaggedBatch& batch, const KvCaches& caches, char* y,
                  char* memory) {
  Workspace w(l, batch.rows, memory);
  size_t one = (size_t)batch.rows * size_of(l.type), n = (size_t)batch.rows * l.width();
  const char *x = states, *mixed = states + l.width() * one;
  if (l.mixer) {
    project(mixed, l.type, batch.rows, w.products, {{&l.out, residual(l, w.r)}});
    add_all(x, w.r, w.h, l.type, n);
    x = w.h;
  }
  if (l.attends()) {
    end_attention(l, batch, caches, mixed + l.mixer.width * one, w);
    project(w.y, l.type, batch.rows, w.products, {{&l.o, residual(l, w.r)}});
    end_linear(l, 3, w.y, batch.rows, l.o, w.r, w.inner);
    norm_all(l, l.after_attention, w.r, batch.rows, l.width());
    add_all(x, w.r, w.h, l.type, n);
  }
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

void run_layers(const Layers& layers, const char* x, const RaggedBatch& batch, const std::vector<LayerCache>& caches,
                char* states, char* memory) {
  std::memcpy(states, x, (size_t)batch.rows * layers[0]->width() * size_of(layers[0]->type));
  for (size_t i = 0; i < layers.size(); i++) {
    begin_layer(*layers[i], batch, caches[i], states, memory);
    if (i + 1 < layers.size()) finish_layer(*layers[i], states, batch, caches[i], states, memory);
  }
}

}  // namespace toast
