// A short convolution over time that goes on where the last call ended (LFM2's layers, Mamba-2's inputs), on raw
// memory. Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include "mixer_work.h"

namespace toast {

// y = f(convolution(x times) + bias) gate: each product is rounded, as ops of their own would.
struct ShortConvolution {
  size_t taps, channels;
  const char *w, *bias;  // w[taps, channels]; bias[channels] or null
  Type w_type;
  Activation activation;
  // The projection's first columns of each; -1: there is no such factor.
  int x, times = -1, gate = -1;
};

// projected of T rows of B texts -> y[B, T, channels]
void run(const ShortConvolution& c, size_t B, size_t T, const Projected& projected, const MixerState& state, char* y);

}  // namespace toast
