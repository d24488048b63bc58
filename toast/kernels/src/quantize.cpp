// Activations to 8 bits: every 32 of a row get the scale max|x| / 127 (round half to even), and one much larger than
// the others of its 32 stays a float, as in LLM.int8() (Dettmers et al., 2022) but element by element.
// Compiled once per variant; a row's bytes depend on that row alone, and are the same in every variant.
#include "epilogue.h"
#include "int8.h"
#include "weights.h"

namespace toast::TOAST_VARIANT {

constexpr int VECTORS = ACTIVATION_GROUP / W;

struct Group {
  vf v[VECTORS];
};

template <class T>
static inline Group load_group(const T* x) {
  Group g;
  for (int i = 0; i < VECTORS; i++) g.v[i] = load(x + i * W);
  return g;
}

// Of the squares of the largest of every 32 the harmonic mean is typical: outliers do not move it. A row has outliers when
// their arithmetic mean is over twice that. The largest of a 32 is one when its square is OUTLIER_RATIO typical squares above
// the next one's. Chosen so that no real layer loses more than 1% (docs/speed.md).
constexpr float OUTLIER_RATIO = 8;

struct Measures {
  bool finite;
  float top_square, typical;  // of the squares of the largest of every 32 the arithmetic and the harmonic mean
};

// Also the largest |x| of every 32, as its scale.
template <class T>
static Measures measure(const T* x, int K, Block* to) {
  constexpr int AHEAD = 1024;  // a row may lie in the third-level cache
  Group bad{};                 // NaN for ever once x is not finite: a chain for each, since each waits for its last
  float tops = 0, inverses = 0;
  int filled = 0;
  for (int k = 0; k < K; k += ACTIVATION_GROUP, to++) {
    Group g = load_group(x + k);
    vf top = set1(0);
    prefetch(x, (k + AHEAD) * sizeof(T), ACTIVATION_GROUP * sizeof(T));
    for (int i = 0; i < VECTORS; i++) {
      bad.v[i] = fma(g.v[i], set1(0), bad.v[i]);
      top = vmax(abs(g.v[i]), top);
    }
    float most = largest(top), square = most * most;
    to->scale = most;
    if (!(square > 1e-30f)) continue;
    tops += square;
    inverses += 1 / square;
    filled++;
  }
  for (int i = 1; i < VECTORS; i++) bad.v[0] = bad.v[0] + bad.v[i];
  return {sum(bad.v[0]) == 0, tops / filled, filled / inverses};
}

struct Found {
  int at;         // -1: no outlier
  float x, most;  // the outlier, the largest |x| of the rest
};

// Takes the largest out of g, `most` without its sign, when its square is more than `margin` above the next one's.
static inline Found take_outlier(Group& g, float most, float margin) {
  alignas(64) static const float PLACE[ACTIVATION_GROUP] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                            16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  vf last = set1(-1), next = set1(0), taken = set1(0);
  for (int i = 0; i < VECTORS; i++) last = vmax(last, where_gt(set1(most), abs(g.v[i]), set1(-1), load(PLACE + i * W)));
  float at = largest(last);
  Group rest;
  for (int i = 0; i < VECTORS; i++) {
    rest.v[i] = where_gt(abs(load(PLACE + i * W) - set1(at)), set1(0), g.v[i], set1(0));
    next = vmax(abs(rest.v[i]), next);
    taken = taken + (g.v[i] - rest.v[i]);
  }
  float second = largest(next);
  if (!(most * most - second * second > margin)) return {-1, 0, most};
  g = rest;
  return {(int)at, sum(taken), second};
}

// g over the block's scale as bytes. Those that may meet codes of 6 bits are kept so small, by a larger scale, that sums of
// 16 bits hold (int8.h): where that binds most are of one size, and rounding costs 0.5%, 0.9% at worst.
static inline Sums round_group(const Group& g, float most, int bits, Block* to) {
  auto round = [&](float inverse) {
    Group scaled = g;
    for (vf& v : scaled.v) v = v * set1(inverse);
    return to_int8(scaled.v, bits, to->q);
  };
  if (!(most > 1e-35f)) most = 0;
  float inverse = most > 0 ? 127 / most : 0;
  to->scale = most * (1 / 127.f);
  Sums s = round(inverse);
  if (bits == 4 || s.larger <= MOST) return s;
  constexpr float safe = MOST - 15;  // rounding adds 8 before and 8 after: (sum + 8) safe / sum + 8 < 1024 from 1024 on
  to->scale *= s.larger * (1 / safe);
  return round(inverse * (safe / s.larger));
}

template <class T>
static int quantize_row(const T* x, int K, int group, int bits, Block* to, float* sums, Outlier* outliers) {
  auto [finite, top_square, typical] = measure(x, K, to);
  if (!finite) return -1;
  float margin = top_square > 2 * typical ? OUTLIER_RATIO * typical : INFINITY;
  int count = 0;
  for (int k = 0; k < K; sums++) {
    float total = 0;
    for (int end = k + group; k < end; k += ACTIVATION_GROUP, to++) {
      Group g = load_group(x + k);
      Found f{-1, 0, to->scale};
      if (f.most * f.most > margin) f = take_outlier(g, f.most, margin);
      if (f.at >= 0) outliers[count++] = {k + f.at, f.x};
      Sums s = round_group(g, f.most, bits, to);
      to->start = {(int16_t)(-middle(bits) * s.even), (int16_t)(-middle(bits) * s.odd)};
      total += to->scale * (s.even + s.odd) + f.x;
    }
    *sums = total;
  }
  return count;
}

static int quantize(const void* x, Type type, int K, int group, int bits, Block* blocks, float* sum, Outlier* outliers) {
  int count = 0;
  with_type(type, [&](auto t) {
    count = quantize_row((const decltype(t)*)x, K, group, bits, blocks, sum, outliers);
  });
  return count;
}

static void quantized_row_exact(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                                const Epilogue& e, void* out, Type out_type) {
  for (size_t n = n0; n < (size_t)n1; n++) {
    Column column{w, n};
    float acc[W] = {0};
    for (int k = 0; k < w.K; k++) acc[0] += value_at(x, type, k) * (column.scale(k) * column.code(k) + column.bias(k));
    finish(acc, W, e, &to, 1, w.N, n, 1, out, out_type);
  }
}

void fill_quantize(Kernels& k) {
  k.quantize_row = quantize;
  k.quantized_row_exact = quantized_row_exact;
}

}  // namespace toast::TOAST_VARIANT
