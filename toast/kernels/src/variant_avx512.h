// AVX-512 F/BW/VL/DQ/VNNI: all that this variant is. Operations on vf as in variant_generic.h.
#pragma once
#include "x86.h"

namespace toast::TOAST_VARIANT {

// ---- floats: vf is one 512-bit register ----

constexpr int REGISTERS = 32;  // of vectors

constexpr int W = 16;
using vf = __m512;

static inline vf set1(float x) { return _mm512_set1_ps(x); }
static inline __mmask16 first(int n) { return (__mmask16)((1u << n) - 1); }

static inline vf widen(__m256i h, f16) { return _mm512_cvtph_ps(h); }
static inline vf widen(__m256i h, bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
static inline __m256i narrow(vf x, f16) { return _mm512_cvtps_ph(x, 0); }
static inline __m256i narrow(vf x, bf16) {
  __m512i u = _mm512_castps_si512(x);
  __m512i even = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc0)));
}

static inline vf load(const float* p) { return _mm512_loadu_ps(p); }
static inline vf load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
static inline void store(float* p, vf x) { _mm512_storeu_ps(p, x); }
static inline void store(float* p, vf x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
template <class T>
static inline vf load(const T* p) {
  return widen(_mm256_loadu_si256((const __m256i*)p), T{});
}
template <class T>
static inline vf load(const T* p, int n) {
  return widen(_mm256_maskz_loadu_epi16(first(n), p), T{});
}
template <class T>
static inline void store(T* p, vf x) {
  _mm256_storeu_si256((__m256i*)p, narrow(x, T{}));
}
template <class T>
static inline void store(T* p, vf x, int n) {
  _mm256_mask_storeu_epi16(p, first(n), narrow(x, T{}));
}

static inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vmax_nan(vf a, vf b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline vf sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf abs(vf a) { return _mm512_abs_ps(a); }
static inline vf round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf add_exponent(vf x, vf n) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
}
static inline vf where_gt(vf a, vf b, vf x, vf y) {
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
}
static inline float sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float largest(vf a) { return _mm512_reduce_max_ps(a); }

static inline vf zip_lo(vf a, vf b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
static inline vf zip_hi(vf a, vf b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// ---- integers: W columns of one dword each ----

using vi = __m512i;
static inline vi load_vi(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline void store_vi(uint8_t* p, vi x) { _mm512_storeu_si512(p, x); }
static inline vi low_nibbles(vi x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline vi high_nibbles(vi x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

constexpr int SMALL = 8;  // no way of their own for codes of fewer bits
static inline bool small(vi) { return false; }

// w[j] = dword j of the 16 bytes at row(c) + at, one lane per column c of W.
template <class Rows>
static TOAST_INLINE void load_columns(const Rows& row, size_t at, vi w[4]) {
  vi z[4];
  for (int i = 0; i < 4; i++) {
    vi q = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)(row(i) + at)));
    q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i*)(row(4 + i) + at)), 1);
    q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i*)(row(8 + i) + at)), 2);
    z[i] = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i*)(row(12 + i) + at)), 3);
  }
  vi a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
  vi c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  w[0] = _mm512_unpacklo_epi64(a, b);
  w[1] = _mm512_unpackhi_epi64(a, b);
  w[2] = _mm512_unpacklo_epi64(c, d);
  w[3] = _mm512_unpackhi_epi64(c, d);
}

// Sums along k instead of across columns, for one row of activations: a row of weights is read a line at a time, and
// nothing is moved between lanes before it is summed up. Groups at a time, and the bits of which it is done:
#define TOAST_ALONG_K 4
constexpr bool is_along(int bits) { return bits == 4 || bits == 8; }

// The activations of 4 groups [g], 4 lanes each, that meet the same byte of weights: with BITS 4 those of the low and
// of the high codes, with 8 of groups 0 and 1, 2 and 3. q: their bytes; the groups that are not there are 0.
template <int BITS>
static TOAST_INLINE void load_activations(const int8_t* const q[4], vi x[2]) {
  auto pair = [](const int8_t* a, const int8_t* b) {
    __m256i low = _mm256_loadu_si256((const __m256i*)a);
    __m256i high = b ? _mm256_loadu_si256((const __m256i*)b) : _mm256_setzero_si256();
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  };
  vi a = pair(q[0], q[1]), b = q[2] ? pair(q[2], q[3]) : _mm512_setzero_si512();
  if (BITS == 8) {
    x[0] = a, x[1] = b;
    return;
  }
  vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  x[0] = _mm512_permutex2var_epi32(a, even, b);
  x[1] = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
}

