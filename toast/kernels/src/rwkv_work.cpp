// The order of a RWKV-7 layer's steps, and who does what. What is done to a row or a head is in rwkv.cpp.
#include "rwkv_work.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "dense_work.h"
#include "floats_work.h"
#include "pieces.h"
#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

using Linears = std::vector<const Linear*>;

// Those that have a weight.
Linears linears_of(const RwkvLayer& l) {
  Linears all{&l.r, &l.k, &l.v, &l.o, &l.key, &l.value};
  for (auto& w : l.down) all.push_back(&w);
  for (auto& w : l.up) all.push_back(&w);
  std::erase_if(all, [](auto w) { return !w->N(); });
  return all;
}

// Where a layer's intermediate results lie in one piece of memory.
struct Workspace {
  float *shifted, *first, *r, *k, *v, *y, *h, *wide;
  std::array<float*, RwkvLayer::RANKS> low, high;
  int* order;
  char* products;
  size_t bytes;

  Workspace(const RwkvLayer& l, size_t rows, char* base) {
    Pieces piece{base};
    auto floats = [&](size_t n) { return (float*)piece(rows * n * sizeof(float)); };
    size_t width = l.width();
    first = floats(width);  // the first layer's values, which all read
    shifted = floats(RwkvLayer::SHIFTED * width);
    for (auto x : {&r, &k, &v, &y, &h}) *x = floats(width);
    for (int i = 0; i < RwkvLayer::RANKS; i++) low[i] = floats(l.down[i].N()), high[i] = floats(width);
    wide = floats(l.key.N());
    order = (int*)piece(RwkvLayer::SHIFTED * rows * sizeof(int));
    size_t most = 0;
    for (auto w : linears_of(l))
      if (w->is_quantized()) {
        size_t sets = w->K() == l.width() ? RwkvLayer::SHIFTED : 1;
        most = std::max(most, QuantizedRows::bytes(sets * rows, w->K(), w->quantized.group));
      }
    products = piece(most);
    bytes = piece.bytes;
  }
};

// ---------------------------------------------------------------- products

// out = x[set] w' + bias + plus, of which all rows have as many columns.
struct LinearProduct {
  const Linear* w;
  int set;
  float* out;
  const float* plus = nullptr;

  Output to() const {
    Epilogue e;
    e.bias = w->bias, e.c = plus, e.c_row = w->N();
    return {out, Type::f32, e};
  }
};

// x[sets, rows, K] by each of the matrices: the quantised ones with one meeting of the threads. order[sets * rows]: 0,
// 1 and so on; memory for the quantised rows.
void multiply(const float* x, size_t sets, size_t rows, const std::vector<LinearProduct>& products, const int* order,
              char* memory) {
  std::vector<Job> jobs;
  for (auto& p : products) {
    if (!p.w->N()) continue;
    if (p.w->is_quantized())
      jobs.push_back({p.w->quantized, order + p.set * rows, order, (int)rows, p.to()});
    else
      run({{x + p.set * rows * p.w->K(), p.w->K(), p.w->dense, p.to()}}, (int)rows);
  }
  auto form = [](const Job& j) { return std::pair(j.w.group, form_for(j.w.bits)); };
  std::stable_sort(jobs.begin(), jobs.end(), [&](auto& a, auto& b) { return form(a) < form(b); });
  if (!jobs.empty()) run(jobs, (const char*)x, Type::f32, (int)(sets * rows), memory);
}

// The second half of what has a low rank, w.low -> w.high: activations and products of some rows are one task.
void raise(const RwkvLayer& l, size_t rows, const Workspace& w) {
  using R = RwkvLayer;
  size_t step = tuning::UNPACKING_ROWS, parts = (rows + step - 1) / step;
  parallel((int)(R::RANKS * parts), [&](int task) {
    size_t i = task / parts, first = task % parts * step, n = std::min(step, rows - first);
    auto& up = l.up[i];
    if (!up.N()) return;
    float* x = w.low[i] + first * up.K();
    if (i == R::GATE || i == R::DECAY)
      kernels().activate(i == R::GATE ? Activation::sigmoid : Activation::tanh, x, nullptr, x, Type::f32, n * up.K());
    Scratch memory(up.is_quantized() ? QuantizedRows::bytes((int)n, up.K(), up.quantized.group) : 0);
    multiply(x, 1, n, {{&up, 0, w.high[i] + first * up.N()}}, w.order, memory.bytes());
  });
}

// ---------------------------------------------------------------- shifts

// Rows of texts, and what a mix sees of them.
struct Shift {
  const Norm& norm;
  const float *x, *mix;  // [B, T, n], [sets, n]
  size_t B, T, n, sets;
  const float* before;  // [B, n]
  float *after, *out;   // [B, n], [sets, B, T, n]

  void norm_row(size_t row, float* y) const { kernels().layer_norm(x + row * n, y, Type::f32, 1, n, norm); }

  // Rows [t, end) of text b.
  void rows(size_t b, size_t t, size_t end) const {
    Scratch memory(2 * n * sizeof(float));
    float *last = memory.floats(), *now = last + n;
    if (t)
      norm_row(b * T + t - 1, last);
    else
      std::memcpy(last, before + b * n, n * sizeof(float));
    for (; t < end; t++) {
      norm_row(b * T + t, now);
      for (size_t i = 0; i < sets; i++) kernels().lerp(now, last, mix + i * n, out + (i * B * T + b * T + t) * n, n);
      std::swap(now, last);
    }
    if (t == T) std::memcpy(after + b * n, last, n * sizeof(float));
  }

  void run() const {
    size_t step = std::max<size_t>(1, tuning::TASK_ELEMENTS / n), parts = (T + step - 1) / step;
    parallel((int)(B * parts), [&](int i) {
      size_t t = i % parts * step;
      rows(i / parts, t, std::min(T, t + step));
    });
  }
};

