// Activations to 8 bits, rounded half to even: every 32 of a row have a scale, max|x| / 127 or more (round_group),
// rounded up to whole units of the row's, and what is much larger than the others stays a float, as in LLM.int8()
// (Dettmers et al., 2022) but element by element. Compiled once per variant; a row's bytes depend on that row alone,
// and are the same in every variant.
#include "epilogue.h"
#include "int8.h"
#include "threads.h"
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

static inline float larger(float a, float b) { return a > b ? a : b; }

// Of the squares of the largest of every 32 the harmonic mean is typical: outliers do not move it. A row has outliers
// when their arithmetic mean is over twice that. The largest of a 32 is one when its square is OUTLIER_RATIO typical
// squares above the next one's. Chosen so that no real layer loses more than 1% (docs/speed.md). Beside one whose
// square is over FAR typical ones the row's unit would be too coarse for the others: it is an outlier even where the
// next one is as large.
constexpr float OUTLIER_RATIO = 8, FAR = 4096;

struct Measures {
  bool sums_finite;  // of 32 |x|
  float top, top_square,
      typical;  // the largest |x|; of the squares of those of every 32 the arithmetic and the harmonic mean
};

// Also the largest |x| of every 32: most[K / 32].
template <class T>
static Measures measure(const T* x, int K, float* most) {
  constexpr int AHEAD = 1024;  // a row may lie in the third-level cache
  vf all = set1(0);
  float tops = 0, inverses = 0;
  int filled = 0;
  for (int k = 0; k < K; k += ACTIVATION_GROUP, most++) {
    Group g = load_group(x + k);
    vf top = set1(0);
    prefetch(x, (k + AHEAD) * sizeof(T), ACTIVATION_GROUP * sizeof(T));
    for (int i = 0; i < VECTORS; i++) top = vmax_nan(abs(g.v[i]), top);
    all = vmax_nan(all, top);
    *most = largest(top);
    float square = *most * *most;
    if (!(square > 1e-30f)) continue;
    tops += square;
    inverses += 1 / square;
    filled++;
  }
  bool sums_finite = sum(all * set1(ACTIVATION_GROUP) * set1(0)) == 0;
  return {sums_finite, largest(all), tops / filled, filled / inverses};
}

// The places of a group's elements, as floats.
static inline vf places(int i) {
  alignas(64) static const float PLACE[ACTIVATION_GROUP] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                            11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  return load(PLACE + i * W);
}

static inline Group without(const Group& g, float at) {
  Group rest;
  for (int i = 0; i < VECTORS; i++) rest.v[i] = where_gt(abs(places(i) - set1(at)), set1(0), g.v[i], set1(0));
  return rest;
}

struct Largest {
  int at;
  float x, next;  // with its sign; the largest |x| of the rest
};

static inline Largest largest_of(const Group& g, float most) {
  vf last = set1(-1), next = set1(0), x = set1(0);
  for (int i = 0; i < VECTORS; i++) last = vmax(last, where_gt(set1(most), abs(g.v[i]), set1(-1), places(i)));
  float at = largest(last);
  Group rest = without(g, at);
  for (int i = 0; i < VECTORS; i++) {
    next = vmax(abs(rest.v[i]), next);
    x = x + (g.v[i] - rest.v[i]);
  }
  return {(int)at, sum(x), largest(next)};
}

struct Taken {
  int count;
  float top;  // the largest |x| of the rest
};

// Outliers by 32s, at most K / 32 of them; most: of the others of these 32 from now on.
template <class T>
static Taken take_outliers(const T* x, int K, float typical, float* most, Outlier* outliers) {
  Taken taken{0, 0};
  float margin = OUTLIER_RATIO * typical;
  for (int k = 0; k < K; k += ACTIVATION_GROUP, most++) {
    Group g;
    if (*most * *most > margin) g = load_group(x + k);
    while (*most * *most > margin && taken.count < K / ACTIVATION_GROUP) {
      Largest l = largest_of(g, *most);
      if (!(*most * *most - l.next * l.next > margin || *most * *most > FAR * typical)) break;
      outliers[taken.count++] = {k + l.at, l.x};
      g = without(g, l.at);
      *most = l.next;
    }
    taken.top = larger(taken.top, *most);
  }
  return taken;
}

