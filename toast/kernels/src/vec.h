// One vector of floats (vf, W lanes) with the same operations on every CPU, and what is built on them.
// Included once per variant: TOAST_VARIANT names the namespace and the header that has the instructions.
// Only C headers here: an inline std:: function compiled with wide vectors could be the copy
// the linker keeps for everybody, and crash an older CPU.
#pragma once
#include <math.h>
#include <string.h>

#include "int8.h"
#include "kernels.h"
#include "tuning.h"

// What an innermost loop is made of: the compiler leaves it out of line where a function grows large.
#define TOAST_INLINE inline __attribute__((always_inline))

#define TOAST_STRING(text) #text
#define TOAST_VARIANT_HEADER(variant) TOAST_STRING(variant_##variant.h)
#define TOAST_HEADER_OF(variant) TOAST_VARIANT_HEADER(variant)
#include TOAST_HEADER_OF(TOAST_VARIANT)

namespace toast::TOAST_VARIANT {

// 2^(n + r - 1) for a whole n >= -126 and |r| <= 1/2: 2^r / 2 by a minimax polynomial
// (tests/bench/minimax.py), whole powers by the exponent.
// Relative error 2e-7 down to 2^-126, absolute 2^-126 below; with n = -126 and r = 0 exactly 0.
static inline vf half_exp2(vf n, vf r) {
  vf p = set1(6.638236277497957e-4f);
  p = fma(p, r, set1(4.837770879835231e-3f));
  p = fma(p, r, set1(2.7753566377563592e-2f));
  p = fma(p, r, set1(1.2011059858002332e-1f));
  p = fma(p, r, set1(3.465734835305899e-1f));
  p = fma(p, r, set1(0.5f));
  return add_exponent(p, n);
}

// e^x for x <= 0, exactly 0 from 2^-127 on; NaN stays NaN.
static inline vf exp_below(vf x) {
  vf log2e = set1(1.44269504088896341f), u = vmax(set1(-126), fma(x, log2e, set1(1))), n = round(u);
  return half_exp2(n, where_gt(set1(-125.99f), u, set1(0), fma(x, log2e, set1(1) - n)));
}

// f(i, n) for every vector of at most W elements of [0, n): whole ones with n == W.
template <class F>
static inline void vectors(size_t n, F f) {
  size_t i = 0;
  for (; i + W <= n; i += W) f(i, W);
  if (i < n) f(i, (int)(n - i));
}

}  // namespace toast::TOAST_VARIANT
