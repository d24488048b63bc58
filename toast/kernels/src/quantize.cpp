// Activations to 8 bits: each group of a row gets the scale max|x| / 127 (round half to even).
// Compiled once per variant; a row's bytes depend on that row alone.
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

template <class T>
static bool quantize_row(const T* x, int K, int group, int bits, int8_t* q, float* scale, float* sum_) {
  vf bad = set1(0);
  for (int g = 0; g * group < K; g++, x += group, q += group) {
    vf top = set1(0), total = set1(0);
    for (int k = 0; k < group; k += W) {
      vf v = load(x + k);
      top = vmax(abs(v), top);
      bad = fma(v, set1(0), bad);  // NaN for ever once x is not finite
    }
    float most = largest(top);
    vf inverse = set1(most > 1e-35f ? 127 / most : 0);
    for (int k = 0; k < group; k += W) {
      vf v = round(load(x + k) * inverse);
      v = vmin(set1(127), vmax(set1(-127), v));
      total = total + v;  // whole numbers below 2^24: exact in any order
      store_int8(q + k, v);
    }
    if (bits == 4) split_even_odd(q, group);
    scale[g] = most > 1e-35f ? most / 127 : 0;
    sum_[g] = scale[g] * sum(total);
  }
  return sum(bad) == 0;
}

static bool quantize(const void* x, Type type, int K, int group, int bits, int8_t* q, float* scale,
                     float* sum) {
  if (type == Type::f32) return quantize_row((const float*)x, K, group, bits, q, scale, sum);
  if (type == Type::f16) return quantize_row((const f16*)x, K, group, bits, q, scale, sum);
  return quantize_row((const bf16*)x, K, group, bits, q, scale, sum);
}

static float value(const void* p, Type type, size_t i) {
  float v[W];
  if (type == Type::f32) return ((const float*)p)[i];
  store(v, type == Type::f16 ? load((const f16*)p + i, 1) : load((const bf16*)p + i, 1));
  return v[0];
}

static void put_value(void* p, Type type, size_t i, float v) {
  if (type == Type::f32) ((float*)p)[i] = v;
  else if (type == Type::f16) store((f16*)p + i, set1(v), 1);
  else store((bf16*)p + i, set1(v), 1);
}

static void quantized_row_exact(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                                const Epilogue& e, void* out, Type out_type) {
  for (size_t n = n0; n < (size_t)n1; n++) {
    const uint8_t* q = w.w + n * w.K * w.bits / 8;
    float acc = 0;
    for (int k = 0; k < w.K; k++) {
      size_t at = (n * w.K + k) / w.group;
      int weight = w.bits == 8 ? q[k] : q[k / 2] >> (k & 1) * 4 & 15;
      acc += value(x, type, k) * (value(w.scales, w.type, at) * weight + value(w.biases, w.type, at));
    }
    put_value(out, out_type, (size_t)to * w.N + n, acc + (e.bias ? e.bias[n] : 0));
  }
}

void fill_quantize(Kernels& k) {
  k.quantize_row = quantize;
  k.quantized_row_exact = quantized_row_exact;
}

}  // namespace toast::TOAST_VARIANT
