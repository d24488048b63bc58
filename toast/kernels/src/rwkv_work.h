// RWKV-7's layers on raw memory: a time mix around a recurrence, and a channel mix, both of rows and those before them.
// All of it in float32. Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "kernels.h"

namespace toast {

// x w' + bias, with w[N, K] quantised, or dense as [K, N]; bias[N] or null.
struct Linear {
  QuantWeights quantized{};
  Matrix dense{};
  const float* bias = nullptr;

  bool is_quantized() const { return quantized.w; }
  int N() const { return is_quantized() ? quantized.N : dense.N; }
  int K() const { return is_quantized() ? quantized.K : dense.K; }
};

struct RwkvLayer {
  enum { R, K, V, W, A, G, SHIFTED };           // what the time mix makes of a row and the one before
  enum { GATE, DECAY, RATE, RESIDUAL, RANKS };  // what has a low rank, the largest first

  int heads;
  Norm before, after, of_heads;         // of what the mixes get; of what the recurrence gives
  const float *time_mix, *channel_mix;  // [SHIFTED, width], [width]: how much of the row before
  const float *k_k, *k_a, *r_k;         // [width]
  Linear r, k, v, o, key, value;
  std::array<Linear, RANKS> down, up;  // of low rank; the first layer has no RESIDUAL

  int width() const { return o.N(); }
  bool is_first() const { return !down[RESIDUAL].N(); }
};

using RwkvLayers = std::vector<std::shared_ptr<const RwkvLayer>>;

// Of each text, the last row that each mix got, time and channel, before[B, width] -> after, and states[B, heads, D, D]
// as of States.
struct RwkvState {
  std::array<const float*, 2> before;
  std::array<float*, 2> after;
  float* states;
};

// All layers over T rows of B texts, x[B, T, width] in place; memory: run_bytes().
void run(const RwkvLayers& layers, float* x, size_t B, size_t T, const std::vector<RwkvState>& states, char* memory);
size_t run_bytes(const RwkvLayers& layers, size_t rows);

}  // namespace toast