// A power of two of which no scale takes more than 2048, or 16,512 before codes of 4 bits (int8.h says why). Far below
// outliers it is coarser than it need be, so that these stay finite in it.
static float unit_of(float most, float with_outliers, int bits) {
  most = larger(larger(most, with_outliers * 0x1p-30f), 0x1p-100f);
  uint32_t exponent;
  memcpy(&exponent, &most, 4);
  exponent &= 0x7f800000;
  memcpy(&most, &exponent, 4);
  return most * (bits == 4 ? 0x1p-20f : 0x1p-15f);
}

// g over its scale as bytes: the scale is a whole number of units, rounded up. Those that may meet codes of 6 bits are
// kept so small that sums of 16 bits hold (int8.h): where that binds most are of one size, and rounding costs 0.9% at
// most.
static inline void round_group(const Group& g, float most, float per_unit, int bits, Block* to) {
  constexpr int ROUNDING = 8;  // of 16 q
  float least = most * (1 / 127.f);
  if (bits == 8) least = larger(least, larger_side(g.v) * (1.f / (MOST - ROUNDING)));
  float scale = larger(ceilf(least * per_unit), 1), inverse = per_unit / scale;
  Group scaled = g;
  for (vf& v : scaled.v) v = v * set1(inverse);
  to->scale[0] = to->scale[1] = (int)scale;
  to->sum = to_int8(scaled.v, bits, to->q);
}

template <class T>
static int quantize_row(const T* x, int K, int group, int bits, float* unit, Block* to, float* sums,
                        Outlier* outliers) {
  float* most = (float*)scratch(0, K / ACTIVATION_GROUP * sizeof(float));
  auto [sums_finite, top, top_square, typical] = measure(x, K, most);
  if (!sums_finite) {  // zeros, since the row goes through the product before it is done in float
    memset(to, 0, K / ACTIVATION_GROUP * sizeof(Block));
    memset(sums, 0, K / group * sizeof(float));
    *unit = 0;
    return -1;
  }
  Taken taken{0, top};
  if (top_square > 2 * typical) taken = take_outliers(x, K, typical, most, outliers);
  *unit = unit_of(taken.top, top, bits);
  float per_unit = 1 / *unit;
  Outlier *next = outliers, *last = outliers + taken.count;
  for (int k = 0; k < K; sums++) {
    int total = 0;
    float out = 0;
    for (int end = k + group; k < end; k += ACTIVATION_GROUP, to++, most++) {
      Group g = load_group(x + k);
      for (; next < last && next->k < k + ACTIVATION_GROUP; next++) {
        g = without(g, next->k - k);
        out += next->x *= per_unit;
      }
      round_group(g, *most, per_unit, bits, to);
      total += to->scale[0] * to->sum;
    }
    *sums = total + out;
  }
  return taken.count;
}

static int quantize(const void* x, Type type, int K, int group, int bits, float* unit, Block* blocks, float* sum,
                    Outlier* outliers) {
  int count = 0;
  with_type(type,
            [&](auto t) { count = quantize_row((const decltype(t)*)x, K, group, bits, unit, blocks, sum, outliers); });
  return count;
}

static void quantized_row_exact(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                                const Epilogue& e, void* out, Type out_type) {
  for (size_t n = n0; n < (size_t)n1; n++) {
    Column column{w, n};
    float acc[W] = {0};
    for (int k = 0; k < w.K; k++) acc[0] += value_at(x, type, k) * (column.scale(k) * column.code(k) + column.bias(k));
    finish(acc, W, nullptr, e, &to, 1, w.N, n, 1, out, out_type);
  }
}

void fill_quantize(Kernels& k) {
  k.quantize_row = quantize;
  k.quantized_row_exact = quantized_row_exact;
}

}  // namespace toast::TOAST_VARIANT
