// One vector of floats (vf, W lanes) with the same operations on every CPU, and what is built on them.
// Included once per variant: TOAST_VARIANT names the namespace and picks the instructions.
// Only C headers here: an inline std:: function compiled with wide vectors could be the copy
// the linker keeps for everybody, and crash an older CPU.
#pragma once
#include <math.h>
#include <string.h>

#include "kernels.h"

#if defined(__AVX512F__) && defined(TOAST_AVX512)
#include "vec_avx512.h"
#elif defined(__AVX2__) && defined(TOAST_AVX2)
#include "vec_avx2.h"
#elif defined(__ARM_NEON) && defined(TOAST_NEON)
#include "vec_neon.h"
#else
#include "vec_generic.h"
#endif

namespace toast::TOAST_VARIANT {

// exp(x) with 2 ulp: x = n ln 2 + r, exp(r) by a polynomial (Cephes), 2^n by the exponent bits.
// NaN stays NaN, +inf gives inf, very negative gives 0.
static inline vf exp(vf x) {
  x = vmin(set1(89.f), vmax(set1(-105.f), x));
  vf n = round(x * set1(1.44269504088896341f));
  vf r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  vf p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r + set1(1.f));
  return scale2(p, n);
}

// f(i, n) for every block of at most W elements of [0, n): full blocks with n == W.
template <class F>
static inline void blocks(size_t n, F f) {
  size_t i = 0;
  for (; i + W <= n; i += W) f(i, W);
  if (i < n) f(i, (int)(n - i));
}

}  // namespace toast::TOAST_VARIANT
