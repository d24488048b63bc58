// What AVX2 and AVX-512 have in common.
#pragma once
#include <immintrin.h>

namespace toast::TOAST_VARIANT {

// all[32] to p in the order for `bits`; their sum.
static inline int put_bytes(__m256i all, int bits, int8_t* p) {
  __m256i sums = _mm256_sad_epu8(_mm256_xor_si256(all, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  if (bits == 4) all = _mm256_shuffle_epi8(all, _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)ORDER)));
  _mm256_storeu_si256((__m256i*)p, all);
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_unpackhi_epi64(s, s))) - 32 * 128;
}

// larger_side() from the sums of x and of |x| at k % 8.
static inline float larger_side(__m256 x, __m256 sizes) {
  auto fold = [](__m256 v) { return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); };
  __m128 s = _mm_hadd_ps(fold(x), fold(sizes));
  s = _mm_add_ps(_mm_andnot_ps(_mm_set1_ps(-0.f), s), _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s))) * 0.5f;
}

// ---- files: CRC-32 by carry-less products ----
#define TOAST_CRC_FOLDS
// `sum` moved over the message by as many bits as the pair of constants stands for, plus what is there.
static inline __m128i crc_fold(__m128i sum, __m128i by, __m128i there) {
  __m128i low = _mm_clmulepi64_si128(sum, by, 0x00), high = _mm_clmulepi64_si128(sum, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

}  // namespace toast::TOAST_VARIANT
