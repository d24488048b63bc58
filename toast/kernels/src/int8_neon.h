// Integer lanes for the quantised kernels: W columns of one dword each, NEON with dot product.
#pragma once

namespace toast::TOAST_VARIANT {

using vi = uint8x16_t;
constexpr int PANEL = 2;

static inline vi load_vi(const uint8_t* p) { return vld1q_u8(p); }
static inline void store_vi(uint8_t* p, vi x) { vst1q_u8(p, x); }
static inline vi low_nibbles(vi x) { return vandq_u8(x, vdupq_n_u8(15)); }
static inline vi high_nibbles(vi x) { return vshrq_n_u8(x, 4); }

constexpr int SMALL = 8;  // no way of their own for codes of fewer bits
static inline bool small(vi) { return false; }

template <class Rows>
static inline void load_columns(const Rows& row, size_t at, vi w[4]) {
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
  uint8x16_t places = vld1q_u8(PLACES);
  int sum = 0;
  for (int half = 0; half < 2; half++, x += 4, p += 16) {
    int16x4_t h[4];
    for (int i = 0; i < 4; i++) h[i] = vmovn_s32(vcvtnq_s32_f32(x[i]));
    int8x16_t all = vcombine_s8(vmovn_s16(vcombine_s16(h[0], h[1])), vmovn_s16(vcombine_s16(h[2], h[3])));
    sum += vaddlvq_s8(all);
    vst1q_s8(p, bits == 4 ? vqtbl1q_s8(all, places) : all);
  }
  return sum;
}

}  // namespace toast::TOAST_VARIANT
