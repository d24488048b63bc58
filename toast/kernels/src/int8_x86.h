// What AVX2 and AVX-512 have in common.
#pragma once
#include <immintrin.h>

namespace toast::TOAST_VARIANT {

// all[32] to p in the order for `bits`.
static inline Sums put_bytes(__m256i all, int bits, int8_t* p) {
  __m256i ones = _mm256_set1_epi8(1);
  __m256i q = _mm256_maddubs_epi16(ones, all), sizes = _mm256_maddubs_epi16(_mm256_abs_epi8(all), ones);
  __m256i both = _mm256_add_epi16(_mm256_unpacklo_epi64(q, sizes), _mm256_unpackhi_epi64(q, sizes));
  __m128i s = _mm_add_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  s = _mm_add_epi16(s, _mm_srli_epi64(s, 32));
  uint32_t sums = _mm_cvtsi128_si32(s), larger = _mm_extract_epi32(s, 2);
  if (bits == 4) all = _mm256_shuffle_epi8(all, _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)PLACES)));
  _mm256_storeu_si256((__m256i*)p, all);
  int a = larger & 0xffff, b = larger >> 16;
  return {(int16_t)sums, (int16_t)(sums >> 16), a > b ? a : b};
}

}  // namespace toast::TOAST_VARIANT
