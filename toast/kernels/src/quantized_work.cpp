// Who computes which rows and columns of a quantised product. The arithmetic is in quantized.cpp.
#include "quantized_work.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "threads.h"

namespace toast {
namespace {

// Rows [m, m + M) and columns [n0, n1) of a job: one task for a thread.
struct Task {
  const Job* job;
  int m, M, n0, n1;
};

size_t products(const Job& j) { return (size_t)j.M * j.w.N * j.w.K; }

// A job's share of the tasks is its share of the products: the largest would hold all others up.
std::vector<Task> split(const std::vector<Job>& jobs) {
  std::vector<Task> tasks;
  size_t all = 0;
  for (const Job& j : jobs) all += products(j);
  int panel = kernels().quantized_panel;
  for (const Job& j : jobs) {
    if (!j.M) continue;
    size_t fitting = ((size_t)j.M * j.w.K + tuning::TASK_ACTIVATIONS - 1) / tuning::TASK_ACTIVATIONS;
    size_t filled = (j.M + tuning::UNPACKING_ROWS - 1) / tuning::UNPACKING_ROWS;
    int parts = std::max<size_t>(1, std::min(fitting, filled));
    int M = ((j.M + parts - 1) / parts + 3) / 4 * 4;
    int each = j.M > 4 ? tuning::TASKS_A_THREAD : tuning::TASKS_A_THREAD_OF_FEW_ROWS;
    int wanted = helpers() == 1 ? 1 : each * helpers();
    int pieces = (wanted * products(j) + all * parts - 1) / (all * parts);
    int columns = std::max<size_t>(j.w.N / pieces, tuning::TASK_PRODUCTS / ((size_t)std::min(M, j.M) * j.w.K + 1));
    columns = std::max(1, columns / panel) * panel;
    for (int m = 0; m < j.M; m += M)
      for (int n = 0; n < j.w.N; n += columns)
        tasks.push_back({&j, m, std::min(M, j.M - m), n, std::min(j.w.N, n + columns)});
  }
  return tasks;
}

void run_task(const Task& t, const QuantizedRows& x, const QuantRows& all, const char* source, Type type) {
  const Job& j = *t.job;
  const int *rows = j.rows + t.m, *to = j.to + t.m;
  Scratch scratch(kernels().quantized_scratch(j.w, t.M));
  kernels().quantized_matmul({j.w, all, rows, to, t.M, t.n0, t.n1, j.out}, scratch.bytes());
  for (int m = 0; m < t.M; m++)
    if (x.count()[rows[m]] < 0)
      kernels().quantized_row_exact(j.w, source + (size_t)rows[m] * x.K * size_of(type), type, to[m], t.n0, t.n1,
                                    j.out);
}

// Bytes of the numbers of rows, and to the next line of the cache.
size_t order_bytes(int rows) { return (rows * sizeof(int) + 63) / 64 * 64; }

}  // namespace

QuantRow QuantizedRows::row(int m) const {
  size_t first = (size_t)m * (K / ACTIVATION_GROUP);
  return {unit() + m, blocks() + first, sum() + (size_t)m * (K / group), outliers() + first, K, group, bits};
}

void QuantizedRows::fill(const char* x, Type type) const {
  constexpr int some = tuning::QUANTIZE_ROWS;
  parallel((rows + some - 1) / some, [&](int task) {
    Scratch scratch(K / ACTIVATION_GROUP * sizeof(float));
    for (int m = task * some; m < std::min(rows, (task + 1) * some); m++)
      count()[m] = kernels().quantize_row(x + (size_t)m * K * size_of(type), type, row(m), scratch.floats());
  });
}

void run(const std::vector<Job>& jobs, const QuantizedRows& x, const char* source, Type type) {
  auto all = x.all();
  auto tasks = split(jobs);
  parallel(tasks.size(), [&](int i) { run_task(tasks[i], x, all, source, type); });
}

void run(const std::vector<Job>& jobs, const char* x, Type type, int rows, char* memory) {
  QuantizedRows q{};
  std::vector<Job> alike;
  for (auto& job : jobs) {
    auto& w = job.w;
    if (q.rows && (w.group != q.group || form_for(w.bits) != q.bits)) {
      run(alike, q, x, type);
      alike.clear();
      q.rows = 0;
    }
    if (!q.rows) {
      q = {rows, w.K, w.group, form_for(w.bits), memory};
      q.fill(x, type);
    }
    alike.push_back(job);
  }
  run(alike, q, x, type);
}

void project(const char* x, Type type, int rows, char* memory, const std::vector<Product>& products) {
  int* order = (int*)memory;
  std::iota(order, order + rows, 0);
  std::vector<Job> jobs;
  for (auto& [w, out] : products) jobs.push_back({*w, order, order, rows, out});
  run(jobs, x, type, rows, memory + order_bytes(rows));
}

bool is_centred(const QuantWeights& w) {
  constexpr size_t some = 1 << 12;
  size_t n = (size_t)w.N * (w.K / w.group), one = size_of(w.type);
  std::atomic<bool> centred{true};
  parallel((n + some - 1) / some, [&](int task) {
    float scales[some], biases[some];
    size_t first = task * some, count = std::min(some, n - first);
    if (!centred.load(std::memory_order_relaxed)) return;
    kernels().to_f32((const char*)w.scales + first * one, w.type, scales, count);
    kernels().to_f32((const char*)w.biases + first * one, w.type, biases, count);
    for (size_t i = 0; i < count; i++)
      if (biases[i] != middle(w) * scales[i]) return centred.store(false);
  });
  return centred;
}

size_t project_bytes(int rows, const std::vector<const QuantWeights*>& all) {
  size_t most = 0;
  for (auto w : all) most = std::max(most, QuantizedRows::bytes(rows, w->K, w->group));
  return order_bytes(rows) + most;
}

}  // namespace toast
