// Layers with a state on raw memory: which head and which steps are whose. The arithmetic is in recurrence.cpp and
// mixer.cpp. A head is one task, so the bits depend neither on the threads nor on the rest of the batch.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <array>
#include <vector>

#include "mixer_work.h"

namespace toast {

// Rows of heads as projections leave them: `each` heads lie side by side, the next group of them `group` further on.
// Steps in elements.
struct Heads {
  const char* data;
  Type type;
  int64_t text, row, group;
  size_t each, D;
  const char* at(size_t b, size_t t, size_t h) const {
    return data + (int64_t)size_of(type) * (b * text + t * row + h / each * group + h % each * D);
  }
};

// Numbers of a model, one a head or a channel.
struct Numbers {
  const char* data;
  Type type;
  float operator[](size_t i) const;
};

// states[B, heads, dk, dv] float32 through T steps; y[B, T, heads, dv] of `type`. q, k: of heads / share each.
struct States {
  size_t B, T, heads, share, dk, dv;
  float* data;
  char* y;
  Type type;
};

// The gated delta rule: g in (0, 1] one a head or one for each of its dk, beta.
struct DeltaRule {
  States states;
  Heads q, k, v, g, beta;
};
void run(const DeltaRule& rule);

// Mamba-2, dk being its state_size and dv its head's width: steps of softplus(dt + dt_bias) within [least, most].
struct StateSpace {
  States states;
  Heads x, B, C, dt;
  Numbers A_log, D, dt_bias;
  float least, most;
};
void run(const StateSpace& ssm);

// RWKV-7: s' = w s + k v + b (s a), y = s' r.
struct Wkv {
  States states;
  Heads r, w, k, v, a, b;
};
void run(const Wkv& wkv);

// Where a projection has some of a net's heads: `each` of them side by side from column `first` on, the next ones
// `group` further.
struct Part {
  int which;  // of the projections
  size_t first, group, each, D;
};

// What stands between the projections of a gated delta net: short convolution with silu, unit length, gates, the rule,
// a norm with silu(z). Heads of v; of q and k, heads / share.
struct DeltaNet {
  size_t heads, share, dk, dv, taps;
  std::array<Part, 6> parts;  // q, k, v, z, a, b
  const char *conv, *norm;    // conv[taps, channels]
  Type conv_type, norm_type;
  Numbers A_log, dt_bias;
  float norm_eps;

  size_t channels() const { return 2 * (heads / share) * dk + heads * dv; }
};
// projected of T rows of B texts, all of one type -> y[B, T, heads dv] of it
void run(const DeltaNet& net, size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state,
         char* y);

// x[B, T + taps - 1, n] -> y[B, T, n], all of one type; row-contiguous y.
void convolve_all(const Convolution& first, size_t B, size_t text);

}  // namespace toast
