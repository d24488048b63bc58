// A key/value cache as MLX arrays, as an attention step and a decoder layer use it.
#pragma once
#include "cache_work.h"
#include "floats_op.h"

namespace toast {

using SharedSegments = std::shared_ptr<const Segments>;

inline Kept kept(const mx::array& x) {
  return {const_cast<char*>(x.data<char>()), type_of(x), (size_t)x.shape(1), (size_t)x.shape(2), (size_t)x.shape(3)};
}

// `out` becomes `in`: the same memory when nobody else holds it, else a copy.
void take(const mx::array& in, mx::array& out, const mx::Stream& s);

// The frequencies of a rope: of its base, or as an array says.
Frequencies frequencies(std::optional<float> base, const Optional& freqs, int dims, const mx::Stream& s);

}  // namespace toast
