// The scan of int8 vectors, divided among the threads. Knows the kernel and the pool; knows nothing of Python.
#pragma once
#include <cstddef>
#include <cstdint>

namespace toast {

// codes[rows, n] scales[rows] query[n] -> scores[rows], as in kernels.h.
struct Scan {
  const int8_t* codes;
  const float *scales, *query;
  float* scores;
  size_t rows, n;
};
void run(const Scan& scan);

}  // namespace toast
