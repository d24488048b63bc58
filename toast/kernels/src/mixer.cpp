// What stands around a recurrence in its layer: a short convolution over time, queries and keys of unit length, and a
// norm with a gate. Sums in float32, one rounding at the end. Knows nothing of threads or arrays.
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {
namespace {

// Lane c of vector j: w[c, j], for n channels.
template <class T>
void by_tap(const T* w, size_t taps, int n, vf* v) {
  float t[MOST_TAPS][W] = {};
  for (int c = 0; c < n; c++) {
    float one[W];
    store(one, load_some(w + c * taps, (int)taps));
    for (size_t j = 0; j < taps; j++) t[j][c] = one[j];
  }
  for (size_t j = 0; j < MOST_TAPS; j++) v[j] = load(t[j]);
}

template <class T, class V>
void convolve(const Convolution& c) {
  auto x = (const T*)c.x;
  const V *w = (const V*)c.w, *b = (const V*)c.bias;
  T* y = (T*)c.y;
  vectors(c.n, [&](size_t i, int n) {
    vf v[MOST_TAPS], start = b ? load_some(b + i, n) : set1(0);
    if (c.w_tap == 1)
      by_tap(w + i * c.taps, c.taps, n, v);
    else
      for (size_t j = 0; j < c.taps; j++) v[j] = load_some(w + j * c.w_tap + i, n);
    for (size_t t = 0; t < c.rows; t++) {
      vf sum = start;
      for (size_t j = 0; j < c.taps; j++) sum = fma(load_some(x + (t + j) * c.x_row + i, n), v[j], sum);
      store_some(y + t * c.y_row + i, c.activation == Activation::silu ? Silu::of(sum) : sum, n);
    }
  });
}

void convolution(const Convolution& c) {
  with_type(c.type, [&](auto t) { with_type(c.w_type, [&](auto w) { convolve<decltype(t), decltype(w)>(c); }); });
}

void unit_length(const float* x, float* y, size_t rows, size_t n, float eps, float scale) {
  for (; rows--; x += n, y += n) {
    vf by = set1(scale / sqrtf(row_sum(x, n, [](vf v) { return v * v; }) + eps));
    vectors(n, [&](size_t i, int m) { store_some(y + i, load_some(x + i, m) * by, m); });
  }
}

template <class T, class V>
void norm_and_gate(const GatedNorm& g) {
  auto weight = (const V*)g.weight;
  for (size_t r = 0; r < g.rows; r++) {
    const float* x = g.x + r * g.n;
    auto gate = (const T*)g.gate + r * g.gate_row;
    T* y = (T*)g.y + r * g.y_row;
    vf by = set1(1.f / sqrtf(row_sum(x, g.n, [](vf v) { return v * v; }) / (float)g.n + g.eps));
    vectors(g.n, [&](size_t i, int m) {
      vf z = load_some(gate + i, m), f = sigmoid(z);
      store_some(y + i, load_some(x + i, m) * by * load_some(weight + i, m) * (g.silu ? z * f : f), m);
    });
  }
}

void gated_norm(const GatedNorm& g) {
  with_type(g.type,
            [&](auto t) { with_type(g.weight_type, [&](auto w) { norm_and_gate<decltype(t), decltype(w)>(g); }); });
}

}  // namespace

void fill_mixer(Kernels& k) {
  k.convolution = convolution;
  k.unit_length = unit_length;
  k.gated_norm = gated_norm;
}

}  // namespace toast::TOAST_VARIANT
