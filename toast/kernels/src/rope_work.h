// Rope on raw memory, one position after the other. Knows the kernels and the pool; knows nothing of MLX.
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

// Rotates heads by one position's angles, which are computed once for all of them.
class Rotation {
 public:
  explicit Rotation(const Rope& r) : r(r), angles(r.dims) {}
  void set_position(float position) {
    kernels().rope_angles(position * r.scale, r.inverse->data(), angles.data(), angles.data() + r.dims / 2, r.dims / 2);
  }
  // x[D] -> y[D]
  void rotate(const void* x, void* y, Type type, size_t D) const {
    kernels().rope(x, y, type, D, {angles.data(), angles.data() + r.dims / 2, (size_t)r.dims, r.traditional});
  }

 private:
  const Rope& r;
  std::vector<float> angles;
};

// x[B, N, T, D] -> y, by strides in elements; rows contiguous. Row t of text b stands at position t + its offset.
struct RopeWork {
  struct Heads {
    char* data;
    int64_t text, head, row;
  } x, y;
  Type type;
  size_t B, N, T, D;
  const int* offsets;  // [B], or [1] for all texts, or null
  bool offset_a_text;
  int offset;  // without offsets
};
void rotate_all(const Rope& rope, const RopeWork& work);

}  // namespace toast
