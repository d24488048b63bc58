// What stands between a layer's projections beside attention or in its place, on raw memory: a gated delta net
// (recurrence_work.cpp), a short convolution, Mamba-2. A layer knows no more of it than this. Knows nothing of MLX.
#pragma once
#include <functional>
#include <vector>

#include "kernels.h"

namespace toast {

// What a projection gives, (B, T, ..) with steps in elements.
struct Projected {
  const char* data;
  Type type;
  int64_t text, row;
  const char* at(size_t b, size_t t, size_t column) const {
    return data + (int64_t)size_of(type) * (b * text + t * row + column);
  }
};

// before -> after [B, rows, channels]: the last rows of what is convolved; before may be null, zeros. states as
// States has them (recurrence_work.h), or null where there are none.
struct MixerState {
  const char* before;
  char* after;
  float* states;
};

struct Mixer {
  size_t rows = 0, channels = 0;      // of what is convolved, that the next call begins with
  size_t heads = 0, dv = 0, dk = 0;   // of its states; no heads: none
  size_t width = 0;                   // of what it gives
  std::vector<size_t> projections{};  // columns that it needs of each
  // projected of T rows of B texts, all of one type -> y[B, T, width] of it
  std::function<void(size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state, char* y)>
      run{};

  explicit operator bool() const { return (bool)run; }
};

}  // namespace toast
