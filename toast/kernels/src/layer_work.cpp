// The order of a decoder layer's steps.
#include "layer_work.h"

#include <algorithm>
#include <cstring>

#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

// Where a layer's intermediate results lie in one piece of memory.
struct Room {
  char *normed, *turned, *y, *r, *h, *gate, *up, *memory;
  size_t bytes = 0;

  Room(const Layer& l, int rows, char* base) {
    auto piece = [&](size_t n) {
      char* at = base + bytes;
      bytes += (n + 63) / 64 * 64;  // no line of the cache in two of them
      return at;
    };
    size_t one = (size_t)rows * size_of(l.type), x = l.width() * one, heads = l.q.N * one, wide = l.gate.N * one;
    normed = piece(x), turned = piece(heads), y = piece(heads), r = piece(x), h = piece(x), gate = piece(wide),
    up = piece(wide);
    memory = piece(project_bytes(rows, {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}));
  }
};

Output output(const Layer& l, char* data) { return {data, l.type, {}}; }

void norm(const void* weight, float eps, const char* x, char* y, Type type, size_t rows, size_t D) {
  size_t row = D * size_of(type);
  each_rows(rows, D, [&](size_t first, size_t count) {
    kernels().rms_norm(x + first * row, weight, y + first * row, type, count, D, eps);
  });
}

// f(at, count) for n elements of `type`, `at` in bytes
template <class F>
void each_element(size_t n, Type type, F f) {
  each_rows(n, 1, [&](size_t i, size_t count) { f(i * size_of(type), count); });
}

// states: x -> x, q, k, v; keys and values put in their places.
void begin_layer(const Layer& l, int rows, const Segments& segments, const Kept& keys, const Kept& values, char* states,
                 char* memory) {
  Room s(l, rows, memory);
  size_t one = (size_t)rows * size_of(l.type);
  char *q = states + l.width() * one, *k = q + l.q.N * one, *v = k + l.k.N * one;
  norm(l.before, l.before_eps, states, s.normed, l.type, rows, l.width());
  project(s.normed, l.type, rows, s.memory, {{&l.q, output(l, q)}, {&l.k, output(l, k)}, {&l.v, output(l, v)}});
  place(k, l.type, segments, &l.rope, keys);
  place(v, l.type, segments, nullptr, values);
}

}  // namespace

size_t end_layer_bytes(const Layer& l, int rows) { return Room(l, rows, nullptr).bytes; }

void end_layer(const Layer& l, const char* states, int rows, const Segments& segments, bool causal, const Kept& keys,
               const Kept& values, char* y, char* memory) {
  Room s(l, rows, memory);
  size_t n = (size_t)rows * l.width();
  const char *x = states, *q = states + n * size_of(l.type);
  attend(q, l.type, l.heads, segments, l.rope, l.scale, causal, keys, values, s.turned, s.y);
  project(s.y, l.type, rows, s.memory, {{&l.o, output(l, s.r)}});
  each_element(n, l.type, [&](size_t at, size_t count) { kernels().add(x + at, s.r + at, s.h + at, l.type, count); });
  norm(l.after, l.after_eps, s.h, s.normed, l.type, rows, l.width());
  project(s.normed, l.type, rows, s.memory, {{&l.gate, output(l, s.gate)}, {&l.up, output(l, s.up)}});
  each_element((size_t)rows * l.gate.N, l.type, [&](size_t at, size_t count) {
    kernels().activate(Activation::silu, s.gate + at, s.up + at, s.gate + at, l.type, count);
  });
  project(s.gate, l.type, rows, s.memory, {{&l.down, output(l, s.r)}});
  each_element(n, l.type, [&](size_t at, size_t count) { kernels().add(s.h + at, s.r + at, y + at, l.type, count); });
}

size_t run_layers_bytes(const Layers& layers, int rows) {
  size_t most = 0;
  for (auto& l : layers) most = std::max(most, end_layer_bytes(*l, rows));
  return most;
}

void run_layers(const Layers& layers, const char* x, int rows, const Segments& segments, bool causal,
                const std::vector<Kept>& caches, char* states, char* memory) {
  std::memcpy(states, x, (size_t)rows * layers[0]->width() * size_of(layers[0]->type));
  for (size_t i = 0; i < layers.size(); i++) {
    const Kept &keys = caches[2 * i], &values = caches[2 * i + 1];
    begin_layer(*layers[i], rows, segments, keys, values, states, memory);
    if (i + 1 < layers.size()) end_layer(*layers[i], states, rows, segments, causal, keys, values, states, memory);
  }
}

}  // namespace toast
