// What quantize.cpp needs of integers, in plain C++. The products are in quantized_generic.cpp.
#pragma once

namespace toast::TOAST_VARIANT {

static inline void store_int8(int8_t* p, vf x) {
  for (int i = 0; i < W; i++) p[i] = (int8_t)x.v[i];
}

}  // namespace toast::TOAST_VARIANT
