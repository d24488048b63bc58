// The specification of quantized.cpp: the same sums in the same order, one column at a time.
#include "epilogue.h"
#include "int8.h"

namespace toast::TOAST_VARIANT {

static float value(const void* p, Type type, size_t i) {
  float v = 0;
  with_type(type, [&](auto t) { v = one(((const decltype(t)*)p)[i]); });
  return v;
}

// One element: sum over groups of scale * (sum over 32s of x's scale * (sum of q x)) + bias * (sum of x).
static float dot(const QuantWeights& w, const QuantRows& x, int row, int column) {
  const uint8_t* q = w.w + (size_t)column * w.K * w.bits / 8;
  const int8_t* v = x.q + (size_t)row * w.K;
  const float *scale = x.scale + (size_t)row * (w.K / ACTIVATION_GROUP), *sum = x.sum + (size_t)row * (w.K / w.group);
  float acc = 0;
  for (int k = 0; k < w.K; sum++) {
    size_t at = ((size_t)column * w.K + k) / w.group;
    float part = 0;
    for (int end = k + w.group; k < end; scale++) {
      int total = 0;
      for (int i = 0; i < ACTIVATION_GROUP; i++, k++)
        total += (w.bits == 8 ? q[k] : q[k / 2] >> (k & 1) * 4 & 15) * v[place(k, w.bits)];
      part += (float)total * *scale;
    }
    acc += part * value(w.scales, w.type, at);
    acc += value(w.biases, w.type, at) * *sum;
  }
  return acc;
}

static void quantized_matmul(const QuantWeights& w, const QuantRows& x, const int* rows, const int* to, int M,
                             int n0, int n1, const Epilogue& e, void* out, Type type) {
  for (int m = 0; m < M; m++)
    for (int n = n0; n < n1; n++) {
      float acc[W] = {dot(w, x, rows[m], n)};
      finish(acc, W, e, to + m, 1, w.N, n, 1, out, type);
    }
}

void fill_quantized(Kernels& k) {
  k.quantized_matmul = quantized_matmul;
  k.panel = 16;
}

}  // namespace toast::TOAST_VARIANT
