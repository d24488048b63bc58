// A key/value cache on raw memory: new rows stored in it, and attention over it.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <vector>

#include "rope_work.h"

namespace toast {

// A ragged batch: the new rows of several texts lie one after the other, without padding. Those from `first` on are one
// text's; they stand at the positions from `offset` on of its cache.
struct Segment {
  int first, length, offset;
};
struct RaggedBatch {
  std::vector<Segment> segments;
  int rows;     // of all segments
  bool causal;  // a position sees those before it alone
};

// One text's keys or values (heads, capacity, D). A position stands in the row `shift` before it: in a ring, which has
// the last `capacity` positions.
struct KvBuffer {
  char* data;
  Type type;
  size_t heads, capacity, D;
  int shift = 0;
  char* at(size_t head, size_t position) const { return data + (head * capacity + position) * D * size_of(type); }
};
// A layer's, of each segment's text; all but their capacities alike.
struct KvCaches {
  std::vector<KvBuffer> keys, values;
};

// x (rows, heads, D) to where their segments say, each rotated by its position unless rope is null; rounded where a
// float32 is stored as f16.
void store_rows(const char* x, Type type, const RaggedBatch& batch, const Rope* rope, const std::vector<KvBuffer>& to);

// Queries over a cache.
struct CacheAttention {
  const char* q;  // (rows, heads, D)
  Type type;
  int heads;
  float scale;
  const Rope& rope;
  char *rotated, *y;  // (rows, heads, D): memory for the rotated queries, and what comes out
};
void attend(const CacheAttention& a, const RaggedBatch& batch, const KvCaches& caches);

}  // namespace toast
