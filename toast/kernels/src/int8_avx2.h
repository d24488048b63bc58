// Integer lanes for the quantised kernels: W columns of one dword each, AVX2.
#pragma once
#include "int8_x86.h"

namespace toast::TOAST_VARIANT {

using vi = __m256i;
constexpr int PANEL = 2;

static inline vi load_vi(const uint8_t* p) { return _mm256_loadu_si256((const vi*)p); }
static inline void store_vi(uint8_t* p, vi x) { _mm256_storeu_si256((vi*)p, x); }
static inline vi low_nibbles(vi x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline vi high_nibbles(vi x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

// Codes of 6 bits, where all are, have a Dot of their own.
constexpr int SMALL = 6;
static inline bool small(vi all) { return _mm256_testz_si256(all, _mm256_set1_epi8((char)192)); }

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

// Byte i of each lane as a float.
static inline vf byte(vi x, int i) {
  x = _mm256_srl_epi32(x, _mm_cvtsi32_si128(8 * i));
  return _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(255)));
}

static inline vi every(int dword) { return _mm256_set1_epi32(dword); }

static inline vf floats(vi x) { return _mm256_cvtepi32_ps(x); }

// Neighbours' sums of 16 bits as 32 bits.
static inline vi pairs(vi x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }

// Keeps a sum in a register: GCC 12 left one of eight on the stack, which halved the speed.
static inline void stay(vi& x) { asm("" : "+x"(x)); }

// Exact sums over 32 k of w[k] x[k] for W columns, 4 k a dword: w unsigned, x signed bytes; start() gets the sum of x.
// times() is the sum times the block's scales (two of 16 bits in a lane), and what came before.
using Total = vi;
template <int BITS>
struct Dot;

// w <= 15: eight products of pairs, 32 k in all, fit in 16 bits (8 * 2 * 15 * 127 < 32768).
template <>
struct Dot<4> {
  vi sum = _mm256_setzero_si256();
  void start(vi) {}
  void add(vi w, vi x) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    stay(sum);
  }
  vi times(vi scales) const { return _mm256_madd_epi16(sum, scales); }
  vi times(vi scales, vi before) const { return _mm256_add_epi32(times(scales), before); }
};

// w <= 63: MOST keeps the sums of 16 bits whole.
template <>
struct Dot<6> : Dot<4> {};

// w - 128 is at most 128 without its sign, which goes to x; 128 times the sum of x comes first.
template <>
struct Dot<8> {
  vi sum;
  void start(vi x) { sum = _mm256_slli_epi32(x, 7); }
  void add(vi w, vi x) {
    vi s = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    sum = _mm256_add_epi32(sum, pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(x, s))));
    stay(sum);
  }
  vi times(vi scales) const { return _mm256_mullo_epi32(sum, _mm256_srli_epi32(scales, 16)); }
  vi times(vi scales, vi before) const { return _mm256_add_epi32(times(scales), before); }
};

// The largest sum of |x| of one sign over the even (k % 4 < 2) or over the odd pairs of neighbours of x[32].
// In one order, so that all variants agree: k + 16, + 8, + 4, + 1.
static inline float larger_side(const vf* x) {
  return larger_side((x[0] + x[2]) + (x[1] + x[3]), (abs(x[0]) + abs(x[2])) + (abs(x[1]) + abs(x[3])));
}

// x[32] as bytes p[32], rounded half to even, in the order for `bits`; their sum. |x| < 127.5.
static inline int to_int8(const vf* x, int bits, int8_t* p) {
  vi q[4];
  for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(x[i]);
  vi all = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return put_bytes(_mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)), bits, p);
}

}  // namespace toast::TOAST_VARIANT
