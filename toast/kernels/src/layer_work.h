// A decoder layer as Llama has it, quantised, on plain memory: norm, attention over a cache, SwiGLU, residuals.
// Made of the ops' own parts in the same order, with the same roundings: the bits are theirs.
#pragma once
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
  int states() const { return q.N + k.N + v.N; }
};

// Memory for the work on some rows.
size_t layer_bytes(const Layer& l, int rows);

// x (rows, width) -> its norm times q, k and v, three matrices one after the other; keys and values put in their places.
void begin_layer(const Layer& l, const char* x, int rows, const Segments& segments, const Kept& keys, const Kept& values,
                 char* qkv, char* memory);

// Attention over the cache, its projection, and the feed-forward block, with their residuals -> y (rows, width).
void end_layer(const Layer& l, const char* x, const char* qkv, int rows, const Segments& segments, bool causal,
               const Kept& keys, const Kept& values, char* y, char* memory);

}  // namespace toast
