// The order of a mixture's steps, and which experts a row sees.
#include "experts_work.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "dense_work.h"
#include "floats_work.h"
#include "pieces.h"
#include "quantized_work.h"
#include "threads.h"

namespace toast {
namespace {

struct Workspace {
  char *wide, *gates, *gate, *up, *outputs, *products;
  int* chosen;    // [rows, used]
  float* shares;  // the same
  size_t bytes;

  Workspace(const Experts& e, Type type, int rows, char* base) {
    Pieces piece{base};
    size_t one = size_of(type), pairs = (size_t)rows * e.used, inner = pairs * e.gate.first.N;
    bool widened = e.float_router.data && type != Type::f32;
    wide = piece(widened ? (size_t)rows * e.gate.first.K * sizeof(float) : 0);
    gates = piece((size_t)rows * e.count * one);
    gate = piece(inner * one), up = piece(inner * one), outputs = piece(pairs * e.down.first.N * one);
    chosen = (int*)piece(pairs * sizeof(int)), shares = (float*)piece(pairs * sizeof(float));
    size_t most = project_bytes(pairs, {&e.down.first});
    most = std::max(most, project_bytes(rows, {&e.gate.first, &e.up.first}));
    products = piece(e.router.w ? std::max(most, project_bytes(rows, {&e.router})) : most);
    bytes = piece.bytes;
  }
};

void ask_router(const Experts& e, const char* x, Type type, int rows, const Workspace& w) {
  Output out{w.gates, type, {}};
  if (e.router.w) return project(x, type, rows, w.products, {{&e.router, out}});
  int width = e.float_router.K;
  if (type != Type::f32) widen_all(x, type, (float*)w.wide, (size_t)rows * width);
  run({{(const float*)(type == Type::f32 ? x : w.wide), width, e.float_router, out}}, rows);
}

float rounded(float x, Type type) {
  char narrow[sizeof(float)];
  kernels().from_f32(&x, narrow, type, 1);
  kernels().to_f32(narrow, type, &x, 1);
  return x;
}

// The numbers of the `used` largest of gates[count], or smallest, in the order that MLX's argpartition leaves them in:
// the sums run in it. NaNs are largest, and of equals the later one is.
void choose(const float* gates, int count, int used, bool smallest, int* order, int* chosen) {
  auto less = [gates](int a, int b) {
    if (std::isnan(gates[a])) return false;
    if (std::isnan(gates[b])) return true;
    return gates[a] < gates[b] || (gates[a] == gates[b] && a < b);
  };
  std::iota(order, order + count, 0);
  std::nth_element(order, order + (smallest ? used - 1 : count - used), order + count, less);
  std::copy_n(order + (smallest ? 0 : count - used), used, chosen);
}

// What the router says of one row -> its experts and their shares. scratch: count floats and as many numbers.
void share_out(const Experts& e, const char* gates, Type type, int* chosen, float* shares, float* scratch) {
  bool alone = e.shares == Shares::of_used;
  kernels().to_f32(gates, type, scratch, e.count);
  for (int i = 0; alone && i < e.count; i++) scratch[i] = -scratch[i];  // MLX-LM asks for the least of these
  choose(scratch, e.count, e.used, alone, (int*)(scratch + e.count), chosen);
  for (int i = 0; i < e.used; i++) shares[i] = alone ? -scratch[chosen[i]] : scratch[chosen[i]];
  if (e.shares == Shares::normed) {
    float sum = rounded(std::accumulate(shares, shares + e.used, 0.f), type);
    for (int i = 0; i < e.used; i++) shares[i] = rounded(shares[i] / sum, type);
  }
  if (!alone) return;
  kernels().from_f32(shares, scratch, type, e.used);
  kernels().softmax(scratch, scratch, type, 1, e.used);
  kernels().to_f32(scratch, type, shares, e.used);
}

void route(const Experts& e, const char* x, Type type, int rows, const Workspace& w) {
  ask_router(e, x, type, rows, w);
  if (e.shares != Shares::of_used) softmax_rows(w.gates, w.gates, type, rows, e.count);
  each_rows(rows, e.count, [&](size_t first, size_t count) {
    Scratch scratch(e.count * (sizeof(float) + sizeof(int)));
    for (size_t m = first; m < first + count; m++)
      share_out(e, w.gates + m * e.count * size_of(type), type, w.chosen + m * e.used, w.shares + m * e.used,
                scratch.floats());
  });
}

}  // namespace

QuantWeights ExpertWeights::at(int expert) const {
  enum : char { unknown, centred, other };
  QuantWeights w = first;
  size_t part = (size_t)w.N * (w.K / w.group) * size_of(w.type) * expert;
  w.w += (size_t)w.N * w.K * w.bits / 8 * expert;
  w.scales = (const char*)w.scales + part, w.biases = (const char*)w.biases + part;
  auto& form = forms[expert];
  if (form.load(std::memory_order_relaxed) == unknown) form = is_centred(w) ? centred : other;
  if (form.load(std::memory_order_relaxed) == centred) w.biases = nullptr;
  return w;
}

size_t mix_bytes(const Experts& e, Type type, int rows) { return Workspace(e, type, rows, nullptr).bytes; }

void mix(const Experts& e, Activation f, const char* x, Type type, int rows, char* y, char* memory) {
  Workspace w(e, type, rows, memory);
  route(e, x, type, rows, w);
  int pairs = rows * e.used;
  auto expert = [&](int pair) { return w.chosen[pair]; };
  Meetings of_x(pairs, e.count, expert, [&](int pair) { return pair / e.used; });
  Meetings of_each(pairs, e.count, expert, [](int pair) { return pair; });
  auto jobs = of_x.jobs([&](int i) { return e.gate.at(i); }, {w.gate, type, {}});
  auto more = of_x.jobs([&](int i) { return e.up.at(i); }, {w.up, type, {}});
  jobs.insert(jobs.end(), more.begin(), more.end());
  run(jobs, x, type, rows, w.products);
  activate_all(f, w.gate, w.up, w.gate, type, (size_t)pairs * e.gate.first.N);
  run(of_each.jobs([&](int i) { return e.down.at(i); }, {w.outputs, type, {}}), w.gate, type, pairs, w.products);
  size_t n = e.down.first.N, row = n * size_of(type);
  each_rows(rows, e.used * n, [&](size_t first, size_t count) {
    for (size_t m = first; m < first + count; m++)
      kernels().weighted_sum(w.outputs + m * e.used * row, w.shares + m * e.used, y + m * row, type, e.used, n);
  });
}

}  // namespace toast