// Of 4 groups [g] of a row at p, 4 lanes each, that together are the sum of the group. count: groups that are there.
template <int BITS>
static TOAST_INLINE vi dot_along(const uint8_t* p, int count, const vi x[2]) {
  vi none = _mm512_setzero_si512();
  auto there = [=](int dwords, int at) {
    int n = count * BITS - at;  // of 4 bytes
    return n >= dwords ? _mm512_loadu_si512(p + 4 * at) : _mm512_maskz_loadu_epi32(first(n > 0 ? n : 0), p + 4 * at);
  };
  if (BITS == 4) {
    vi w = there(16, 0);
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(none, low_nibbles(w), x[0]), high_nibbles(w), x[1]);
  }
  vi a = _mm512_dpbusd_epi32(none, there(16, 0), x[0]), b = _mm512_dpbusd_epi32(none, there(16, 16), x[1]);
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// What dot_along() gave for W rows to the sums of W columns, for each of 4 groups.
template <class F>
static TOAST_INLINE void sum_along(F of_row, vi sums[4]) {
  vi z[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    vi v[4] = {of_row(4 * i), of_row(4 * i + 1), of_row(4 * i + 2), of_row(4 * i + 3)};
    vi a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    vi b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    z[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
  vi a = _mm512_shuffle_i32x4(z[0], z[1], 0x44), b = _mm512_shuffle_i32x4(z[2], z[3], 0x44);
  vi c = _mm512_shuffle_i32x4(z[0], z[1], 0xee), d = _mm512_shuffle_i32x4(z[2], z[3], 0xee);
  sums[0] = _mm512_shuffle_i32x4(a, b, 0x88);
  sums[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
  sums[2] = _mm512_shuffle_i32x4(c, d, 0x88);
  sums[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

// The low or high 16 bits of each lane as `T`, and a whole lane as a float.
static inline vf lanes(vi x, int half, f16) {
  return widen(_mm512_cvtepi32_epi16(half ? _mm512_srli_epi32(x, 16) : x), f16{});
}
static inline vf lanes(vi x, int half, bf16) {
  return _mm512_castsi512_ps(half ? _mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)) : _mm512_slli_epi32(x, 16));
}
static inline vf lanes(vi x, int, float) { return _mm512_castsi512_ps(x); }

// Byte i of each lane as a float.
static inline vf byte(vi x, int i) {
  x = _mm512_srl_epi32(x, _mm_cvtsi32_si128(8 * i));
  return _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(255)));
}

static inline vi every(int dword) { return _mm512_set1_epi32(dword); }

static inline vf floats(vi x) { return _mm512_cvtepi32_ps(x); }

// Exact sums over 32 k of w[k] x[k] for W columns, 4 k a dword: w unsigned, x signed bytes; start() gets the sum of x.
// times() is the sum times the block's scales (two of 16 bits in a lane), and what came before.
using Total = vi;
template <int BITS>
struct Dot {
  vi sum = _mm512_setzero_si512();
  void start(vi) {}
  void add(vi w, vi x) { sum = _mm512_dpbusd_epi32(sum, w, x); }
  vi times(vi scales) const { return _mm512_mullo_epi32(sum, _mm512_srli_epi32(scales, 16)); }
  vi times(vi scales, vi before) const { return _mm512_add_epi32(times(scales), before); }
};

// The largest sum of |x| of one sign over the even (k % 4 < 2) or over the odd pairs of neighbours of x[32].
// In one order, so that all variants agree: k + 16, + 8, + 4, + 1.
static inline float larger_side(const vf* x) {
  auto fold = [](vf v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); };
  return larger_side(fold(x[0] + x[1]), fold(abs(x[0]) + abs(x[1])));
}

// x[32] as bytes p[32], rounded half to even, in the order for `bits`; their sum. |x| < 127.5.
static inline int to_int8(const vf* x, int bits, int8_t* p) {
  __m128i a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x[0])), b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x[1]));
  return put_bytes(_mm256_set_m128i(b, a), bits, p);
}

}  // namespace toast::TOAST_VARIANT
