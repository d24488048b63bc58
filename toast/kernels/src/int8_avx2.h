// Integer lanes for the quantised kernels: W columns of one dword each, AVX2.
#pragma once

namespace toast::TOAST_VARIANT {

using vi = __m256i;
constexpr int PANEL = 2;

static inline vi load_vi(const uint8_t* p) { return _mm256_loadu_si256((const vi*)p); }
static inline void store_vi(uint8_t* p, vi x) { _mm256_storeu_si256((vi*)p, x); }
static inline vi low_nibbles(vi x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline vi high_nibbles(vi x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

template <class Rows>
static inline void load_columns(const Rows& row, size_t at, vi w[4]) {
  vi z[4];
  for (int i = 0; i < 4; i++)
    z[i] = _mm256_loadu2_m128i((const __m128i*)(row(4 + i) + at), (const __m128i*)(row(i) + at));
  vi a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpacklo_epi32(z[2], z[3]);
  vi c = _mm256_unpackhi_epi32(z[0], z[1]), d = _mm256_unpackhi_epi32(z[2], z[3]);
  w[0] = _mm256_unpacklo_epi64(a, b);
  w[1] = _mm256_unpackhi_epi64(a, b);
  w[2] = _mm256_unpacklo_epi64(c, d);
  w[3] = _mm256_unpackhi_epi64(c, d);
}

static inline vf lanes(vi x, int half, f16) {
  x = half ? _mm256_srli_epi32(x, 16) : _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
  return widen(_mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)), f16{});
}
static inline vf lanes(vi x, int half, bf16) {
  return _mm256_castsi256_ps(half ? _mm256_and_si256(x, _mm256_set1_epi32(0xffff0000)) : _mm256_slli_epi32(x, 16));
}
static inline vf lanes(vi x, int, float) { return _mm256_castsi256_ps(x); }

template <int BITS>
struct Dot;

// q <= 15: eight products of pairs, 32 k in all, fit in 16 bits (8 * 2 * 15 * 127 < 32768).
template <>
struct Dot<4> {
  vi short_ = _mm256_setzero_si256();
  void add(vi w, const int8_t* x) {
    int four;
    memcpy(&four, x, 4);
    short_ = _mm256_add_epi16(short_, _mm256_maddubs_epi16(w, _mm256_set1_epi32(four)));
  }
  vf total() const { return _mm256_cvtepi32_ps(_mm256_madd_epi16(short_, _mm256_set1_epi16(1))); }
};

// q <= 255 would saturate there: widen both sides to 16 bits.
template <>
struct Dot<8> {
  vi low_ = _mm256_setzero_si256(), high_ = _mm256_setzero_si256();  // two partial sums a column
  void add(vi w, const int8_t* x) {
    int four;
    memcpy(&four, x, 4);
    vi wide = _mm256_cvtepi8_epi16(_mm_set1_epi32(four)), zero = _mm256_setzero_si256();
    low_ = _mm256_add_epi32(low_, _mm256_madd_epi16(_mm256_unpacklo_epi8(w, zero), wide));
    high_ = _mm256_add_epi32(high_, _mm256_madd_epi16(_mm256_unpackhi_epi8(w, zero), wide));
  }
  vf total() const { return _mm256_cvtepi32_ps(_mm256_hadd_epi32(low_, high_)); }
};

static inline void store_int8(int8_t* p, vf x) {
  vi q = _mm256_cvtps_epi32(x);
  __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(h, h));
}

}  // namespace toast::TOAST_VARIANT
