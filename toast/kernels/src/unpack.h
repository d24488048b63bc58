// Weights from MLX's packing to bytes and floats: lanes are columns of the output, 4 k to a dword, PANEL vectors of
// them a panel. And what is prefetched. Included once per variant.
#pragma once
#include "lanes.h"

namespace toast::TOAST_VARIANT {

constexpr int PANEL = tuning::QUANTIZED_PANEL;
constexpr int COLUMNS = PANEL * W;
constexpr int STEP = ACTIVATION_GROUP;  // one step: 32 k, 8 dwords a column
constexpr size_t STEP_BYTES = STEP * COLUMNS;
template <int BITS>
constexpr size_t ROW_BYTES = STEP * BITS / 8;  // of a row of codes, in a step

// Rows of bytes, `stride` apart. In a short last panel the last one stands in for those that are not there.
template <bool WHOLE>
struct Rows {
  const uint8_t* first;
  size_t stride;
  int count;
  inline const uint8_t* operator()(int c) const { return first + (WHOLE || c < count ? c : count - 1) * stride; }
  inline Rows from(int c) const {
    if (WHOLE || c < count) return {first + c * stride, stride, count - c};
    return {(*this)(count - 1), stride, 1};
  }
};

// Dwords of any number of bits: w[BITS] hold 32 codes of a column in each lane, the lowest bits first; four k in a
// dword.
template <int BITS>
static inline vi four_codes(const vi* w, int j) {
  using Lanes = uint32_t __attribute__((vector_size(sizeof(vi))));
  constexpr uint32_t MASK = (1 << BITS) - 1;
  int word = 4 * BITS * j / 32, shift = 4 * BITS * j % 32;
  Lanes x = (Lanes)w[word] >> shift;
  if (shift + 4 * BITS > 32) x |= (Lanes)w[word + 1] << (32 - shift);
  Lanes all = x & MASK;
  for (int i = 1; i < 4; i++) all |= x << i * (8 - BITS) & MASK << 8 * i;
  return (vi)all;
}

// 32 codes of each of W columns: w[BITS] dwords. A row has at least 16 bytes, and none beside it are read.
template <int BITS, class R>
static TOAST_INLINE void load_codes(const R& row, size_t at, vi* w) {
  vi some[4];
  if (BITS < 4) {
    size_t back = at + 16 > row.stride ? at + 16 - row.stride : 0;
    load_columns(row, at - back, some);
    for (int i = 0; i < BITS; i++) w[i] = some[i + back / 4];
    return;
  }
  load_columns(row, at, w);
  load_columns(row, at + 4 * BITS - 16, some);
  for (int i = 4; i < BITS; i++) w[i] = some[i + 4 - BITS];
}

// 32 k of PANEL vectors of columns, from MLX's packing: put(dword, vector, bytes) as soon as they are there.
template <int BITS, class R, class Put>
static TOAST_INLINE void unpack_step(const R& rows, size_t at, Put put) {
  for (int p = 0; p < PANEL; p++) {
    auto row = rows.from(p * W);
    if (BITS != 4 && BITS != 8) {
      vi w[BITS];
      load_codes<BITS>(row, at, w);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) put(j, p, four_codes<BITS>(w, j));
      continue;
    }
    for (int half = 0; half < BITS / 4; half++) {
      vi w[4];
      load_columns(row, at + 16 * half, w);
      for (int j = 0; j < 4; j++) {
        put(BITS == 4 ? 2 * j : 4 * half + j, p, BITS == 4 ? low_nibbles(w[j]) : w[j]);
        if (BITS == 4) put(2 * j + 1, p, high_nibbles(w[j]));
      }
    }
  }
}

