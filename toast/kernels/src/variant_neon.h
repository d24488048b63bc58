// Armv8.2 NEON with dot products: all that this variant is. Operations on vf as in variant_generic.h.
#pragma once
#include <arm_acle.h>
#include <arm_neon.h>

namespace toast::TOAST_VARIANT {

// ---- floats: vf is one 128-bit register ----

constexpr int REGISTERS = 32;  // of vectors

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

static inline vf zip_lo(vf a, vf b) { return vzip1q_f32(a, b); }
static inline vf zip_hi(vf a, vf b) { return vzip2q_f32(a, b); }

// ---- integers: W columns of one dword each ----

using vi = uint8x16_t;
static inline vi load_vi(const uint8_t* p) { return vld1q_u8(p); }
static inline void store_vi(uint8_t* p, vi x) { vst1q_u8(p, x); }
static inline vi low_nibbles(vi x) { return vandq_u8(x, vdupq_n_u8(15)); }
static inline vi high_nibbles(vi x) { return vshrq_n_u8(x, 4); }

constexpr int SMALL = 8;  // no way of their own for codes of fewer bits
static inline bool small(vi) { return false; }

template <class Rows>
static TOAST_INLINE void load_columns(const Rows& row, size_t at, vi w[4]) {
  uint32x4_t z[4];
  for (int i = 0; i < 4; i++) z[i] = vreinterpretq_u32_u8(vld1q_u8(row(i) + at));
  uint32x4x2_t a = vtrnq_u32(z[0], z[1]), b = vtrnq_u32(z[2], z[3]);
  for (int i = 0; i < 2; i++) {
    w[i] = vreinterpretq_u8_u32(vcombine_u32(vget_low_u32(a.val[i]), vget_low_u32(b.val[i])));
    w[2 + i] = vreinterpretq_u8_u32(vcombine_u32(vget_high_u32(a.val[i]), vget_high_u32(b.val[i])));
  }
}

template <class T>
static inline vf lanes(vi x, int half, T t) {
  uint32x4_t u = vreinterpretq_u32_u8(x);
  return widen(vmovn_u32(half ? vshrq_n_u32(u, 16) : u), t);
}
static inline vf lanes(vi x, int, float) { return vreinterpretq_f32_u8(x); }

// Byte i of each lane as a float.
static inline vf byte(vi x, int i) {
  uint32x4_t u = vshlq_u32(vreinterpretq_u32_u8(x), vdupq_n_s32(-8 * i));
  return vcvtq_f32_u32(vandq_u32(u, vdupq_n_u32(255)));
}

static inline vi every(int dword) { return vreinterpretq_u8_s32(vdupq_n_s32(dword)); }

static inline vf floats(int32x4_t x) { return vcvtq_f32_s32(x); }

// Exact sums over 32 k of w[k] x[k] for W columns, 4 k a dword: w unsigned, x signed bytes; start() gets the sum of x.
// times() is the sum times the block's scales (two of 16 bits in a lane), and what came before.
using Total = int32x4_t;
template <int BITS>
struct Dot;

template <>
struct Dot<4> {
  int32x4_t sum = vdupq_n_s32(0);
  void start(vi) {}
  void add(vi w, vi x) { sum = vdotq_s32(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x)); }
  int32x4_t times(vi scales) const { return vmulq_s32(sum, vshrq_n_s32(vreinterpretq_s32_u8(scales), 16)); }
  int32x4_t times(vi scales, int32x4_t before) const { return vaddq_s32(times(scales), before); }
};

template <>
struct Dot<6> : Dot<4> {};
template <>
struct Dot<5> : Dot<4> {};
template <>
struct Dot<3> : Dot<4> {};
template <>
struct Dot<2> : Dot<4> {};

// The instruction is signed times signed: sum (w - 128) x after 128 times the sum of x.
template <>
struct Dot<8> : Dot<4> {
  void start(vi x) { sum = vshlq_n_s32(vreinterpretq_s32_u8(x), 7); }
  void add(vi w, vi x) { Dot<4>::add(veorq_u8(w, vdupq_n_u8(128)), x); }
};

// The largest sum of |x| of one sign over the even (k % 4 < 2) or over the odd pairs of neighbours of x[32].
// In one order, so that all variants agree: k + 16, + 8, + 4, + 1.
static inline float larger_side(const vf* x) {
  auto fold = [&](auto f) {
    vf low = (f(x[0]) + f(x[4])) + (f(x[2]) + f(x[6])), high = (f(x[1]) + f(x[5])) + (f(x[3]) + f(x[7]));
    return low + high;
  };
  vf s = vpaddq_f32(fold([](vf v) { return v; }), fold([](vf v) { return abs(v); }));
  float32x2_t both = vadd_f32(vabs_f32(vget_low_f32(s)), vget_high_f32(s));
  return vmaxv_f32(both) * 0.5f;
}

// x[32] as bytes p[32], rounded half to even, in the order for `bits`; their sum. |x| < 127.5.
static inline int to_int8(const vf* x, int bits, int8_t* p) {
  uint8x16_t order = vld1q_u8(ORDER);
  int sum = 0;
  for (int half = 0; half < 2; half++, x += 4, p += 16) {
    int16x4_t h[4];
    for (int i = 0; i < 4; i++) h[i] = vmovn_s32(vcvtnq_s32_f32(x[i]));
    int8x16_t all = vcombine_s8(vmovn_s16(vcombine_s16(h[0], h[1])), vmovn_s16(vcombine_s16(h[2], h[3])));
    sum += vaddlvq_s8(all);
    vst1q_s8(p, bits == 4 ? vqtbl1q_s8(all, order) : all);
  }
  return sum;
}

// ---- files: CRC-32 of one more byte, or of eight ----

#define TOAST_CRC_INSTRUCTIONS
static inline uint32_t crc_of(uint32_t crc, uint8_t x) { return __crc32b(crc, x); }
static inline uint32_t crc_of(uint32_t crc, uint64_t x) { return __crc32d(crc, x); }

}  // namespace toast::TOAST_VARIANT
