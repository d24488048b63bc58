// What the float kernels share beyond vec.h: a call per element type, sums of a row, a W x W transpose, prefetching.
// Included once per variant, after the instructions are chosen; knows no kernel.
#pragma once
#include "vec.h"

namespace toast::TOAST_VARIANT {

// f(T{}) with T the element type that `type` names.
template <class F>
static inline void with_type(Type type, F f) {
  if (type == Type::f32)
    f(float{});
  else if (type == Type::f16)
    f(f16{});
  else
    f(bf16{});
}

// Prefetches p[at, at + bytes).
static inline void prefetch(const void* p, size_t at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch((const char*)p + at + i, 0, 2);
    asm volatile("");  // GCC 12 drops a function that does nothing but prefetch
  }
}

template <class T>
static inline vf load_some(const T* p, int n) {
  return n == W ? load(p) : load(p, n);
}
template <class T>
static inline void store_some(T* p, vf x, int n) {
  n == W ? store(p, x) : store(p, x, n);
}

// The first n lanes of x, the rest zero.
static inline vf keep(vf x, int n) {
  float t[W];
  store(t, x);
  return load(t, n);
}

// sum of f(x[i]) over a row of n, in an order that depends on n alone.
template <class T, class F>
static inline float row_sum(const T* x, size_t n, F f) {
  vf a[4] = {set1(0), set1(0), set1(0), set1(0)};
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int k = 0; k < 4; k++) a[k] = a[k] + f(load(x + i + k * W));
  for (; i + W <= n; i += W) a[0] = a[0] + f(load(x + i));
  if (i < n) a[1] = a[1] + keep(f(load(x + i, (int)(n - i))), (int)(n - i));
  return sum((a[0] + a[1]) + (a[2] + a[3]));
}

// rows[i] lane j <-> rows[j] lane i.
static inline void transpose(vf rows[W]) {
  for (int round = 1; round < W; round *= 2) {
    vf t[W];
    for (int i = 0; i < W / 2; i++) {
      t[2 * i] = zip_lo(rows[i], rows[i + W / 2]);
      t[2 * i + 1] = zip_hi(rows[i], rows[i + W / 2]);
    }
    for (int i = 0; i < W; i++) rows[i] = t[i];
  }
}

}  // namespace toast::TOAST_VARIANT
