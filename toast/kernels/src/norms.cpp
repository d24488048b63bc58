// rms_norm, layer_norm and softmax over rows: sums in float32, one rounding at the end.
// A row's sums run in an order that its length alone decides; knows nothing of threads or arrays.
#include "lanes.h"

namespace toast::TOAST_VARIANT {

template <class T>
static void rms_norm_rows(const T* x, const T* w, T* y, size_t rows, size_t n, float eps) {
  for (; rows--; x += n, y += n) {
    float squares = row_sum(x, n, [](vf v) { return v * v; });
    vf scale = set1(1.f / sqrtf(squares / (float)n + eps));
    vectors(n, [&](size_t i, int m) {
      vf v = load_some(x + i, m) * scale;
      store_some(y + i, w ? v * load_some(w + i, m) : v, m);
    });
  }
}

template <class T>
static void layer_norm_rows(const T* x, const T* w, const T* b, T* y, size_t rows, size_t n, float eps) {
  for (; rows--; x += n, y += n) {
    vf mean = set1(row_sum(x, n, [](vf v) { return v; }) / (float)n);
    float squares = row_sum(x, n, [&](vf v) { return (v - mean) * (v - mean); });
    vf scale = set1(1.f / sqrtf(squares / (float)n + eps));
    vectors(n, [&](size_t i, int m) {
      vf v = (load_some(x + i, m) - mean) * scale;
      if (w) v = v * load_some(w + i, m);
      if (b) v = v + load_some(b + i, m);
      store_some(y + i, v, m);
    });
  }
}

template <class T>
static float row_max(const T* x, size_t n) {
  float t[W];
  store(t, set1(-INFINITY));
  size_t whole = n - n % W;
  if (int m = (int)(n - whole)) store(t, load(x + whole, m), m);
  vf top = load(t);
  for (size_t i = 0; i < whole; i += W) top = vmax(load(x + i), top);
  return largest(top);
}

template <class T>
static void softmax_rows(const T* x, T* y, size_t rows, size_t n) {
  for (; rows--; x += n, y += n) {
    vf top = set1(row_max(x, n));
    vf scale = set1(1.f / row_sum(x, n, [&](vf v) { return exp_below(v - top); }));
    vectors(n, [&](size_t i, int m) { store_some(y + i, exp_below(load_some(x + i, m) - top) * scale, m); });
  }
}

static void rms_norm(const void* x, void* y, Type type, size_t rows, size_t n, const Norm& norm) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    rms_norm_rows((const T*)x, (const T*)norm.weight, (T*)y, rows, n, norm.eps);
  });
}

static void layer_norm(const void* x, void* y, Type type, size_t rows, size_t n, const Norm& norm) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    layer_norm_rows((const T*)x, (const T*)norm.weight, (const T*)norm.bias, (T*)y, rows, n, norm.eps);
  });
}

static void softmax(const void* x, void* y, Type type, size_t rows, size_t n) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    softmax_rows((const T*)x, (T*)y, rows, n);
  });
}

void fill_norms(Kernels& k) {
  k.rms_norm = rms_norm;
  k.layer_norm = layer_norm;
  k.softmax = softmax;
}

}  // namespace toast::TOAST_VARIANT
