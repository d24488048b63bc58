// gelu (exact and tanh) and silu of a vector. Included once per variant.
#pragma once
#include "vec.h"

namespace toast::TOAST_VARIANT {

// erfc(a / sqrt 2) for a >= 0, absolute error 1e-7: exp(-a q(a)), q by a least-maximum fit on [0, 5.5].
static inline vf erfc_sqrt2(vf a) {
  vf t = vmin(set1(5.5f), a);
  vf q = set1(-2.8551951913868834e-7f);
  q = fma(q, t, set1(5.621119271381758e-6f));
  q = fma(q, t, set1(-4.607642040355131e-5f));
  q = fma(q, t, set1(1.788920199032873e-4f));
  q = fma(q, t, set1(2.162865348509513e-5f));
  q = fma(q, t, set1(-4.836531821638346e-3f));
  q = fma(q, t, set1(3.6362674087285995e-2f));
  q = fma(q, t, set1(3.183034658432007e-1f));
  q = fma(q, t, set1(7.978850603103638e-1f));
  return exp(set1(0) - a * q);
}

// x Phi(x); -inf gives NaN, as x (1 + erf(x / sqrt 2)) / 2 does.
struct Gelu {
  static inline vf of(vf x) {
    vf tail = set1(0.5f) * erfc_sqrt2(abs(x));
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
