// Quantised products on raw memory, divided among the threads: what the matmul ops and the layers run.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <numeric>
#include <vector>

#include "kernels.h"

namespace toast {

// x[rows, K] as int8, in one piece of memory that the owner keeps. Rows that are not finite have a count of -1:
// they go through in float.
struct QuantizedRows {
  int rows, K, group, bits;
  char* memory;

  size_t groups() const { return (size_t)rows * (K / ACTIVATION_GROUP); }
  static size_t bytes(int rows, int K, int group) {
    size_t one = sizeof(Outlier) + sizeof(Block);
    return rows * (K / ACTIVATION_GROUP * one + (K / group + 1) * sizeof(float) + sizeof(int));
  }
  Outlier* outliers() const { return (Outlier*)memory; }
  Block* blocks() const { return (Block*)(outliers() + groups()); }
  float* sum() const { return (float*)(blocks() + groups()); }
  float* unit() const { return sum() + (size_t)rows * (K / group); }
  int* count() const { return (int*)(unit() + rows); }

  QuantRow row(int m) const;
  QuantRows all() const { return {unit(), blocks(), sum(), outliers(), count(), K, group}; }
  void fill(const char* x, Type type) const;  // x[rows, K], by all threads
};

// One matrix and the rows that meet it: out[to[m]] = x[rows[m]] . w for m < M.
struct Job {
  QuantWeights w;
  const int *rows, *to;
  int M;
  Output out;
};

// `source` is x as it was before it became int8, of `type`.
void run(const std::vector<Job>& jobs, const QuantizedRows& x, const char* source, Type type);
// The same for x[rows, K] itself, with project_bytes() of memory: it becomes int8 in each form that the jobs want.
void run(const std::vector<Job>& jobs, const char* x, Type type, int rows, char* memory);

// Which rows meet which of several matrices: pairs of both, sorted by the matrix, whose products are as many rows.
struct Meetings {
  std::vector<int> rows, to, start;  // matrix i has the pairs from start[i] on

  // Pair p < n: row `row(p)` and matrix `matrix(p)` of `count`.
  template <class M, class R>
  Meetings(int n, int count, M matrix, R row) : rows(n), to(n), start(count + 1) {
    for (int p = 0; p < n; p++) start[matrix(p) + 1]++;
    std::partial_sum(start.begin(), start.end(), start.begin());
    auto at = start;
    for (int p = 0; p < n; p++) {
      int i = at[matrix(p)]++;
      rows[i] = row(p), to[i] = p;
    }
  }

  // One for each matrix, weights(i), that any row meets.
  template <class W>
  std::vector<Job> jobs(W weights, Output out) const {
    std::vector<Job> found;
    for (size_t i = 0; i + 1 < start.size(); i++)
      if (int M = start[i + 1] - start[i]) found.push_back({weights(i), &rows[start[i]], &to[start[i]], M, out});
    return found;
  }
};

// A matrix and where its product goes.
struct Product {
  const QuantWeights* w;
  Output out;
};

// x[rows, K] times each of the matrices, with project_bytes() of memory.
void project(const char* x, Type type, int rows, char* memory, const std::vector<Product>& products);

// What project() needs for one product, or several of one x, with any of these matrices.
size_t project_bytes(int rows, const std::vector<const QuantWeights*>& all);

// Whether every bias is -scale * 2^(bits - 1): then w need not have any. Reads both.
bool is_centred(const QuantWeights& w);

}  // namespace toast
