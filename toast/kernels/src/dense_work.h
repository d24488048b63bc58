// Float products on raw memory, divided among the threads. Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <vector>

#include "kernels.h"

namespace toast {

// One product of a batch: a[M, K] (rows a_row apart) and b -> out[M, N].
struct DenseProduct {
  const float* a;
  int64_t a_row;
  Matrix b;
  Output out;
};

// All of a batch, which have their shapes in common.
void run(const std::vector<DenseProduct>& products, int M);

}  // namespace toast
