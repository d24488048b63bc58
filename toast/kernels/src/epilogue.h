// The way out of both matmuls: a row of sums, the epilogue, the output's type.
// Included once per variant.
#pragma once
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {

static inline vf activated(vf v, Activation f) {
  if (f == Activation::gelu) return Gelu::of(v);
  if (f == Activation::gelu_tanh) return GeluTanh::of(v);
  return f == Activation::silu ? Silu::of(v) : v;
}

// sums[n] -> out[i] = f(alpha sums[i] + bias[n0 + i]) + beta c[row, n0 + i], i < n.
template <class T>
static inline void finish_row(const float* sums, const Epilogue& e, int row, int n0, int n, T* out) {
  const float *c = e.c ? e.c + row * e.c_row + n0 : nullptr, *bias = e.bias ? e.bias + n0 : nullptr;
  blocks(n, [&](size_t i, int m) {
    vf v = load_some(sums + i, m);
    if (e.alpha != 1) v = v * set1(e.alpha);
    if (bias) v = v + load_some(bias + i, m);
    if (e.activation != Activation::none) v = activated(v, e.activation);
    if (c) v = fma(set1(e.beta), load_some(c + i, m), v);
    store_some(out + i, v, m);
  });
}

static inline void finish(const float* sums, const Epilogue& e, int row, int n0, int n, void* out, Type type,
                          size_t at) {
  with_type(type, [&](auto t) { finish_row(sums, e, row, n0, n, (decltype(t)*)out + at); });
}

}  // namespace toast::TOAST_VARIANT
