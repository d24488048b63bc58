// The way out of both matmuls: a row of sums, the epilogue, the output's type.
// Included once per variant.
#pragma once
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {

struct Same {
  static inline vf of(vf x) { return x; }
};

// sums[M][stride], n columns -> out[to[m] * N + n0 + i] = f(alpha sums[m][i] + bias[n0 + i]) + beta c.
// Row m of out is row to[m], or m itself without `to`.
template <class F, class T>
static inline void finish_as(const float* sums, int stride, const Epilogue& e, const int* to, int M, int N, int n0,
                             int n, T* out) {
  vf alpha = set1(e.alpha), beta = set1(e.beta);
  for (int i = 0; i < n; i += W) {
    int lanes = n - i < W ? n - i : W;
    vf bias = e.bias ? load_some(e.bias + n0 + i, lanes) : set1(0);
    for (int m = 0; m < M; m++) {
      size_t row = to ? to[m] : m, at = row * N + n0 + i;
      vf v = F::of(fma(load(sums + m * stride + i), alpha, bias));
      if (e.c) v = fma(beta, load_some(e.c + row * e.c_row + n0 + i, lanes), v);
      store_some(out + at, v, lanes);
    }
  }
}

// `sums` may be read up to a whole vector beyond n.
static inline void finish(const float* sums, int stride, const Epilogue& e, const int* to, int M, int N, int n0,
                          int n, void* out, Type type) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    auto go = e.activation == Activation::gelu ? finish_as<Gelu, T>
        : e.activation == Activation::gelu_tanh ? finish_as<GeluTanh, T>
        : e.activation == Activation::silu ? finish_as<Silu, T>
        : finish_as<Same, T>;
    go(sums, stride, e, to, M, N, n0, n, (T*)out);
  });
}

}  // namespace toast::TOAST_VARIANT
