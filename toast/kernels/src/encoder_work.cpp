// Who takes which texts through an encoder's layer, and the order of its steps.
#include "encoder_work.h"

#include <algorithm>

#include "attention_work.h"
#include "floats_work.h"
#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

// x[rows, K] -> f(x w' + bias) + residual: to[rows, N]; memory: project_bytes().
struct Step {
  const QuantLinear& l;
  const float* residual = nullptr;
  Activation f = Activation::none;

  void run(const float* x, int rows, float* to, char* memory) const {
    Epilogue e{residual, (size_t)l.w.N, 1, 1, l.bias, f};
    project((const char*)x, Type::f32, rows, memory, {{&l.w, {to, Type::f32, e}}});
  }
};

// Rows of a chunk whose widest state fits the second cache beside weights.
size_t chunk_of(const AfterAttention& l) {
  return std::max(tuning::ENCODER_ROWS, tuning::ENCODER_STATES / (l.F() * sizeof(float)));
}

void norm(const Norm& n, const float* x, float* y, int rows, int D) {
  layer_norm_rows((const char*)x, (char*)y, Type::f32, rows, D, n);
}

void run_chunk(const AfterAttention& l, const float* y, const float* x, float* z, int rows) {
  size_t states = (size_t)rows * (2 * l.D() + l.F());  // one piece of memory after the other
  Scratch scratch(states * sizeof(float) + project_bytes(rows, {&l.out.w, &l.up.w, &l.down.w}));
  float *sum = scratch.floats(), *h = sum + (size_t)rows * l.D(), *wide = h + (size_t)rows * l.D();
  char* memory = (char*)(sum + states);
  Step{l.out, x}.run(y, rows, sum, memory);
  norm(l.norm1, sum, h, rows, l.D());
  Step{l.up, nullptr, l.activation}.run(h, rows, wide, memory);
  Step{l.down, h}.run(wide, rows, sum, memory);
  norm(l.norm2, sum, z, rows, l.D());
}

// q, k and v of texts [first, first + texts) of L rows each, qkv[texts, L, 3 width] -> y[texts, L, width].
struct TextAttention {
  const SelfAttention& s;
  const float* qkv;
  float* y;
  int first, L;

  // Queries [row, row + rows) of a head of a text.
  void run(int text, int head, int row, int rows) const {
    int d = s.width() / s.heads, w = 3 * s.width();
    const float* q = qkv + (size_t)text * L * w + head * d;
    Attention a{};
    a.mask = s.mask, a.group = 1, a.queries = rows, a.keys = L, a.dk = a.dv = d, a.scale = s.scale;
    a.q = q + (size_t)row * w, a.k = q + s.width(), a.v = q + 2 * s.width();
    a.y = y + ((size_t)text * L + row) * s.width() + head * d;
    a.q_row = a.k_row = a.v_row = w, a.y_row = s.width();
    int64_t size = s.mask == Mask::boolean ? 1 : sizeof(float);
    a.m_row = s.m_row, a.m = s.m + ((first + text) * s.m_text + head * s.m_head + row * s.m_row) * size;
    Scratch scratch(kernels().attention_scratch(a) * sizeof(float));
    kernels().attention(a, scratch.floats());
  }
};

// x[texts, L, D] -> y[texts, L, width]: those from `first` on.
void run(const SelfAttention& s, const float* x, float* y, int first, int texts, int L) {
  int rows = texts * L, tile = attention_tile(1, L, L);
  size_t states = (size_t)rows * 3 * s.width();
  Scratch scratch(states * sizeof(float) + project_bytes(rows, {&s.qkv.w}));
  float* qkv = scratch.floats();
  Step{s.qkv}.run(x, rows, qkv, (char*)(qkv + states));
  TextAttention attention{s, qkv, y, first, L};
  int tiles = (L + tile - 1) / tile;
  parallel(texts * s.heads * tiles, [&](int i) {
    int row = i % tiles * tile;
    attention.run(i / (s.heads * tiles), i / tiles % s.heads, row, std::min(L - row, tile));
  });
}

// All the weights, once for many chunks of rows: to[unpacked_bytes()].
size_t unpacked_bytes(std::initializer_list<const QuantWeights*> all) {
  size_t bytes = 0;
  for (auto w : all) bytes += kernels().unpacked_bytes(*w);
  return bytes;
}

void unpack(std::initializer_list<QuantWeights*> all, char* to) {
  for (auto w : all) {
    int panel = kernels().quantized_panel;
    parallel((w->N + panel - 1) / panel,
             [&](int i) { kernels().unpack(*w, i * panel, std::min(w->N, (i + 1) * panel), to); });
    w->unpacked = to;
    to += kernels().unpacked_bytes(*w);
  }
}

// y[rows, K], x[rows, D] -> z, in chunks of whole tiles where there are several.
void run_chunks(const AfterAttention& l, const float* y, const float* x, float* z, int rows) {
  int chunks = (rows + chunk_of(l) - 1) / chunk_of(l), step = ((rows + chunks - 1) / chunks + 3) / 4 * 4;
  parallel((rows + step - 1) / step, [&](int i) {
    size_t first = (size_t)i * step;
    run_chunk(l, y + first * l.out.w.K, x + first * l.D(), z + first * l.D(), std::min<int>(step, rows - first));
  });
}

// Texts of a chunk.
int texts_of(const AfterAttention& l, int L) {
  int rows = chunk_of(l), texts = std::max(1, rows / L);
  while (texts * L % 4 && texts * L < rows) texts++;  // whole tiles
  return texts;
}

}  // namespace

void run(AfterAttention l, const float* y, const float* x, float* z, int rows) {
  if (rows < tuning::FEED_FORWARD_TASKS_A_THREAD * helpers() * (int)chunk_of(l))  // not a chunk for every thread
    return run_chunk(l, y, x, z, rows);
  Scratch unpacked(unpacked_bytes({&l.out.w, &l.up.w, &l.down.w}));
  unpack({&l.out.w, &l.up.w, &l.down.w}, unpacked.bytes());
  run_chunks(l, y, x, z, rows);
}

// In chunks of whole texts where there are enough for all threads, else one step after the other.
void run(EncoderLayer layer, const float* x, float* z, int B, int L) {
  auto& [s, l] = layer;
  int texts = texts_of(l, L), chunks = (B + texts - 1) / texts;
  if (chunks < tuning::LAYER_TASKS_A_THREAD * helpers()) {
    Scratch y((size_t)B * L * s.width() * sizeof(float));
    run(s, x, y.floats(), 0, B, L);
    return run(l, y.floats(), x, z, B * L);
  }
  Scratch unpacked(unpacked_bytes({&s.qkv.w, &l.out.w, &l.up.w, &l.down.w}));
  unpack({&s.qkv.w, &l.out.w, &l.up.w, &l.down.w}, unpacked.bytes());
  parallel(chunks, [&](int i) {
    int first = i * texts, count = std::min(texts, B - first);
    size_t at = (size_t)first * L * l.D();
    Scratch y((size_t)count * L * s.width() * sizeof(float));
    run(s, x + at, y.floats(), first, count, L);
    run_chunks(l, y.floats(), x + at, z + at, count * L);
  });
}

}  // namespace toast
