// What quantize.cpp needs of integers, in plain C++. The products are in quantized_generic.cpp.
#pragma once

namespace toast::TOAST_VARIANT {

// x[32] as bytes p[32], rounded half to even, in the order for `bits`; their sum. |x| < 127.5.
static inline int to_int8(const vf* x, int bits, int8_t* p) {
  int total = 0;
  for (int k = 0; k < 32; k++) {
    int q = (int)nearbyintf(x[k / W].v[k % W]);
    p[place(k, bits)] = q;
    total += q;
  }
  return total;
}

}  // namespace toast::TOAST_VARIANT
