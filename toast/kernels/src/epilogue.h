// The way out of both matmuls: a row of sums, the epilogue, the output's type.
// Included once per variant.
#pragma once
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {

struct Same {
  static inline vf of(vf x) { return x; }
};

// sums[M][stride], in units[M] or in ones without `units`: columns [n0, n0 + n) of an output [.., N]. Row m goes to row
// to[m], or m itself without `to`. May be read up to a whole vector beyond n.
struct Sums {
  const float* sums;
  int stride;
  const float* units;
  const int* to;
  int M, N, n0, n;
};

// V vectors of columns from column i on, `lanes` of the last: a row's next to each other, since they share a cache
// line.
template <class F, int V, class T>
static inline void finish_columns(const Sums& s, int i, int lanes, const Epilogue& e, T* out) {
  auto [sums, stride, units, to, M, N, first, n] = s;
  int n0 = first + i;
  sums += i;
  vf beta = set1(e.beta), bias[V];
  auto here = [&](int i) { return i < V - 1 ? W : lanes; };
  for (int i = 0; i < V; i++) bias[i] = e.bias ? load_some(e.bias + n0 + i * W, here(i)) : set1(0);
  for (int m = 0; m < M; m++, sums += stride) {
    size_t row = to ? to[m] : m, at = row * N + n0;
    vf alpha = set1(units ? e.alpha * units[m] : e.alpha), v[V];
    for (int i = 0; i < V; i++) v[i] = F::of(fma(load(sums + i * W), alpha, bias[i]));
    for (int i = 0; e.c && i < V; i++) v[i] = fma(beta, load_some(e.c + row * e.c_row + n0 + i * W, here(i)), v[i]);
    for (int i = 0; i < V; i++) store_some(out + at + i * W, v[i], here(i));
  }
}

// out[to[m], n0 + i] = f(alpha sums[m][i] + bias[n0 + i]) + beta c.
template <class F, class T>
static inline void finish_as(const Sums& s, const Epilogue& e, T* out) {
  int i = 0;
  for (; i + 2 * W <= s.n; i += 2 * W) finish_columns<F, 2>(s, i, W, e, out);
  for (; i < s.n; i += W) finish_columns<F, 1>(s, i, s.n - i < W ? s.n - i : W, e, out);
}

static inline void finish(const Sums& s, const Output& out) {
  with_type(out.type, [&](auto t) {
    using T = decltype(t);
    const Epilogue& e = out.epilogue;
    auto go = e.activation == Activation::gelu        ? finish_as<Gelu, T>
              : e.activation == Activation::gelu_tanh ? finish_as<GeluTanh, T>
              : e.activation == Activation::silu      ? finish_as<Silu, T>
                                                      : finish_as<Same, T>;
    go(s, e, (T*)out.data);
  });
}

}  // namespace toast::TOAST_VARIANT
