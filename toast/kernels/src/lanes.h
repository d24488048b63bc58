// What the float kernels share beyond vec.h: a call per element type, sums of a row, a W x W transpose.
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

// Asks for p[at, at + bytes) beforehand.
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

// zip_lo(a, b) = a0 b0 a1 b1 .. and zip_hi the upper halves: log2(W) rounds of them transpose.
#if defined(TOAST_AVX512)
static inline vf zip_lo(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline vf zip_hi(vf a, vf b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(TOAST_AVX2)
static inline vf zip_lo(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vf zip_hi(vf a, vf b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#elif defined(TOAST_NEON)
static inline vf zip_lo(vf a, vf b) { return vzip1q_f32(a, b); }
static inline vf zip_hi(vf a, vf b) { return vzip2q_f32(a, b); }
#else
static inline vf zip(vf a, vf b, int from) {
  vf r;
  for (int i = 0; i < W / 2; i++) r.v[2 * i] = a.v[from + i], r.v[2 * i + 1] = b.v[from + i];
  return r;
}
static inline vf zip_lo(vf a, vf b) { return zip(a, b, 0); }
static inline vf zip_hi(vf a, vf b) { return zip(a, b, W / 2); }
#endif

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
