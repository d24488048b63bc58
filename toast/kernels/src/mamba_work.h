// Mamba-2 between its two projections, on raw memory. Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include "recurrence_work.h"
#include "short_conv_work.h"

namespace toast {

// The projection is [gate, what is convolved: x, B, C; dt], x and gate of `heads` heads of dv, B and C of heads / share
// of dk. y silu(gate) is normed over all heads, where there is a norm.
struct Mamba {
  size_t heads, share, dk, dv;
  ShortConvolution convolution;
  Numbers A_log, D, dt_bias;
  float least, most;  // of a step
  Norm norm;          // its weight of the projection's type, or null

  size_t inner() const { return heads * dv; }
};
// projected of T rows of B texts -> y[B, T, inner]
void run(const Mamba& m, size_t B, size_t T, const Projected& projected, const MixerState& state, char* y);

}  // namespace toast
