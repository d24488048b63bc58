// A decoder layer as Llama has it, quantised, on raw memory: norm, attention over a cache, SwiGLU, residuals; and with
// what Qwen2 (biases), Qwen3 (norms of queries and keys, mixtures of experts), OLMoE (norms of all heads at once),
// Gemma 3 (norms before the residuals, GELU), Qwen3-Next (gated attention) and hybrid models (mixers, scaled residuals)
// add. Made of the ops' own parts in the same order, with the same roundings: over the same caches, the bits are
// theirs, but for scaled residuals, which are rounded once. Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "cache_work.h"
#include "experts_work.h"
#include "mixer_work.h"

namespace toast {

// An adapter's low-rank update of a linear layer: + scale (x a) b, with float32 a[K, rank] and b[rank, N]. Rank 0:
// none.
struct LowRank {
  Matrix a{}, b{};
  float scale = 0;
};

struct Layer {
  QuantWeights q, k, v, o, gate, up, down;  // of a mixture, the first expert's
  Norm before, after;                       // of what attention and the feed-forward block get
  int heads, kv_heads, D;                   // no heads: no attention
  float scale;
  Rope rope;
  Type type;                            // of all states
  std::array<LowRank, 7> updates{};     // of q, k, v, o, gate, up, down; where there are any, states are float32
  std::array<const char*, 7> biases{};  // of the same, of `type`; null: none
  // Without a weight, none: of each head's q and k, and of what attention and the feed-forward block give.
  Norm q_norm{}, k_norm{}, after_attention{}, after_feed_forward{};
  Activation activation = Activation::silu;
  Experts experts{};
  bool whole = false;  // q_norm and k_norm are of all heads at once
  bool gated = false;  // q gives each head's queries and a gate beside them: attention times its logistic function
  // Beside attention or in its place: what stands between the projections `in` and `out`.
  Mixer mixer{};
  std::vector<QuantWeights> in{};
  QuantWeights out{};
  float residual = 1;  // what is added to x is scaled by

  int width() const { return down.N; }
  bool attends() const { return heads > 0; }
};

// One after the other; only their feed-forward blocks may differ in shape, and what stands before them.
using Layers = std::vector<std::shared_ptr<const Layer>>;

// What a layer keeps: keys and values, and a mixer's state, of texts of one length.
struct LayerCache : KvCaches {
  MixerState mixer{};
};

// The states between the two halves of a layer are [x, the mixer's y, q, k, v, gate] of it, matrices one after the
// other. Their elements for one row:
inline size_t states_width(const Layer& l) { return l.width() + l.mixer.width + l.q.N + l.k.N + l.v.N; }
// Those that all of them need.
size_t states_width(const Layers& layers);

// Run all layers up to the last one's attention: x (rows, width) -> states of that layer. The caches, one for each
// layer, get the new rows. memory: run_layers_bytes().
void run_layers(const Layers& layers, const char* x, const RaggedBatch& batch, const std::vector<LayerCache>& caches,
                char* states, char* memory);
size_t run_layers_bytes(const Layers& layers, int rows);

// The second half of a layer: attention over the cache, the projection o, and the feed-forward block, with their
// residuals -> y (rows, width), which may be where x is. memory: finish_layer_bytes().
void finish_layer(const Layer& l, const char* states, const RaggedBatch& batch, const KvCaches& caches, char* y,
                  char* memory);
size_t finish_layer_bytes(const Layer& l, int rows);

}  // namespace toast
