// gelu (exact and tanh), silu and others of a vector. Included once per variant.
#pragma once
#include "vec.h"

namespace toast::TOAST_VARIANT {

// erfc(a / sqrt 2) / 2 for a >= 0 as 2^(-a q(a)) / 2, absolute error 1e-7: q is a minimax polynomial on
// [0, 5.5] (tests/bench/minimax.py).
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
  vf u = vmax(set1(-126), set1(0) - a * q), n = round(u);
  return half_exp2(n, u - n);
}

// x Phi(x); -inf gives NaN, as x (1 + erf(x / sqrt 2)) / 2 does.
struct Gelu {
  static inline vf of(vf x) {
    vf tail = half_erfc_sqrt2(abs(x));
    return x * where_gt(x, set1(0), set1(1) - tail, tail);
  }
};

// 1 / (1 + exp(-x))
static inline vf sigmoid(vf x) {
  vf e = exp_below(set1(0) - abs(x));
  return where_gt(x, set1(0), set1(1), e) / (set1(1) + e);
}

// x (1 + tanh u) / 2 = x sigmoid(2u).
struct GeluTanh {
  static inline vf of(vf x) { return x * sigmoid(set1(1.5957691216057308f) * fma(set1(0.044715f) * x * x, x, x)); }
};

struct Sigmoid {
  static inline vf of(vf x) { return sigmoid(x); }
};

struct Silu {
  static inline vf of(vf x) { return x * sigmoid(x); }
};

struct Tanh {
  static inline vf of(vf x) { return set1(2) * sigmoid(x + x) - set1(1); }
};

struct Relu2 {
  static inline vf of(vf x) {
    vf positive = vmax(set1(0), x);
    return positive * positive;
  }
};

struct Itself {
  static inline vf of(vf x) { return x; }
};

}  // namespace toast::TOAST_VARIANT
