// Integer lanes for the quantised kernels: W columns of one dword each, NEON with dot product.
#pragma once

namespace toast::TOAST_VARIANT {

using vi = uint8x16_t;
constexpr int PANEL = 2;
constexpr bool SMALLER = false;  // whether codes of 7 bits are worth a path of their own

static inline vi load_vi(const uint8_t* p) { return vld1q_u8(p); }
static inline void store_vi(uint8_t* p, vi x) { vst1q_u8(p, x); }
static inline vi low_nibbles(vi x) { return vandq_u8(x, vdupq_n_u8(15)); }
static inline vi high_nibbles(vi x) { return vshrq_n_u8(x, 4); }
static inline bool any_over_127(vi x) { return vmaxvq_u8(x) > 127; }

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

static inline int8x16_t four(const int8_t* x) {
  int32_t v;
  memcpy(&v, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

// Exact sums over 32 k of (w[k] - TAKEN) x[k] for W columns, 4 k at a time: w unsigned, x signed bytes.
template <int BITS>
struct Dot;

template <>
struct Dot<4> {
  static constexpr int TAKEN = 0;
  int32x4_t total_ = vdupq_n_s32(0);
  void add(vi w, const int8_t* x) { total_ = vdotq_s32(total_, vreinterpretq_s8_u8(w), four(x)); }
  vf total() const { return vcvtq_f32_s32(total_); }
};

// The instruction is signed times signed: sum (q - 128) x.
template <>
struct Dot<8> {
  static constexpr int TAKEN = 128;
  int32x4_t total_ = vdupq_n_s32(0);
  void add(vi w, const int8_t* x) {
    total_ = vdotq_s32(total_, vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128))), four(x));
  }
  vf total() const { return vcvtq_f32_s32(total_); }
};

static inline void store_int8(int8_t* p, vf x) {
  int16x4_t h = vmovn_s32(vcvtnq_s32_f32(x));
  int8x8_t b = vmovn_s16(vcombine_s16(h, h));
  memcpy(p, &b, 4);
}

}  // namespace toast::TOAST_VARIANT
