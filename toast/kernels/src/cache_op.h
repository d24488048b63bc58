// A key/value cache as MLX arrays, as an attention step and decoder layers use it.
#pragma once
#include "cache_work.h"
#include "op.h"

namespace toast {

using SharedBatch = std::shared_ptr<const RaggedBatch>;

inline KvBuffer kv_buffer(const mx::array& x) {
  return {const_cast<char*>(x.data<char>()), type_of(x), (size_t)x.shape(1), (size_t)x.shape(2), (size_t)x.shape(3)};
}

// `out` becomes `in`: the same memory when nobody else holds it, else a copy.
void take(const mx::array& in, mx::array& out, const mx::Stream& s);

}  // namespace toast
