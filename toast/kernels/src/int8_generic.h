// What quantize.cpp needs of integers, in plain C++. The products are in quantized_generic.cpp.
#pragma once

namespace toast::TOAST_VARIANT {

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
    p[place(k, bits)] = q;
    sum += q;
  }
  return sum;
}

}  // namespace toast::TOAST_VARIANT
