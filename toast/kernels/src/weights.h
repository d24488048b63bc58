// Quantised weights one at a time, for what is done element by element. Included once per variant.
#pragma once
#include "lanes.h"

namespace toast::TOAST_VARIANT {

// Code k of a row that is packed as MLX does.
static inline int code_at(const uint8_t* row, size_t k, int bits) {
  if (bits == 8) return row[k];
  size_t at = k * bits;
  int word = row[at / 8];
  if (at % 8 + bits > 8) word |= row[at / 8 + 1] << 8;
  return word >> at % 8 & ((1 << bits) - 1);
}

// p[i] of `type`.
static inline float value_at(const void* p, Type type, size_t i) {
  float v[W];
  with_type(type, [&](auto t) { store(v, load((const decltype(t)*)p + i, 1)); });
  return v[0];
}

// Row n of w, a column of the output.
struct Column {
  const QuantWeights& w;
  size_t n;

  int code(size_t k) const { return code_at(w.w + n * w.K * w.bits / 8, k, w.bits); }
  float scale(size_t k) const { return value_at(w.scales, w.type, (n * w.K + k) / w.group); }
  float bias(size_t k) const {
    return w.biases ? value_at(w.biases, w.type, (n * w.K + k) / w.group) : middle(w) * scale(k);
  }
};

}  // namespace toast::TOAST_VARIANT
