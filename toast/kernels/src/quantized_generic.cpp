// The specification of quantized.cpp: the same sums in the same order, one column at a time.
#include "epilogue.h"
#include "weights.h"

namespace toast::TOAST_VARIANT {

// One element in the row's units, in chunks of k: the sum over groups of bias * (sum of x), over 64s, or groups of 32,
// of scale * (the sum over their 32s of x's scale * (sum of code q)), and over the outliers of x * scale * code.
static float dot(const Column& w, const QuantRows& x, int row) {
  size_t first = (size_t)row * (x.K / ACTIVATION_GROUP);
  const Block* block = x.blocks + first;
  const float* sum = x.sum + (size_t)row * (x.K / x.group);
  const Outlier *outlier = x.outliers + first, *last = outlier + (x.count[row] > 0 ? x.count[row] : 0);
  float acc = 0;
  for (int from = 0; from < x.K; from += tuning::CHUNK) {
    int end = from + tuning::CHUNK < x.K ? from + tuning::CHUNK : x.K;
    for (int k = from; k < end; k += x.group) acc += w.bias(k) * *sum++;
    for (int k = from, span = x.group < SPAN ? x.group : SPAN; k < end; k += span) {
      int total = 0;
      for (int i = k; i < k + span; i += ACTIVATION_GROUP, block++) {
        int dot = 0;
        for (int j = 0; j < ACTIVATION_GROUP; j++) dot += w.code(i + j) * block->q[order_of(j, w.w.bits)];
        total += dot * block->scale[0];
      }
      acc += (float)total * w.scale(k);
    }
    for (; outlier < last && outlier->k < end; outlier++)
      acc += (float)w.code(outlier->k) * (outlier->x * w.scale(outlier->k));
  }
  return acc;
}

static void quantized_matmul(const QuantTask& t, char*) {
  for (int m = 0; m < t.M; m++)
    for (int n = t.n0; n < t.n1; n++) {
      float acc[W] = {dot({t.w, (size_t)n}, t.x, t.rows[m])};
      finish({acc, W, t.x.unit + t.rows[m], t.to + m, 1, t.w.N, n, 1}, t.out);
    }
}

void fill_quantized(Kernels& k) {
  k.quantized_matmul = quantized_matmul;
  k.quantized_scratch = [](const QuantWeights&, int) { return (size_t)0; };
  k.unpacked_bytes = [](const QuantWeights&) { return (size_t)0; };
  k.unpack = [](const QuantWeights&, int, int, void*) {};
  k.quantized_panel = 16;
}

}  // namespace toast::TOAST_VARIANT
