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

// Keeps a sum in a register: GCC 12 kept one of eight on the stack, which halved the speed.
static inline void stay(vi& x) { asm("" : "+x"(x)); }

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
    stay(short_);
  }
  vf total() const { return _mm256_cvtepi32_ps(_mm256_madd_epi16(short_, _mm256_set1_epi16(1))); }
};

// q <= 255 would saturate there: both sides as 16 bits, two k of each column at a time.
template <>
struct Dot<8> {
  vi total_ = _mm256_setzero_si256();
  void add(vi w, const int16_t* x) {
    int two;
    memcpy(&two, x, 4);
    total_ = _mm256_add_epi32(total_, _mm256_madd_epi16(w, _mm256_set1_epi32(two)));
    stay(total_);
  }
  vf total() const { return _mm256_cvtepi32_ps(total_); }
};

struct Pairs {
  static constexpr int K = 2;
  static inline vi load(const uint8_t* step, int j, int p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(step + (j * PANEL + p) * W * K)));
  }
  static inline void store(uint8_t* step, int j, int p, vi w) {
    const vi pairs = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                      0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    vi both = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(w, pairs), 0xd8);
    uint8_t* to = step + (2 * j * PANEL + p) * W * K;
    _mm_storeu_si128((__m128i*)to, _mm256_castsi256_si128(both));
    _mm_storeu_si128((__m128i*)(to + PANEL * W * K), _mm256_extracti128_si256(both, 1));
  }
};

using q8 = int16_t;  // an activation that meets 8-bit weights

// W whole floats in [-127, 127] as bytes, and as 16 bits.
static inline void store_q(int8_t* p, vf x) {
  vi q = _mm256_cvtps_epi32(x);
  __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(h, h));
}
static inline void store_q(int16_t* p, vf x) {
  vi q = _mm256_cvtps_epi32(x);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
}

}  // namespace toast::TOAST_VARIANT
