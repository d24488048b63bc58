// Dot products of int8 rows with a float query, in float32: memory is the limit, not arithmetic.
// Sixteen sums in every variant, so that a score has the same bits on every CPU.
#include "vec.h"

namespace toast::TOAST_VARIANT {

static void int8_scan(const int8_t* codes, const float* scales, const float* query, float* scores, size_t rows,
                      size_t n) {
  constexpr size_t lanes = 16;
  for (size_t r = 0; r < rows; r++, codes += n) {
    float sums[lanes] = {};
    size_t i = 0;
    for (; i + lanes <= n; i += lanes)
      for (size_t j = 0; j < lanes; j++) sums[j] += (float)codes[i + j] * query[i + j];
    for (size_t j = 0; i + j < n; j++) sums[j] += (float)codes[i + j] * query[i + j];
    for (size_t width = lanes / 2; width; width /= 2)
      for (size_t j = 0; j < width; j++) sums[j] += sums[j + width];
    float score = sums[0] * scales[r];
    scores[r] = isfinite(score) ? score : 0.f;
  }
}

void fill_scan(Kernels& k) { k.int8_scan = int8_scan; }

}  // namespace toast::TOAST_VARIANT