// Scales or biases of groups [g, g + n) for the panel's columns: out[n][COLUMNS] float.
template <class T, class R>
static void unpack_scales(const R& rows, int groups, int g, int n, float* out) {
  constexpr int PER = 16 / sizeof(T), HALVES = 4 / sizeof(T);  // groups in one load, and in a dword
  for (int p = 0; p < PANEL; p++) {
    auto row = rows.from(p * W);
    float* to = out + p * W;
    auto load = [&](const auto& row, int at, auto each) {
      vi w[4];
      load_columns(row, at * sizeof(T), w);
#pragma GCC unroll 8
      for (int j = 0; j < PER; j++) each(j, lanes(w[j / HALVES], j % HALVES, T{}));
    };
    int i = 0;
    for (; i + PER <= n; i += PER) load(row, g + i, [&](int j, vf x) { store(to + (i + j) * COLUMNS, x); });
    if (i == n) continue;
    auto put = [&](int group, vf x) {
      if (group >= g + i && group < g + n) store(to + (group - g) * COLUMNS, x);
    };
    if (groups >= PER) {  // the last load ends with the row
      int at = g + i + PER <= groups ? g + i : groups - PER;
      load(row, at, [&](int j, vf x) { put(at + j, x); });
    } else {
      alignas(16) uint8_t padded[W][16] = {};
      for (int c = 0; c < W; c++) memcpy(padded[c], row(c), groups * sizeof(T));
      load(Rows<true>{padded[0], 16, W}, 0, put);
    }
  }
}

// base [.., groups] of `type`: those of the panel that begins at column n0.
template <bool WHOLE>
static void unpack_scales(const void* base, const QuantWeights& w, int n0, int g, int n, float* out) {
  int groups = w.K / w.group;
  size_t stride = groups * size_of(w.type);
  Rows<WHOLE> rows{(const uint8_t*)base + n0 * stride, stride, w.N - n0};
  if (w.type == Type::f32)
    unpack_scales<float>(rows, groups, g, n, out);
  else if (w.type == Type::f16)
    unpack_scales<f16>(rows, groups, g, n, out);
  else
    unpack_scales<bf16>(rows, groups, g, n, out);
}

// A panel's memory, asked for one step at a time while the one before it is multiplied: evenly spread requests doubled
// the bandwidth of decoding (docs/notebook.md). A step asks for one line of each of as many equal parts of the panel as
// a step has lines: the processor itself then asks for what follows in every one of them. Past the end it does no harm.
struct Ahead {
  static constexpr size_t LINE = 64;
  static constexpr int lines(int bits) { return (STEP_BYTES * bits / 8 + LINE - 1) / LINE; }  // of weights, for a step
  const char *codes, *scales, *biases;
  size_t apart, group_bytes;
  int group;

  Ahead(const QuantWeights& w, int n0)
      : apart(w.K / STEP * LINE), group_bytes(COLUMNS * size_of(w.type)), group(w.group) {
    size_t at = (size_t)n0 * w.K, scale = at / w.group * size_of(w.type);
    codes = (const char*)w.w + at * w.bits / 8;
    scales = (const char*)w.scales + scale;
    biases = w.biases ? (const char*)w.biases + scale : nullptr;
  }
  TOAST_INLINE void ask_scales(size_t step) const {
    size_t k = step * STEP;
    if (k & (group - 1)) return;
    // a power of two: a division in every step took 8% of a single row's time
    size_t at = (k >> __builtin_ctz(group)) * group_bytes;
    prefetch(scales, at, group_bytes);
    if (biases) prefetch(biases, at, group_bytes);
  }
  TOAST_INLINE void ask_codes(size_t step, int part) const { prefetch(codes, part * apart + step * LINE, LINE); }
};

// All of a task's first panel, which nobody asked for.
static inline void prefetch_panel(const QuantWeights& w, int n0) {
  size_t at = (size_t)n0 * w.K, n = (size_t)(w.N - n0 < COLUMNS ? w.N - n0 : COLUMNS) * w.K, one = size_of(w.type);
  prefetch(w.scales, at / w.group * one, n / w.group * one);
  if (w.biases) prefetch(w.biases, at / w.group * one, n / w.group * one);
  prefetch(w.w, at * w.bits / 8, n * w.bits / 8);
}

}  // namespace toast::TOAST_VARIANT
