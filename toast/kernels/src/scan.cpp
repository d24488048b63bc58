// Dot products of int8 rows: with a float query, in float32, where memory is the limit, not arithmetic (sixteen sums in
// every variant, so that a score has the same bits on every CPU); and with each other, in whole numbers.
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

// A tile of R rows and C columns: the loop over n is one that compilers know (vpdpwssd, vpmaddwd, smlal).
template <int R, int C>
static void tile(const int16_t* a, const int16_t* b, size_t n, int32_t* out, size_t columns) {
  int32_t sums[R][C] = {};
  for (size_t i = 0; i < n; i++)
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) sums[r][c] += (int32_t)a[r * n + i] * b[c * n + i];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) out[r * columns + c] = sums[r][c];
}

static void int8_products(const int16_t* a, size_t rows, const int16_t* b, size_t columns, size_t n, int32_t* out) {
  size_t c = 0;
  for (; c + 4 <= columns; c += 4) {  // four columns stay in the first cache for all rows
    size_t r = 0;
    for (; r + 2 <= rows; r += 2) tile<2, 4>(a + r * n, b + c * n, n, out + r * columns + c, columns);
    if (r < rows) tile<1, 4>(a + r * n, b + c * n, n, out + r * columns + c, columns);
  }
  for (; c < columns; c++)
    for (size_t r = 0; r < rows; r++) tile<1, 1>(a + r * n, b + c * n, n, out + r * columns + c, columns);
}

void fill_scan(Kernels& k) {
  k.int8_scan = int8_scan;
  k.int8_products = int8_products;
}

}  // namespace toast::TOAST_VARIANT
