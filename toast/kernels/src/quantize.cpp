// Activations to int8, rounded half to even: a group of 32 has a scale, max|x| / 127 or more (round_group), rounded up
// to whole units of its row. What is much larger than the others stays a float, as in LLM.int8() (Dettmers et al.,
// 2022) but element by element. Compiled once per variant; a row's bytes depend on that row alone, and are the same in
// every variant.
#include "epilogue.h"
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

// The outlier rule. a_g is max|x| of group g; typical is the harmonic mean of a_g^2, which outliers do not move.
// A row has outliers if mean(a_g^2) > 2 typical. Then x is one if a_g^2 - next^2 > 8 typical, next being the second
// largest of its group, or if a_g^2 > 4096 typical: the row's unit would be too coarse for the others.
using tuning::OUTLIER_FAR, tuning::OUTLIER_RATIO, tuning::OUTLIER_ROW;

struct Measures {
  bool sums_finite;            // of a group's |x|
  float top;                   // the largest |x| of the row
  float mean_square, typical;  // arithmetic and harmonic mean of a_g^2
};

// Also a_g of every group: most[K / 32].
template <class T>
static Measures measure(const T* x, int K, float* most) {
  vf all = set1(0);
  float tops = 0, inverses = 0;
  int filled = 0;
  for (int k = 0; k < K; k += ACTIVATION_GROUP, most++) {
    Group g = load_group(x + k);
    vf top = set1(0);
    prefetch(x, (k + tuning::QUANTIZE_AHEAD) * sizeof(T), ACTIVATION_GROUP * sizeof(T));
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

// The numbers of a group's elements, as floats.
static inline vf numbers(int i) {
  alignas(64) static const float NUMBER[ACTIVATION_GROUP] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                             11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                             22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  return load(NUMBER + i * W);
}

static inline Group without(const Group& g, float at) {
  Group rest;
  for (int i = 0; i < VECTORS; i++) rest.v[i] = where_gt(abs(numbers(i) - set1(at)), set1(0), g.v[i], set1(0));
  return rest;
}

struct Largest {
  int at;
  float x, next;  // with its sign; the largest |x| of the rest
};

static inline Largest largest_of(const Group& g, float most) {
  vf last = set1(-1), next = set1(0), x = set1(0);
  for (int i = 0; i < VECTORS; i++) last = vmax(last, where_gt(set1(most), abs(g.v[i]), set1(-1), numbers(i)));
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

// Outliers group by group, at most K / 32 of them; most: of the others of the group from now on.
template <class T>
static Taken take_outliers(const T* x, int K, float typical, float* most, Outlier* outliers) {
  Taken taken{0, 0};
  float margin = OUTLIER_RATIO * typical;
  for (int k = 0; k < K; k += ACTIVATION_GROUP, most++) {
    Group g;
    if (*most * *most > margin) g = load_group(x + k);
    while (*most * *most > margin && taken.count < K / ACTIVATION_GROUP) {
      Largest l = largest_of(g, *most);
      if (!(*most * *most - l.next * l.next > margin || *most * *most > OUTLIER_FAR * typical)) break;
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

// Quantise one group to int8: its scale is a whole number of units, rounded up. For 8-bit weights the scale is raised
// until the int16 sums of int8.h cannot overflow: that costs at most 0.9%, since most are of one size where it happens.
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

// Zeros, since the row goes through the product before it is done in float.
static int refuse_row(const QuantRow& to) {
  memset(to.blocks, 0, to.K / ACTIVATION_GROUP * sizeof(Block));
  memset(to.sum, 0, to.K / to.group * sizeof(float));
  *to.unit = 0;
  return -1;
}

// most: scratch[K / 32]
template <class T>
static int quantize_row(const T* x, const QuantRow& row, float* most) {
  auto [unit, to, sums, outliers, K, group, bits] = row;
  auto [sums_finite, top, mean_square, typical] = measure(x, K, most);
  if (!sums_finite) return refuse_row(row);
  Taken taken{0, top};
  if (mean_square > OUTLIER_ROW * typical) taken = take_outliers(x, K, typical, most, outliers);
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

static int quantize(const void* x, Type type, const QuantRow& to, float* scratch) {
  int count = 0;
  with_type(type, [&](auto t) { count = quantize_row((const decltype(t)*)x, to, scratch); });
  return count;
}

static void quantized_row_exact(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                                const Output& out) {
  float poison = 0;  // NaN times any weight is NaN: a damaged model need not be computed to be known
  for (int k = 0; k < w.K; k++)
    if (isnan(value_at(x, type, k))) poison = NAN;
  for (int n = n0; n < n1; n++) {
    Column column{w, (size_t)n};
    float acc[W] = {poison};
    for (int k = 0; k < w.K && poison == 0; k++)
      acc[0] += value_at(x, type, k) * (column.scale(k) * column.code(k) + column.bias(k));
    finish({acc, W, nullptr, &to, 1, w.N, n, 1}, out);
  }
}

void fill_quantize(Kernels& k) {
  k.quantize_row = quantize;
  k.quantized_row_exact = quantized_row_exact;
}

}  // namespace toast::TOAST_VARIANT
