// float32 <-> float16 and bfloat16, a whole run of elements at a time.
// Compiled once per variant; knows nothing of threads or arrays.
#include "vec.h"

namespace toast::TOAST_VARIANT {

template <class S, class D>
static void convert(const S* x, D* y, size_t n) {
  vectors(n, [&](size_t i, int m) {
    if (m == W)
      store(y + i, load(x + i));
    else
      store(y + i, load(x + i, m), m);
  });
}

static void to_f32(const void* x, Type type, float* y, size_t n) {
  if (type == Type::f16)
    convert((const f16*)x, y, n);
  else if (type == Type::bf16)
    convert((const bf16*)x, y, n);
  else
    memcpy(y, x, n * 4);
}

static void from_f32(const float* x, void* y, Type type, size_t n) {
  if (type == Type::f16)
    convert(x, (f16*)y, n);
  else if (type == Type::bf16)
    convert(x, (bf16*)y, n);
  else
    memcpy(y, x, n * 4);
}

void fill_convert(Kernels& k) {
  k.to_f32 = to_f32;
  k.from_f32 = from_f32;
}

}  // namespace toast::TOAST_VARIANT
