// A key/value cache as an attention step and a decoder layer use it: rows written to it, attention over it.
#pragma once
#include "floats_op.h"

namespace toast {

// Of the T rows that go through a layer together, those from `first` on are one text's: they stand at the
// positions from `offset` on of row `row` of the cache. Texts of any lengths share a call without padding.
struct Segment {
  int row, first, length, offset;
};
using Segments = std::vector<Segment>;

// B texts that are equally far, with L rows each.
Segments equal_segments(int B, int L, int offset);

// T rows of n D elements, from element `first` of `rows` on, turned unless there is no rope, written to buffer
// (R, n, capacity, D) where their segments say: in place when nobody else holds the buffer, rounded where it holds
// f16 and they are float32.
mx::array write(const mx::array& rows, int64_t first, const Segments& segments, const mx::array& buffer,
                const std::optional<Rope>& rope, const Optional& freqs, const mx::Stream& s);

// T rows of n D elements from the start of q, turned, over their texts' positions so far -> out (T, n D), which has
// its memory already.
void read(const mx::array& q, const Segments& segments, const mx::array& keys, const mx::array& values, mx::array& out,
          int n, float scale, bool causal, const Rope& rope, const Optional& freqs, const mx::Stream& s);

}  // namespace toast
