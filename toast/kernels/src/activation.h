// gelu (exact and tanh) and silu of a vector. Included once per variant.
#pragma once
#include "vec.h"

namespace toast::TOAST_VARIANT {

// erfc(a / sqrt 2) / 2 for a >= 0 as 2^(-a q(a)) / 2, absolute error 1e-7: q by a least-maximum fit on [0, 5.5],
// 2^r / 2 by one on [-1/2, 1/2]. Exactly 0 from 2^-126 on.
static inline vf half_erfc_sqrt2(vf a) {
  vf t = vmin(set1(5.5f), a);
  vf q = set1(2.8349080510303715e-6f);
  q = fma(q, t, set1(-3.937764570724478e-5f));
  q = fma(q, t, set1(1.8618007229991018e-4f));
  q = fma(q, t, set1(1.3693667730596548e-4f));
  q = fma(q, t, set1(-7.063420415614578e-3f));
  q = fma(q, t, set1(5.249617848090499e-2f));
  q = fma(q, t, set1(4.5920819663259893e-1f));
  q = fma(q, t, set1(1.1511052053050321f));
  vf u = vmax(set1(-126), set1(0) - a * q), n = round(u), r = u - n;
  vf p = set1(6.638236277497957e-4f);
  p = fma(p, r, set1(4.837770879835231e-3f));
  p = fma(p, r, set1(2.7753566377563592e-2f));
  p = fma(p, r, set1(1.2011059858002332e-1f));
  p = fma(p, r, set1(3.465734835305899e-1f));
  p = fma(p, r, set1(0.5f));
  return add_exponent(p, n);
}

// x Phi(x); -inf gives NaN, as x (1 + erf(x / sqrt 2)) / 2 does.
struct Gelu {
  static inline vf of(vf x) {
    vf tail = half_erfc_sqrt2(abs(x));
    return x * where_gt(x, set1(0), set1(1) - tail, tail);
  }
};

// x (1 + tanh u) / 2 = x / (1 + exp(-2u)).
struct GeluTanh {
  static inline vf of(vf x) {
    vf u = set1(-1.5957691216057308f) * fma(set1(0.044715f) * x * x, x, x);
    return x / (set1(1) + exp(u));
  }
};

struct Silu {
  static inline vf of(vf x) { return x / (set1(1) + exp(set1(0) - x)); }
};

}  // namespace toast::TOAST_VARIANT
