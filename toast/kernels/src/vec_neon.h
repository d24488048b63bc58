// vf as one 128-bit register: Armv8.2 NEON. Operations as in vec_generic.h.
#pragma once
#include <arm_neon.h>

namespace toast::TOAST_VARIANT {

constexpr int W = 4;
using vf = float32x4_t;

static inline vf set1(float x) { return vdupq_n_f32(x); }

static inline vf widen(uint16x4_t h, f16) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
static inline vf widen(uint16x4_t h, bf16) { return vreinterpretq_f32_u32(vshll_n_u16(h, 16)); }
static inline uint16x4_t narrow(vf x, f16) { return vreinterpret_u16_f16(vcvt_f16_f32(x)); }
static inline uint16x4_t narrow(vf x, bf16) {
  uint32x4_t u = vreinterpretq_u32_f32(x);
  uint32x4_t even = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  uint32x4_t r = vshrq_n_u32(vaddq_u32(u, vaddq_u32(even, vdupq_n_u32(0x7fff))), 16);
  return vmovn_u32(vbslq_u32(vceqq_f32(x, x), r, vdupq_n_u32(0x7fc0)));
}

static inline vf load(const float* p) { return vld1q_f32(p); }
static inline vf load(const float* p, int n) {
  vf x = set1(0);
  memcpy(&x, p, (size_t)n * 4);
  return x;
}
static inline void store(float* p, vf x) { vst1q_f32(p, x); }
static inline void store(float* p, vf x, int n) { memcpy(p, &x, (size_t)n * 4); }
template <class T>
static inline vf load(const T* p) {
  return widen(vld1_u16((const uint16_t*)p), T{});
}
template <class T>
static inline vf load(const T* p, int n) {
  uint16x4_t h = vdup_n_u16(0);
  memcpy(&h, p, (size_t)n * 2);
  return widen(h, T{});
}
template <class T>
static inline void store(T* p, vf x) {
  vst1_u16((uint16_t*)p, narrow(x, T{}));
}
template <class T>
static inline void store(T* p, vf x, int n) {
  uint16x4_t h = narrow(x, T{});
  memcpy(p, &h, (size_t)n * 2);
}

static inline vf fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vmax_nan(vf a, vf b) {
  return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}
static inline vf sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf abs(vf a) { return vabsq_f32(a); }
static inline vf round(vf a) { return vrndnq_f32(a); }
static inline vf add_exponent(vf x, vf n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(vcvtnq_s32_f32(n), 23)));
}
static inline vf where_gt(vf a, vf b, vf x, vf y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }
static inline float sum(vf a) { return vaddvq_f32(a); }
static inline float largest(vf a) { return vmaxvq_f32(a); }

}  // namespace toast::TOAST_VARIANT
