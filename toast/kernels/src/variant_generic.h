// C++ without intrinsics: the specification of the other variants, and what an unknown CPU runs.
// Lanes are a loop; a compiler may vectorise it for the baseline CPU.
#pragma once

namespace toast::TOAST_VARIANT {

// ---- floats ----

constexpr int REGISTERS = 16;  // of vectors

constexpr int W = 8;
struct vf {
  float v[W];
};

#define LANES(expr)                            \
  vf r;                                        \
  for (int i = 0; i < W; i++) r.v[i] = (expr); \
  return r

static inline float bits_to_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t float_to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

static inline float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 31) return bits_to_float(sign | 0x7f800000 | m << 13);
  if (e) return bits_to_float(sign | (e + 112) << 23 | m << 13);
  return bits_to_float(sign | float_to_bits((float)m * 0x1p-24f));
}

static inline uint16_t float_to_half(float f) {
  uint32_t u = float_to_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return sign | 0x7e00;
  if (a >= 0x477ff000) return sign | 0x7c00;
  if (a < 0x38800000) return sign | (uint16_t)(float_to_bits(bits_to_float(a) + 0.5f) - 0x3f000000);
  return sign | (uint16_t)((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

static inline uint16_t float_to_bfloat(float f) {
  uint32_t u = float_to_bits(f);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static inline float one(float x) { return x; }
static inline float one(f16 x) { return half_to_float(x.bits); }
static inline float one(bf16 x) { return bits_to_float((uint32_t)x.bits << 16); }
static inline void put(float* p, float x) { *p = x; }
static inline void put(f16* p, float x) { p->bits = float_to_half(x); }
static inline void put(bf16* p, float x) { p->bits = float_to_bfloat(x); }

static inline vf set1(float x) { LANES(x); }
// An element at any address: weights lie where their file has them.
template <class T>
static inline T at(const T* p, int i) {
  T x;
  memcpy(&x, (const char*)p + i * sizeof(T), sizeof(T));
  return x;
}
template <class T>
static inline vf load(const T* p) {
  LANES(one(at(p, i)));
}
// n < W elements, the rest zero.
template <class T>
static inline vf load(const T* p, int n) {
  LANES(i < n ? one(at(p, i)) : 0.f);
}
template <class T>
static inline void store(T* p, vf x) {
  for (int i = 0; i < W; i++) put(p + i, x.v[i]);
}
template <class T>
static inline void store(T* p, vf x, int n) {
  for (int i = 0; i < n; i++) put(p + i, x.v[i]);
}

static inline vf operator+(vf a, vf b) { LANES(a.v[i] + b.v[i]); }
static inline vf operator-(vf a, vf b) { LANES(a.v[i] - b.v[i]); }
static inline vf operator*(vf a, vf b) { LANES(a.v[i] * b.v[i]); }
static inline vf operator/(vf a, vf b) { LANES(a.v[i] / b.v[i]); }
static inline vf fma(vf a, vf b, vf c) { LANES(a.v[i] * b.v[i] + c.v[i]); }
// As the x86 instructions: the second operand when either is NaN.
static inline vf vmax(vf a, vf b) { LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline vf vmin(vf a, vf b) { LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
// Of a, b >= 0, NaN the largest of all: as whole numbers their bits are in order.
static inline vf vmax_nan(vf a, vf b) { LANES(float_to_bits(a.v[i]) > float_to_bits(b.v[i]) ? a.v[i] : b.v[i]); }
static inline vf sqrt(vf a) { LANES(sqrtf(a.v[i])); }
static inline vf abs(vf a) { LANES(fabsf(a.v[i])); }
static inline vf round(vf a) { LANES(nearbyintf(a.v[i])); }  // ties to even
// x * 2^n for a whole n that leaves x's exponent in range; with the least one x = 1/2 becomes 0.
static inline vf add_exponent(vf x, vf n) {
  LANES(bits_to_float(float_to_bits(x.v[i]) + ((uint32_t)(int)n.v[i] << 23)));
}
// Lanes where a > b take x, the others y.
static inline vf where_gt(vf a, vf b, vf x, vf y) { LANES(a.v[i] > b.v[i] ? x.v[i] : y.v[i]); }

static inline float sum(vf a) {
  return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
static inline float largest(vf a) {
  float m = a.v[0];
  for (int i = 1; i < W; i++) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
#undef LANES

static inline vf zip(vf a, vf b, int from) {
  vf r;
  for (int i = 0; i < W / 2; i++) r.v[2 * i] = a.v[from + i], r.v[2 * i + 1] = b.v[from + i];
  return r;
}
static inline vf zip_lo(vf a, vf b) { return zip(a, b, 0); }
static inline vf zip_hi(vf a, vf b) { return zip(a, b, W / 2); }

// ---- integers: what quantize.cpp needs; the products are in quantized_generic.cpp ----

// The largest sum of |x| of one sign over the even (k % 4 < 2) or over the odd pairs of neighbours of x[32].
// In one order, so that all variants agree: k + 16, + 8, + 4, + 1.
static inline float larger_side(const vf* x) {
  float sums[4], sizes[4];
  auto fold = [&](int k, auto f) {
    auto at = [&](int k) { return f(x[k / W].v[k % W]); };
    return (at(k) + at(k + 16)) + (at(k + 8) + at(k + 24));
  };
  auto same = [](float v) { return v; };
  for (int k = 0; k < 4; k++) {
    sums[k] = fold(k, same) + fold(k + 4, same);
    sizes[k] = fold(k, fabsf) + fold(k + 4, fabsf);
  }
  float even = fabsf(sums[0] + sums[1]) + (sizes[0] + sizes[1]), odd = fabsf(sums[2] + sums[3]) + (sizes[2] + sizes[3]);
  return (even > odd ? even : odd) * 0.5f;
}

// x[32] as bytes p[32], rounded half to even, in the order for `bits`; their sum. |x| < 127.5.
static inline int to_int8(const vf* x, int bits, int8_t* p) {
  int sum = 0;
  for (int k = 0; k < 32; k++) {
    int q = (int)nearbyintf(x[k / W].v[k % W]);
    p[order_of(k, bits)] = q;
    sum += q;
  }
  return sum;
}

}  // namespace toast::TOAST_VARIANT
