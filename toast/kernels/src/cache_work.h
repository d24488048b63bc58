// A key/value cache on plain memory: new rows put in their places, and attention over it.
// Knows the kernels and the pool; knows nothing of MLX.
#pragma once
#include <vector>

#include "rope_work.h"

namespace toast {

// Of the T rows that go through a layer together, those from `first` on are one text's: they stand at the
// positions from `offset` on of row `row` of the cache. Texts of any lengths share a call without padding.
struct Segment {
  int row, first, length, offset;
};
using Segments = std::vector<Segment>;

// Keys or values (R, heads, capacity, D).
struct Kept {
  char* data;
  Type type;
  size_t heads, capacity, D;
  char* at(size_t row, size_t head, size_t position) const {
    return data + ((row * heads + head) * capacity + position) * D * size_of(type);
  }
};

// x (T, heads, D), each row turned by its position unless there is no rope, to where its segment says; rounded
// where float32 is kept as f16.
void place(const char* x, Type type, const Segments& segments, const Rope* rope, const Kept& to);

// q (T, n, D), turned into `turned`, over their texts' positions so far -> y (T, n, D).
void attend(const char* q, Type type, int n, const Segments& segments, const Rope& rope, float scale, bool causal,
            const Kept& keys, const Kept& values, char* turned, char* y);

}  // namespace toast
