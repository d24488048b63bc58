// A key/value cache as MLX arrays, as an attention step and decoder layers use it.
#pragma once
#include "cache_work.h"
#include "op.h"

namespace toast {

using SharedBatch = std::shared_ptr<const RaggedBatch>;

// Row `row` of a buffer (R, heads, capacity, D).
inline KvBuffer kv_buffer(const mx::array& x, int row = 0, int shift = 0) {
  size_t heads = x.shape(1), capacity = x.shape(2), D = x.shape(3);
  KvBuffer b{const_cast<char*>(x.data<char>()), type_of(x), heads, capacity, D, shift};
  b.data = b.at(row * b.heads, 0);
  return b;
}

// The first rows of a buffer, as many as there are segments.
inline std::vector<KvBuffer> kv_rows(const mx::array& x, const RaggedBatch& batch, int shift = 0) {
  std::vector<KvBuffer> rows;
  for (size_t i = 0; i < batch.segments.size(); i++) rows.push_back(kv_buffer(x, i, shift));
  return rows;
}

// B texts that are equally far, with L rows each.
SharedBatch equal_texts(int B, int L, int offset, bool causal);

// `out` becomes `in`: the same memory when nobody else holds it, else a copy.
void take(const mx::array& in, mx::array& out, const mx::Stream& s);

}  // namespace toast
