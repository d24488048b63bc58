// What quantize.cpp needs of integers, in plain C++. The products are in quantized_generic.cpp.
#pragma once

namespace toast::TOAST_VARIANT {

// x[32] as bytes p[32], rounded half to even, in the order for `bits`. |x| < 127.5.
static inline Sums to_int8(const vf* x, int bits, int8_t* p) {
  int sums[2] = {0}, sizes[2] = {0};
  for (int k = 0; k < 32; k++) {
    int q = (int)nearbyintf(x[k / W].v[k % W]);
    p[place(k, bits)] = q;
    sums[k / 2 % 2] += q;
    sizes[k / 2 % 2] += q < 0 ? -q : q;
  }
  return {sums[0], sums[1], sizes[0] > sizes[1] ? sizes[0] : sizes[1]};
}

}  // namespace toast::TOAST_VARIANT
