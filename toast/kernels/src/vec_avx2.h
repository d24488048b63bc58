// vf as one 256-bit register: AVX2, FMA, F16C. Operations as in vec_generic.h.
#pragma once
#include <immintrin.h>

namespace toast::TOAST_VARIANT {

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

}  // namespace toast::TOAST_VARIANT
