// Rope on plain memory, one position after the other. Knows the kernels; knows nothing of MLX.
#pragma once
#include <memory>
#include <vector>

#include "kernels.h"

namespace toast {

using Frequencies = std::shared_ptr<const std::vector<float>>;

// base^(-i / half) for i < half, rounded once; computed once for each model.
Frequencies inverse_frequencies(float base, int half);
// 1 / x[i] for i < half
Frequencies inverted(const float* x, int half);

struct Rope {
  int dims;
  bool traditional;
  float scale;          // of positions
  Frequencies inverse;  // dims / 2
};

// Turns heads by one position's angles, which are computed once for all of them.
class Turn {
 public:
  explicit Turn(const Rope& r) : r(r), angles(r.dims) {}
  void at(float position) {
    kernels().rope_angles(position * r.scale, r.inverse->data(), angles.data(), angles.data() + r.dims / 2, r.dims / 2);
  }
  // x[D] -> y[D]
  void head(const void* x, void* y, Type type, size_t D) const {
    kernels().rope(x, y, type, D, r.dims, r.traditional, angles.data(), angles.data() + r.dims / 2);
  }

 private:
  const Rope& r;
  std::vector<float> angles;
};

}  // namespace toast
