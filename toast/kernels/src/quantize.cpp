// Activations to 8 bits: every 32 of a row get the scale max|x| / 127 (round half to even).
// Compiled once per variant; a row's bytes depend on that row alone.
#include "epilogue.h"
#include "int8.h"

namespace toast::TOAST_VARIANT {

// Swap eight bytes k0..k7 into the order k0 k2 k4 k6 k1 k3 k5 k7 (see place()).
static inline void split_even_odd(int8_t* q, int n) {
  for (int i = 0; i < n; i += 8) {
    int8_t t[8];
    memcpy(t, q + i, 8);
    for (int k = 0; k < 8; k++) q[i + place(k, 4)] = t[k];
  }
}

// One activation group x[32] -> q; the scale, and in `total` the sum of q.
template <class T>
static float quantize_group(const T* x, int8_t* q, float& total) {
  vf top = set1(0), sums = set1(0);
  for (int k = 0; k < ACTIVATION_GROUP; k += W) top = vmax(abs(load(x + k)), top);
  float most = largest(top);
  if (!(most > 1e-35f)) most = 0;
  vf inverse = set1(most > 0 ? 127 / most : 0);
  for (int k = 0; k < ACTIVATION_GROUP; k += W) {
    vf v = round(load(x + k) * inverse);
    v = vmin(set1(127), vmax(set1(-127), v));
    sums = sums + v;  // whole numbers below 2^24: exact in any order
    store_int8(q + k, v);
  }
  total = sum(sums);
  return most / 127;
}

template <class T>
static bool quantize_row(const T* x, int K, int group, int bits, int8_t* q, float* scale, float* q_sum, float* sums) {
  vf bad = set1(0);
  for (int k = 0; k < K; k += W) bad = fma(load(x + k), set1(0), bad);  // NaN for ever once x is not finite
  for (int k = 0; k < K; sums++) {
    *sums = 0;
    for (int end = k + group; k < end; k += ACTIVATION_GROUP, scale++, q_sum++) {
      *scale = quantize_group(x + k, q + k, *q_sum);
      *sums += *scale * *q_sum;
    }
  }
  if (bits == 4) split_even_odd(q, K);
  return sum(bad) == 0;
}

static bool quantize(const void* x, Type type, int K, int group, int bits, int8_t* q, float* scale, float* q_sum,
                     float* sum) {
  bool finite = true;
  with_type(type, [&](auto t) { finite = quantize_row((const decltype(t)*)x, K, group, bits, q, scale, q_sum, sum); });
  return finite;
}

static float value(const void* p, Type type, size_t i) {
  float v[W];
  with_type(type, [&](auto t) { store(v, load((const decltype(t)*)p + i, 1)); });
  return v[0];
}

static void quantized_row_exact(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                                const Epilogue& e, void* out, Type out_type) {
  for (size_t n = n0; n < (size_t)n1; n++) {
    const uint8_t* q = w.w + n * w.K * w.bits / 8;
    float acc[W] = {0};
    for (int k = 0; k < w.K; k++) {
      size_t at = (n * w.K + k) / w.group;
      int weight = w.bits == 8 ? q[k] : q[k / 2] >> (k & 1) * 4 & 15;
      acc[0] += value(x, type, k) * (value(w.scales, w.type, at) * weight + value(w.biases, w.type, at));
    }
    finish(acc, W, e, &to, 1, w.N, n, 1, out, out_type);
  }
}

void fill_quantize(Kernels& k) {
  k.quantize_row = quantize;
  k.quantized_row_exact = quantized_row_exact;
}

}  // namespace toast::TOAST_VARIANT
