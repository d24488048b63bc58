// A decoder layer as Llama has it, quantised, on plain memory: norm, attention over a cache, SwiGLU, residuals.
// Made of the ops' own parts in the same order, with the same roundings: over the same caches, the bits are theirs.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <memory>
#include <vector>

#include "cache_work.h"

namespace toast {

struct Layer {
  QuantWeights q, k, v, o, gate, up, down;
  const void *before, *after;  // weights of the norms around attention
  float before_eps, after_eps;
  int heads, kv_heads, D;
  float scale;
  Rope rope;
  Type type;  // of all states

  int width() const { return q.K; }
};

// One after the other; only their feed-forward blocks may differ in shape.
using Layers = std::vector<std::shared_ptr<const Layer>>;

// Elements of a row of states, halfway through a layer: x, q, k and v.
inline size_t halfway(const Layer& l) { return (size_t)l.width() + l.q.N + l.k.N + l.v.N; }

// x (rows, width) through all layers but for the second half of the last one -> states: x, and its norm times q, k and
// v, four matrices one after the other. `caches`: keys and values of each layer in turn, which get the new rows.
void run_layers(const Layers& layers, const char* x, int rows, const Segments& segments, bool causal,
                const std::vector<Kept>& caches, char* states, char* memory);
size_t run_layers_bytes(const Layers& layers, int rows);  // of memory

// The second half: attention over the cache, its projection, and the feed-forward block, with their residuals
// -> y (rows, width), which may be where x is.
void end_layer(const Layer& l, const char* states, int rows, const Segments& segments, bool causal, const Kept& keys,
               const Kept& values, char* y, char* memory);
size_t end_layer_bytes(const Layer& l, int rows);

}  // namespace toast
