// AVX2, FMA, F16C: all that this variant is. Operations on vf as in variant_generic.h.
#pragma once
#include "x86.h"

namespace toast::TOAST_VARIANT {

// ---- floats: vf is one 256-bit register ----

constexpr int REGISTERS = 16;  // of vectors

constexpr int W = 8;
using vf = __m256;

static inline vf set1(float x) { return _mm256_set1_ps(x); }
static inline __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf widen(__m128i h, f16) { return _mm256_cvtph_ps(h); }
static inline vf widen(__m128i h, bf16) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
static inline __m128i narrow(vf x, f16) { return _mm256_cvtps_ph(x, 0); }
static inline __m128i narrow(vf x, bf16) {
  __m256i u = _mm256_castps_si256(x);
  __m256i even = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff))), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

static inline vf load(const float* p) { return _mm256_loadu_ps(p); }
static inline vf load(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
static inline void store(float* p, vf x) { _mm256_storeu_ps(p, x); }
static inline void store(float* p, vf x, int n) { _mm256_maskstore_ps(p, first(n), x); }
template <class T>
static inline vf load(const T* p) {
  return widen(_mm_loadu_si128((const __m128i*)p), T{});
}
template <class T>
static inline vf load(const T* p, int n) {
  __m128i h = _mm_setzero_si128();
  memcpy(&h, p, (size_t)n * 2);
  return widen(h, T{});
}
template <class T>
static inline void store(T* p, vf x) {
  _mm_storeu_si128((__m128i*)p, narrow(x, T{}));
}
template <class T>
static inline void store(T* p, vf x, int n) {
  __m128i h = narrow(x, T{});
  memcpy(p, &h, (size_t)n * 2);
}

static inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vmax_nan(vf a, vf b) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
static inline vf sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf abs(vf a) { return _mm256_andnot_ps(set1(-0.f), a); }
static inline vf round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf add_exponent(vf x, vf n) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
static inline vf where_gt(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
static inline float sum(vf a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float largest(vf a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline vf zip_lo(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vf zip_hi(vf a, vf b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

// ---- integers: W columns of one dword each ----

using vi = __m256i;
static inline vi load_vi(const uint8_t* p) { return _mm256_loadu_si256((const vi*)p); }
static inline void store_vi(uint8_t* p, vi x) { _mm256_storeu_si256((vi*)p, x); }
static inline vi low_nibbles(vi x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline vi high_nibbles(vi x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

// Codes of 6 bits, where all are, have a Dot of their own.
constexpr int SMALL = 6;
static inline bool small(vi all) { return _mm256_testz_si256(all, _mm256_set1_epi8((char)192)); }

template <class Rows>
static TOAST_INLINE void load_columns(const Rows& row, size_t at, vi w[4]) {
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

// Sums along k instead of across columns, for one row of activations: a row of weights is read a line at a time, and
// what is moved between lanes are sums. Groups at a time, and the bits of which it is done: 8 bits gain nothing.
#define TOAST_ALONG_K 2
constexpr bool is_along(int bits) { return bits == 4; }

// The activations of 2 groups [g], a half of the lanes each, that meet the low and the high codes of weights. q: their
// bytes; the group that is not there is 0.
template <int BITS>
static TOAST_INLINE void load_activations(const int8_t* const q[2], vi x[2]) {
  vi apart = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  auto group = [=](const int8_t* p) {
    return p ? _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const vi*)p), apart) : _mm256_setzero_si256();
  };
  vi a = group(q[0]), b = group(q[1]);
  x[0] = _mm256_permute2x128_si256(a, b, 0x20);
  x[1] = _mm256_permute2x128_si256(a, b, 0x31);
}

// Of 2 groups [g] of a row at p, 8 sums of 16 bits each, that together are the sum of the group: 4 products in each.
// count: groups that are there.
template <int BITS>
static TOAST_INLINE vi dot_along(const uint8_t* p, int count, const vi x[2]) {
  vi w = count == 2 ? _mm256_loadu_si256((const vi*)p) : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i*)p));
  return _mm256_add_epi16(_mm256_maddubs_epi16(low_nibbles(w), x[0]), _mm256_maddubs_epi16(high_nibbles(w), x[1]));
}

// What dot_along() gave for W rows to the sums of W columns, for each of 2 groups, as a Dot has them.
template <class F>
static TOAST_INLINE void sum_along(F of_row, vi sums[2]) {
  vi z[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    vi v[4] = {of_row(4 * i), of_row(4 * i + 1), of_row(4 * i + 2), of_row(4 * i + 3)};
    vi a = _mm256_add_epi16(_mm256_unpacklo_epi16(v[0], v[1]), _mm256_unpackhi_epi16(v[0], v[1]));
    vi b = _mm256_add_epi16(_mm256_unpacklo_epi16(v[2], v[3]), _mm256_unpackhi_epi16(v[2], v[3]));
    z[i] = _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  }
  // 16 products in each of 16 bits, as in Dot<4>; times() adds the two of a pair
  vi low = _mm256_unpacklo_epi64(z[0], z[1]), high = _mm256_unpackhi_epi64(z[0], z[1]);
  vi a = _mm256_unpacklo_epi16(low, high), b = _mm256_unpackhi_epi16(low, high);
  sums[0] = _mm256_permute2x128_si256(a, b, 0x20);
  sums[1] = _mm256_permute2x128_si256(a, b, 0x31);
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

// w <= 15: eight products of pairs fit in 16 bits (8 * 2 * 15 * 127 < 32768); the two of a lane are 32 k.
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
template <>
struct Dot<5> : Dot<4> {};
template <>
struct Dot<3> : Dot<4> {};
template <>
struct Dot<2> : Dot<4> {};

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
