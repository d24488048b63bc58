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
  char *wide, *gates, *products;
  char *gate, *up, *outputs;  // of each row's experts in turn; then, for all rows, of the shared one
  int* chosen;                // [rows, used]
  float* shares;              // the same; then [rows] of the shared one
  size_t pairs, inner;        // rows of the former, and where the latter begins in gate and up
  size_t bytes;

  Workspace(const Experts& e, Type type, int rows, char* base) {
    Pieces piece{base};
    auto& s = e.shared;
    size_t one = size_of(type), width = e.gate.first.K, all = (size_t)rows * (e.used + (s.gate.N > 0));
    pairs = (size_t)rows * e.used, inner = pairs * e.gate.first.N;
    bool widened = (e.router.dense.data || s.router.dense.data) && type != Type::f32;
    wide = piece(widened ? rows * width * sizeof(float) : 0);
    gates = piece((size_t)rows * e.count * one);
    size_t wider = (inner + (size_t)rows * s.gate.N) * one;
    gate = piece(wider), up = piece(wider), outputs = piece(all * width * one);
    chosen = (int*)piece(pairs * sizeof(int)), shares = (float*)piece(all * sizeof(float));
    size_t most = 0;
    auto project_by = [&](const QuantWeights& w, size_t n) { most = std::max(most, w.w ? project_bytes(n, {&w}) : 0); };
    for (auto router : {&e.router, &s.router}) project_by(router->quantized, rows);
    for (auto w : {&e.gate.first, &e.up.first, &s.gate, &s.up}) project_by(*w, rows);
    for (auto w : {&e.down.first, &s.down}) project_by(*w, all);
    products = piece(most);
    bytes = piece.bytes;
  }
};

// x[rows, width] -> w.gates[rows, count]
void ask(const Router& router, const char* x, Type type, int rows, const Workspace& w) {
  Output out{w.gates, type, {}};
  if (router.quantized.w) return project(x, type, rows, w.products, {{&router.quantized, out}});
  int width = router.dense.K;
  if (type != Type::f32) widen_all(x, type, (float*)w.wide, (size_t)rows * width);
  run({{(const float*)(type == Type::f32 ? x : w.wide), width, router.dense, out}}, rows);
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
  kernels().to_f32(gates, type, scratch, e.count);
  for (int i = 0; e.least && i < e.count; i++) scratch[i] = -scratch[i];
  choose(scratch, e.count, e.used, e.least, (int*)(scratch + e.count), chosen);
  for (int i = 0; i < e.used; i++) shares[i] = e.least ? -scratch[chosen[i]] : scratch[chosen[i]];
  if (e.shares == Shares::normed) {
    float sum = rounded(std::accumulate(shares, shares + e.used, 0.f), type);
    for (int i = 0; i < e.used; i++) shares[i] = rounded(shares[i] / sum, type);
  }
  if (e.shares != Shares::of_used) return;
  kernels().from_f32(shares, scratch, type, e.used);
  kernels().softmax(scratch, scratch, type, 1, e.used);
  kernels().to_f32(scratch, type, shares, e.used);
}

void route(const Experts& e, const char* x, Type type, int rows, const Workspace& w) {
  ask(e.router, x, type, rows, w);
  if (e.shares != Shares::of_used) softmax_rows(w.gates, w.gates, type, rows, e.count);
  each_rows(rows, e.count, [&](size_t first, size_t count) {
    Scratch scratch(e.count * (sizeof(float) + sizeof(int)));
    for (size_t m = first; m < first + count; m++)
      share_out(e, w.gates + m * e.count * size_of(type), type, w.chosen + m * e.used, w.shares + m * e.used,
                scratch.floats());
  });
  if (!e.shared.gate.N) return;
  ask(e.shared.router, x, type, rows, w);
  kernels().activate(Activation::sigmoid, w.gates, nullptr, w.gates, type, rows);
  kernels().to_f32(w.gates, type, w.shares + w.pairs, rows);
}

// The shared expert's job: every row of a matrix from `first` on, to rows of its own.
struct Everyone {
  std::vector<int> rows, to;

  Everyone(int n, int first = 0) : rows(n), to(n) {
    std::iota(rows.begin(), rows.end(), first);
    std::iota(to.begin(), to.end(), 0);
  }
  Job job(const QuantWeights& w, Output out) const { return {w, rows.data(), to.data(), (int)rows.size(), out}; }
};

// x[rows, width] -> w.gate, w.up, by all threads at once
void begin_experts(const Experts& e, const char* x, Type type, int rows, const Meetings& meetings, const Workspace& w) {
  Everyone all(rows);
  size_t shared = w.inner * size_of(type);
  auto jobs = meetings.jobs([&](int i) { return e.gate.at(i); }, {w.gate, type, {}});
  auto more = meetings.jobs([&](int i) { return e.up.at(i); }, {w.up, type, {}});
  jobs.insert(jobs.end(), more.begin(), more.end());
  if (e.shared.gate.N) {
    jobs.push_back(all.job(e.shared.gate, {w.gate + shared, type, {}}));
    jobs.push_back(all.job(e.shared.up, {w.up + shared, type, {}}));
  }
  run(jobs, x, type, rows, w.products);
}

// w.gate -> w.outputs: at once, too, where the shared expert's rows are as wide as the others', which they follow
void end_experts(const Experts& e, Type type, int rows, const Meetings& meetings, const Workspace& w) {
  auto& shared = e.shared.down;
  Output out{w.outputs + w.pairs * e.down.first.N * size_of(type), type, {}};
  bool alike = shared.N && shared.K == e.down.first.K;
  Everyone all(alike ? rows : 0, w.pairs);
  auto jobs = meetings.jobs([&](int i) { return e.down.at(i); }, {w.outputs, type, {}});
  if (alike) jobs.push_back(all.job(shared, out));
  run(jobs, w.gate, type, w.pairs + all.rows.size(), w.products);
  if (shared.N && !alike) project(w.gate + w.inner * size_of(type), type, rows, w.products, {{&shared, out}});
}

// w.outputs of each row, weighed and added -> y[rows, n]
void add_up(const Experts& e, Type type, int rows, char* y, const Workspace& w) {
  size_t n = e.down.first.N, row = n * size_of(type);
  each_rows(rows, (e.used + 1) * n, [&](size_t first, size_t count) {
    for (size_t m = first; m < first + count; m++) {
      kernels().weighted_sum(w.outputs + m * e.used * row, w.shares + m * e.used, y + m * row, type, e.used, n);
      char* shared = w.outputs + (w.pairs + m) * row;
      if (!e.shared.gate.N) continue;
      kernels().weighted_sum(shared, w.shares + w.pairs + m, shared, type, 1, n);
      kernels().add(y + m * row, shared, y + m * row, type, n);
    }
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
  int pairs = w.pairs;
  auto expert = [&](int pair) { return w.chosen[pair]; };
  Meetings of_x(pairs, e.count, expert, [&](int pair) { return pair / e.used; });
  Meetings of_each(pairs, e.count, expert, [](int pair) { return pair; });
  begin_experts(e, x, type, rows, of_x, w);
  activate_all(f, w.gate, w.up, w.gate, type, w.inner + (size_t)rows * e.shared.gate.N);
  end_experts(e, type, rows, of_each, w);
  add_up(e, type, rows, y, w);
}

}  // namespace toast
