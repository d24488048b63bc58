// A key/value cache as MLX arrays, as an attention step and a decoder layer use it.
#pragma once
#include "cache_work.h"
#include "floats_op.h"

namespace toast {

inline Kept kept(const mx::array& x) {
  return {const_cast<char*>(x.data<char>()), type_of(x), (size_t)x.shape(1), (size_t)x.shape(2), (size_t)x.shape(3)};
}

using SharedSegments = std::shared_ptr<const Segments>;

// B texts that are equally far, with L rows each.
SharedSegments equal_segments(int B, int L, int offset);

// place() of rows from element `first` of `rows` on in buffer (R, n, capacity, D): in place when nobody else holds it.
mx::array write(const mx::array& rows, int64_t first, const SharedSegments& segments, const mx::array& buffer,
                const std::optional<Rope>& rope, const mx::Stream& s);

// The frequencies of a rope: of its base, or as an array says.
Frequencies frequencies(std::optional<float> base, const Optional& freqs, int dims, const mx::Stream& s);

}  // namespace toast
