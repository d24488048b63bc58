// Who computes which rows and columns of a quantised product. The arithmetic is in quantized.cpp.
#include "quantized_work.h"

#include <algorithm>
#include <numeric>

#include "threads.h"

namespace toast {
namespace {

// Rows [m, m + M) and columns [n0, n1) of a job: one task for a thread.
struct Task {
  const Job* job;
  int m, M, n0, n1;
};

std::vector<Task> split(const std::vector<Job>& jobs) {
  constexpr size_t in_cache = 96 << 10, worth_a_task = 1 << 16;  // bytes of x, products
  constexpr int worth_unpacking = 32;                            // rows
  std::vector<Task> tasks;
  int panel = kernels().panel;
  for (const Job& j : jobs) {
    size_t fitting = ((size_t)j.M * j.w.K + in_cache - 1) / in_cache,
           filled = (j.M + worth_unpacking - 1) / worth_unpacking;
    int blocks = std::max<size_t>(1, std::min(fitting, filled));
    int M = ((j.M + blocks - 1) / blocks + 3) / 4 * 4;
    int each = j.M > 4 ? 4 : 2;  // with few rows a task's first panel comes slowly
    int wanted = helpers() == 1 ? 1 : each * helpers(),
        pieces = (wanted + jobs.size() * blocks - 1) / (jobs.size() * blocks);
    int columns = std::max<size_t>(j.w.N / pieces, worth_a_task / ((size_t)std::min(M, j.M) * j.w.K + 1));
    columns = std::max(1, columns / panel) * panel;
    for (int m = 0; m < j.M; m += M)
      for (int n = 0; n < j.w.N; n += columns)
        tasks.push_back({&j, m, std::min(M, j.M - m), n, std::min(j.w.N, n + columns)});
  }
  return tasks;
}

// Bytes of the numbers of rows, and to the next line of the cache.
size_t order_bytes(int rows) { return (rows * sizeof(int) + 63) / 64 * 64; }

}  // namespace

void QuantizedRows::fill_row(int m, const char* x, Type type) const {
  size_t first = (size_t)m * (K / ACTIVATION_GROUP);
  count()[m] = kernels().quantize_row(x, type, K, group, bits, unit() + m, blocks() + first,
                                      sum() + (size_t)m * (K / group), outliers() + first);
}

void QuantizedRows::fill(const char* x, Type type) const {
  constexpr int piece = 16;
  parallel((rows + piece - 1) / piece, [&](int t) {
    for (int m = t * piece; m < std::min(rows, (t + 1) * piece); m++)
      fill_row(m, x + (size_t)m * K * size_of(type), type);
  });
}

void run(const std::vector<Job>& jobs, const QuantizedRows& x, const char* source, Type type) {
  QuantRows rows{x.unit(), x.blocks(), x.sum(), x.outliers(), x.count(), x.K, x.group};
  auto tasks = split(jobs);
  parallel(tasks.size(), [&](int i) {
    const Task& t = tasks[i];
    const Job& j = *t.job;
    kernels().quantized_matmul(j.w, rows, j.rows + t.m, j.to + t.m, t.M, t.n0, t.n1, j.out.epilogue, j.out.data,
                               j.out.type);
    for (int m = t.m; m < t.m + t.M; m++)
      if (x.count()[j.rows[m]] < 0)
        kernels().quantized_row_exact(j.w, source + (size_t)j.rows[m] * x.K * size_of(type), type, j.to[m], t.n0, t.n1,
                                      j.out.epilogue, j.out.data, j.out.type);
  });
}

void project(const char* x, Type type, int rows, char* memory, std::initializer_list<Product> products) {
  int* order = (int*)memory;
  std::iota(order, order + rows, 0);
  QuantizedRows q{};
  std::vector<Job> jobs;
  for (auto& [w, out] : products) {
    if (q.rows && (w->group != q.group || w->bits != q.bits)) {
      run(jobs, q, x, type);
      jobs.clear();
      q.rows = 0;
    }
    if (!q.rows) {
      q = {rows, w->K, w->group, w->bits, memory + order_bytes(rows)};
      q.fill(x, type);
    }
    jobs.push_back({*w, order, order, rows, out});
  }
  run(jobs, q, x, type);
}

size_t project_bytes(int rows, std::initializer_list<const QuantWeights*> all) {
  size_t most = 0;
  for (auto w : all) most = std::max(most, QuantizedRows::bytes(rows, w->K, w->group));
  return order_bytes(rows) + most;
}

}  // namespace toast
