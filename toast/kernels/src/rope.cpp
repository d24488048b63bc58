// Rotary position embedding (RoFormer, arXiv 2104.09864): the angles of a position, and heads rotated by them.
// Knows nothing of threads or arrays.
#include "lanes.h"

namespace toast::TOAST_VARIANT {

// cos x and sin x to 2e-7 while |x| < 1e6: x = n pi/2 + r with pi/2 in four floats (Cody and Waite; three of
// them short, so that n times them is exact without a true fma too), minimax polynomials in r
// (tests/bench/minimax.py), and the quadrant n mod 4
// as q in {-2, -1, 0, 1, 2}.
static inline void cos_sin(vf x, vf& cosine, vf& sine) {
  vf n = round(x * set1(0.636619772367581f));
  vf r = fma(n, set1(-1.5625f), x);
  r = fma(n, set1(-0.00830078125f), r);
  r = fma(n, set1(4.4405460357666016e-06f), r);
  r = fma(n, set1(1.3909067675399456e-08f), r);
  vf r2 = r * r;
  vf s = fma(set1(-1.9488723773974925e-4f), r2, set1(8.331923745572567e-3f));
  s = fma(fma(s, r2, set1(-1.6666649281978607e-1f)), r2 * r, r);
  vf c = fma(set1(2.4431185011053458e-5f), r2, set1(-1.3887305976822972e-3f));
  c = fma(fma(c, r2, set1(4.166664555668831e-2f)), r2 * r2, fma(r2, set1(-0.5f), set1(1)));

  vf q = fma(round(n * set1(0.25f)), set1(-4), n), half = set1(0.5f), plus = set1(1), minus = set1(-1);
  vf even = abs(abs(q) - plus);  // 1 for q = 0 and 2, 0 for q = 1
  vf back = where_gt(abs(q), set1(1.5f), minus, plus);
  cosine = where_gt(even, half, c, s) * where_gt(q, half, minus, back);
  sine = where_gt(even, half, s, c) * where_gt(minus * half, q, minus, back);
}

static void rope_angles(float position, const float* inv_freqs, float* cosine, float* sine, size_t half) {
  vectors(half, [&](size_t i, int m) {
    vf c, s;
    cos_sin(set1(position) * load_some(inv_freqs + i, m), c, s);
    store_some(cosine + i, c, m);
    store_some(sine + i, s, m);
  });
}

// Pairs (x[i], x[half + i]).
template <class T>
static void rotate_halves(const T* x, T* y, const float* cosine, const float* sine, size_t half) {
  vectors(half, [&](size_t i, int m) {
    vf a = load_some(x + i, m), b = load_some(x + half + i, m);
    vf c = load_some(cosine + i, m), s = load_some(sine + i, m);
    store_some(y + i, a * c - b * s, m);
    store_some(y + half + i, a * s + b * c, m);
  });
}

// Pairs (x[2i], x[2i + 1]).
template <class T>
static void rotate_pairs(const T* x, T* y, const float* cosine, const float* sine, size_t half) {
  vectors(half, [&](size_t i, int m) {
    int lo = 2 * m < W ? 2 * m : W, hi = 2 * m - lo;
    float t[2 * W] = {};
    store(t, load_some(x + 2 * i, lo));
    if (hi) store(t + W, load_some(x + 2 * i + W, hi));
    for (int j = 0; j < m; j++) {
      float a = t[2 * j], b = t[2 * j + 1], c = cosine[i + j], s = sine[i + j];
      t[2 * j] = a * c - b * s;
      t[2 * j + 1] = a * s + b * c;
    }
    store_some(y + 2 * i, load(t), lo);
    if (hi) store_some(y + 2 * i + W, load(t + W), hi);
  });
}

static void rope(const void* x, void* y, Type type, size_t dim, const Angles& angles) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    auto rotate = angles.traditional ? rotate_pairs<T> : rotate_halves<T>;
    rotate((const T*)x, (T*)y, angles.cosine, angles.sine, angles.dims / 2);
    memcpy((T*)y + angles.dims, (const T*)x + angles.dims, (dim - angles.dims) * sizeof(T));
  });
}

void fill_rope(Kernels& k) {
  k.rope_angles = rope_angles;
  k.rope = rope;
}

}  // namespace toast::TOAST_VARIANT
