// vf as one 512-bit register: AVX-512 F/BW/VL/DQ. Operations as in vec_generic.h.
#pragma once
#include <immintrin.h>

namespace toast::TOAST_VARIANT {

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

}  // namespace toast::TOAST_VARIANT
