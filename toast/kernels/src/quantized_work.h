// Quantised products on raw memory, divided among the threads: what the matmul ops and the layers run.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <initializer_list>
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

// A matrix and where its product goes.
struct Product {
  const QuantWeights* w;
  Output out;
};

// x[rows, K] times each of the matrices, with project_bytes() of memory.
void project(const char* x, Type type, int rows, char* memory, std::initializer_list<Product> products);

// What project() needs for one product, or several of one x, with any of these matrices.
size_t project_bytes(int rows, std::initializer_list<const QuantWeights*> all);

// Whether every bias is -scale * 2^(bits - 1): then w need not have any. Reads both.
bool is_centred(const QuantWeights& w);

}  // namespace toast
