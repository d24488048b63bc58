// The specification of quantized.cpp: the same sums in the same order, one column at a time.
#include "epilogue.h"
#include "int8.h"
#include "weights.h"

namespace toast::TOAST_VARIANT {

// One element, in chunks of k: the sum over the outliers of x * scale * code, over groups of bias * (sum of x), and over
// 32s of x's scale * weight's scale * (sum of code q).
static float dot(const Column& w, const QuantRows& x, int row) {
  size_t first = (size_t)row * (x.K / ACTIVATION_GROUP);
  const Block* block = x.blocks + first;
  const float* sum = x.sum + (size_t)row * (x.K / x.group);
  const Outlier *outlier = x.outliers + first, *last = outlier + (x.count[row] > 0 ? x.count[row] : 0);
  int mid = middle(w.w.bits);
  float acc = 0;
  for (int from = 0; from < x.K; from += CHUNK) {
    int end = from + CHUNK < x.K ? from + CHUNK : x.K;
    for (; outlier < last && outlier->k < end; outlier++) acc += (float)(w.code(outlier->k) - mid) * (outlier->x * w.scale(outlier->k));
    for (int k = from; k < end; k += x.group) acc += fmaf(mid, w.scale(k), w.bias(k)) * *sum++;
    for (int k = from; k < end; k += ACTIVATION_GROUP, block++) {
      float scales = block->scale * w.scale(k);
      int total = 0;
      for (int i = 0; i < ACTIVATION_GROUP; i++) total += (w.code(k + i) - mid) * block->q[place(i, w.w.bits)];
      acc += (float)total * scales;
    }
  }
  return acc;
}

static void quantized_matmul(const QuantWeights& w, const QuantRows& x, const int* rows, const int* to, int M,
                             int n0, int n1, const Epilogue& e, void* out, Type type) {
  for (int m = 0; m < M; m++)
    for (int n = n0; n < n1; n++) {
      float acc[W] = {dot({w, (size_t)n}, x, rows[m])};
      finish(acc, W, e, to + m, 1, w.N, n, 1, out, type);
    }
}

void fill_quantized(Kernels& k) {
  k.quantized_matmul = quantized_matmul;
  k.panel = 16;
}

}  // namespace toast::TOAST_VARIANT
