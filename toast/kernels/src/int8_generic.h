// What quantize.cpp needs of integers, in plain C++. The products are in quantized_generic.cpp.
#pragma once

namespace toast::TOAST_VARIANT {

using q8 = int8_t;  // an activation that meets 8-bit weights

static inline void store_q(int8_t* p, vf x) {
  for (int i = 0; i < W; i++) p[i] = (int8_t)x.v[i];
}

}  // namespace toast::TOAST_VARIANT
