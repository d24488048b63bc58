// A key/value cache as an attention step and a decoder layer use it: rows written to it, attention over it.
#pragma once
#include "floats_op.h"

namespace toast {

// Rows (B, L, n D) that begin at element `first` of row-contiguous x, seen as (B, n, L, D).
mx::array split_heads(const mx::array& x, int64_t first, int B, int L, int n, int D, const mx::Stream& s);

// L rows a batch of `rows`, from element `first` on, turned unless there is no rope, written to buffer
// (B, n, capacity, D) from position `start` on: in place when nobody else holds the buffer.
mx::array write(const mx::array& rows, int64_t first, int L, const mx::array& buffer, int start,
                const std::optional<Rope>& rope, const Optional& freqs, const mx::Stream& s);

// q (B, n, L, D), turned, over the first rope.offset + L positions of keys and values -> out (B, L, n D), which has
// its memory already.
void read(const mx::array& q, const mx::array& keys, const mx::array& values, mx::array& out, float scale, bool causal,
          const Rope& rope, const Optional& freqs, const mx::Stream& s);

}  // namespace toast
