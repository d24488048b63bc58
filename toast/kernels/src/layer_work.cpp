// The order of a decoder layer's steps.
#include "layer_work.h"

#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

// Where a layer's states lie in one piece of memory.
struct States {
  char *normed, *turned, *y, *r, *h, *gate, *up, *memory;
  size_t bytes = 0;

  States(const Layer& l, int rows, char* base) {
    auto piece = [&](size_t n) {
      char* at = base + bytes;
      bytes += (n + 63) / 64 * 64;
      return at;
    };
    size_t one = rows * size_of(l.type), x = l.width() * one, heads = l.q.N * one, wide = l.gate.N * one;
    normed = piece(x), turned = piece(heads), y = piece(heads), r = piece(x), h = piece(x), gate = piece(wide), up = piece(wide);
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

}  // namespace

size_t layer_bytes(const Layer& l, int rows) { return States(l, rows, nullptr).bytes; }

void begin_layer(const Layer& l, const char* x, int rows, const Segments& segments, const Kept& keys, const Kept& values,
                 char* qkv, char* memory) {
  States s(l, rows, memory);
  char *k = qkv + l.q.N * rows * size_of(l.type), *v = k + l.k.N * rows * size_of(l.type);
  norm(l.before, l.before_eps, x, s.normed, l.type, rows, l.width());
  project(s.normed, l.type, rows, s.memory, {{&l.q, output(l, qkv)}, {&l.k, output(l, k)}, {&l.v, output(l, v)}});
  place(k, l.type, segments, &l.rope, keys);
  place(v, l.type, segments, nullptr, values);
}

void end_layer(const Layer& l, const char* x, const char* qkv, int rows, const Segments& segments, bool causal,
               const Kept& keys, const Kept& values, char* y, char* memory) {
  States s(l, rows, memory);
  size_t n = (size_t)rows * l.width();
  attend(qkv, l.type, l.heads, segments, l.rope, l.scale, causal, keys, values, s.turned, s.y);
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

}  // namespace toast