// ---------------------------------------------------------------- the recurrence

// A tile of a head's steps.
struct Tile {
  float *q, *k, *v, *y, *decay, *minus, *plus, *beta, *scratch;
  size_t bytes;

  Tile(const Recurrence& r, size_t steps, char* base) {
    Pieces piece{base};
    auto floats = [&](size_t n) { return (float*)piece(n * sizeof(float)); };
    for (auto x : {&q, &k, &v, &y, &decay, &minus, &plus}) *x = floats(steps * r.dk);
    beta = floats(steps), scratch = floats(kernels().recurrence_scratch(r));
    bytes = piece.bytes;
  }
};

struct Wkv {
  const RwkvLayer& l;
  const Workspace& w;
  size_t T, D;
  float* states;

  // n steps of head h from row `row` on.
  void steps(size_t row, size_t h, Recurrence r, const Tile& tile) const {
    size_t n = r.steps, width = l.width(), first = h * D, at = row * width + first;
    auto values = l.is_first() ? w.first : w.v;
    for (size_t i = 0; i < n; i++) std::memcpy(tile.q + i * D, w.r + at + i * width, D * sizeof(float));
    kernels().wkv_inputs({n, D, width, w.k + at, values + at, w.high[RwkvLayer::DECAY] + at,
                          w.high[RwkvLayer::RATE] + at, l.is_first() ? nullptr : w.high[RwkvLayer::RESIDUAL] + at,
                          w.first + at, l.k_k + first, l.k_a + first, tile.decay, tile.k, tile.v, tile.minus,
                          tile.plus});
    kernels().recurrence(r, tile.scratch);
    auto of_head = [&](const void* x) { return (const float*)x + first; };
    kernels().layer_norm(tile.y, tile.y, Type::f32, n, D,
                         {of_head(l.of_heads.weight), of_head(l.of_heads.bias), l.of_heads.eps});
    kernels().wkv_outputs(
        {n, D, width, tile.y, tile.q, tile.k, tile.v, l.r_k + first, w.high[RwkvLayer::GATE] + at, w.y + at});
  }

  void run(size_t B) const {
    size_t most = std::min(T, tuning::RECURRENCE_STEPS), heads = l.heads;
    Recurrence r{};
    r.dk = r.dv = D;
    parallel((int)(B * heads), [&](int task) {
      Scratch memory(Tile(r, most, nullptr).bytes);
      Tile tile(r, most, memory.bytes());
      std::fill_n(tile.beta, most, 1.f);
      Recurrence one{0,         D,          D,          states + task * D * D,
                     tile.q,    tile.k,     tile.decay, tile.v,
                     tile.beta, tile.minus, tile.plus,  tile.y,
                     false,     false,      0};
      for (size_t t = 0; t < T; t += most) {
        one.steps = std::min(most, T - t);
        steps(task / heads * T + t, task % heads, one, tile);
      }
    });
  }
};

// ---------------------------------------------------------------- a layer

// x[B, T, width] -> w.h, with its residual
void time_mix(const RwkvLayer& l, const float* x, size_t B, size_t T, const RwkvState& state, const Workspace& w) {
  using R = RwkvLayer;
  size_t rows = B * T, sets = R::SHIFTED;
  Shift{l.before, x, l.time_mix, B, T, (size_t)l.width(), sets, state.before[0], state.after[0], w.shifted}.run();
  multiply(w.shifted, sets, rows,
           {{&l.r, R::R, w.r},
            {&l.k, R::K, w.k},
            {&l.v, R::V, l.is_first() ? w.first : w.v},
            {&l.down[R::GATE], R::G, w.low[R::GATE]},
            {&l.down[R::DECAY], R::W, w.low[R::DECAY]},
            {&l.down[R::RATE], R::A, w.low[R::RATE]},
            {&l.down[R::RESIDUAL], R::V, w.low[R::RESIDUAL]}},
           w.order, w.products);
  raise(l, rows, w);
  Wkv{l, w, T, (size_t)l.width() / l.heads, state.states}.run(B);
  multiply(w.y, 1, rows, {{&l.o, 0, w.h, x}}, w.order, w.products);
}

// w.h -> x[B, T, width], with its residual
void channel_mix(const RwkvLayer& l, float* x, size_t B, size_t T, const RwkvState& state, const Workspace& w) {
  size_t rows = B * T;
  Shift{l.after, w.h, l.channel_mix, B, T, (size_t)l.width(), 1, state.before[1], state.after[1], w.shifted}.run();
  multiply(w.shifted, 1, rows, {{&l.key, 0, w.wide}}, w.order, w.products);
  activate_all(Activation::relu2, (char*)w.wide, nullptr, (char*)w.wide, Type::f32, rows * l.key.N());
  multiply(w.wide, 1, rows, {{&l.value, 0, x, w.h}}, w.order, w.products);
}

}  // namespace

size_t run_bytes(const RwkvLayers& layers, size_t rows) {
  size_t most = 0;
  for (auto& l : layers) most = std::max(most, Workspace(*l, rows, nullptr).bytes);
  return most;
}

void run(const RwkvLayers& layers, float* x, size_t B, size_t T, const std::vector<RwkvState>& states, char* memory) {
  for (size_t i = 0; i < layers.size(); i++) {
    Workspace w(*layers[i], B * T, memory);  // where `first` lies does not depend on the layer
    std::iota(w.order, w.order + RwkvLayer::SHIFTED * B * T, 0);
    time_mix(*layers[i], x, B, T, states[i], w);
    channel_mix(*layers[i], x, B, T, states[i], w);
  }
}

}  // namespace toast
