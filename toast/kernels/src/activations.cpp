// gelu (exact and tanh), silu, the logistic function, tanh, squared ReLU, and each of them times a second input (GeGLU,
// SwiGLU); sums. Element by element in float32; knows nothing of threads or arrays.
#include "activation.h"
#include "lanes.h"

namespace toast::TOAST_VARIANT {

template <class F, class T>
static void run(const T* x, const T* up, T* y, size_t n) {
  vectors(n, [&](size_t i, int m) {
    vf v = F::of(load_some(x + i, m));
    store_some(y + i, up ? v * load_some(up + i, m) : v, m);
  });
}

static void activate(Activation f, const void* x, const void* up, void* y, Type type, size_t n) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    auto go = f == Activation::gelu        ? run<Gelu, T>
              : f == Activation::gelu_tanh ? run<GeluTanh, T>
              : f == Activation::sigmoid   ? run<Sigmoid, T>
              : f == Activation::tanh      ? run<Tanh, T>
              : f == Activation::relu2     ? run<Relu2, T>
              : f == Activation::none      ? run<Itself, T>
                                           : run<Silu, T>;
    go((const T*)x, (const T*)up, (T*)y, n);
  });
}

static void add(const void* x, const void* y, void* sum, Type type, size_t n) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    vectors(n, [&](size_t i, int m) {
      store_some((T*)sum + i, load_some((const T*)x + i, m) + load_some((const T*)y + i, m), m);
    });
  });
}

// The first n lanes of x, rounded to T.
template <class T>
static inline vf rounded(vf x, int n) {
  T t[W];
  store_some(t, x, n);
  return load_some(t, n);
}
template <>
inline vf rounded<float>(vf x, int) {
  return x;
}

static void weighted_sum(const void* x, const float* weights, void* y, Type type, size_t k, size_t n) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    vectors(n, [&](size_t i, int m) {
      vf sum = set1(0);
      for (size_t j = 0; j < k; j++)
        sum = sum + rounded<T>(load_some((const T*)x + j * n + i, m) * set1(weights[j]), m);
      store_some((T*)y + i, sum, m);
    });
  });
}

void fill_activations(Kernels& k) {
  k.activate = activate;
  k.add = add;
  k.weighted_sum = weighted_sum;
}

}  // namespace toast::TOAST_VARIANT
