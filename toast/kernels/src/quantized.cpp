// Quantised matmul with vectors: lanes are columns of the output, 4 k to a dword.
// A panel (PANEL vectors of columns, a chunk of k) is unpacked to bytes in the cache, then each
// tile of rows runs over it. Every row takes the same steps in the same order whatever the tile.
#include "epilogue.h"
#include "int8.h"
#include "threads.h"

namespace toast::TOAST_VARIANT {

constexpr int COLUMNS = PANEL * W;
constexpr int STEP = ACTIVATION_GROUP;           // one step: 32 k, 8 dwords a column
constexpr size_t STEP_BYTES = STEP * COLUMNS;
constexpr int ROWS = 4;                            // rows in a full tile

// Leaves pointers in memory: GCC 12 packs them into vectors and takes them out again one by one.
static inline void keep_in_memory(const uint8_t** p) { asm volatile("" : : "r"(p) : "memory"); }

// Bytes of 32 k for PANEL vectors of columns, dword by dword: out[8][PANEL][W] dwords.
template <int BITS>
static inline void unpack_step(const uint8_t* const* row, size_t at, uint8_t* out) {
  for (int p = 0; p < PANEL; p++, row += W) {
    for (int half = 0; half < BITS / 4; half++) {
      vi w[4];
      load_columns(row, at + 16 * half, w);
      for (int j = 0; j < 4; j++) {
        uint8_t* to = out + ((BITS == 4 ? 2 * j : 4 * half + j) * PANEL + p) * W * 4;
        store_vi(to, BITS == 4 ? low_nibbles(w[j]) : w[j]);
        if (BITS == 4) store_vi(to + PANEL * W * 4, high_nibbles(w[j]));
      }
    }
  }
}

// Scales or biases of groups [g, g + n) for the panel's columns: out[n][COLUMNS] float.
template <class T>
static void unpack_scales(const T* base, int groups, const int* column, int g, int n, float* out) {
  constexpr int PER = 16 / sizeof(T), HALVES = 4 / sizeof(T);  // groups in one load, and in a dword
  for (int p = 0; p < PANEL; p++) {
    alignas(16) T padded[W][PER] = {};
    const uint8_t* row[W];
    for (int c = 0; c < W; c++) {
      const T* from = base + (size_t)column[p * W + c] * groups;
      if (groups < PER) from = (const T*)memcpy(padded[c], from, groups * sizeof(T));
      row[c] = (const uint8_t*)from;
    }
    keep_in_memory(row);
    for (int i = g; i < g + n; i += PER) {
      int at = groups < PER ? 0 : i + PER <= groups ? i : groups - PER;  // the last load ends with the row
      vi w[4];
      load_columns(row, at * sizeof(T), w);
      for (int j = i - at; j < PER && at + j < g + n; j++)
        store(out + (at + j - g) * COLUMNS + p * W, lanes(w[j / HALVES], j % HALVES, T{}));
    }
  }
}

static void unpack_scales(const void* base, Type type, int groups, const int* column, int g, int n,
                          float* out) {
  if (type == Type::f32) unpack_scales((const float*)base, groups, column, g, n, out);
  else if (type == Type::f16) unpack_scales((const f16*)base, groups, column, g, n, out);
  else unpack_scales((const bf16*)base, groups, column, g, n, out);
}

struct Panel {
  const uint8_t* bytes;          // [steps][STEP_BYTES]
  const float *scales, *biases;  // [groups][COLUMNS]
  int group, first, count;       // groups of k: size, first of the row, how many
};

// acc[MR][COLUMNS] += rows of x times the panel, group by group in order.
template <int BITS, int MR>
static void tile(const Panel& p, const QuantRows& x, const int* rows, float* acc) {
  const int8_t* q[MR];
  const float *scale[MR], *total[MR];
  vf a[MR][PANEL];
  size_t groups = x.K / x.group;
  for (int m = 0; m < MR; m++) {
    q[m] = x.q + (size_t)rows[m] * x.K + (size_t)p.first * p.group;
    scale[m] = x.scale + ((size_t)rows[m] * x.K + (size_t)p.first * p.group) / STEP;
    total[m] = x.sum + rows[m] * groups + p.first;
    for (int n = 0; n < PANEL; n++) a[m][n] = load(acc + m * COLUMNS + n * W);
  }
  const uint8_t* w = p.bytes;
  for (int g = 0; g < p.count; g++) {
    vf part[MR][PANEL];
    for (int m = 0; m < MR; m++)
      for (int n = 0; n < PANEL; n++) part[m][n] = set1(0);
    for (int k = 0; k < p.group; k += STEP) {
      Dot<BITS> dot[MR][PANEL];
#pragma GCC unroll 8
      for (int j = 0; j < STEP / 4; j++) {
        vi b[PANEL];
        for (int n = 0; n < PANEL; n++, w += W * 4) b[n] = load_vi(w);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++)
          for (int n = 0; n < PANEL; n++) dot[m][n].add(b[n], q[m] + 4 * j);
      }
      for (int m = 0; m < MR; m++) {
        for (int n = 0; n < PANEL; n++) part[m][n] = fma(dot[m][n].total(), set1(*scale[m]), part[m][n]);
        q[m] += STEP;
        scale[m]++;
      }
    }
    for (int n = 0; n < PANEL; n++) {
      vf s = load(p.scales + g * COLUMNS + n * W), b = load(p.biases + g * COLUMNS + n * W);
      for (int m = 0; m < MR; m++) {
        a[m][n] = fma(part[m][n], s, a[m][n]);
        a[m][n] = fma(b, set1(total[m][g]), a[m][n]);
      }
    }
  }
  for (int m = 0; m < MR; m++)
    for (int n = 0; n < PANEL; n++) store(acc + m * COLUMNS + n * W, a[m][n]);
}

template <int BITS>
static void tiles(const Panel& p, const QuantRows& x, const int* rows, int M, float* acc) {
  int m = 0;
  for (; m + ROWS <= M; m += ROWS) tile<BITS, ROWS>(p, x, rows + m, acc + m * COLUMNS);
  if (M - m == 3) tile<BITS, 3>(p, x, rows + m, acc + m * COLUMNS);
  if (M - m == 2) tile<BITS, 2>(p, x, rows + m, acc + m * COLUMNS);
  if (M - m == 1) tile<BITS, 1>(p, x, rows + m, acc + m * COLUMNS);
}

static inline void prefetch(const void* p, size_t at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch((const char*)p + at + i, 0, 2);
    asm volatile("");  // GCC 12 drops a function that does nothing but prefetch
  }
}

// The next panel's share of memory, one step at a time: its rows follow this panel's, and evenly
// spread requests doubled the bandwidth of decoding (docs/speed.md). Past the end it does no harm.
template <int BITS>
static inline void prefetch_next(const QuantWeights& w, int n0, size_t step) {
  size_t row = n0 + COLUMNS, groups = w.K / w.group, one = size_of(w.type);
  prefetch(w.w, row * w.K * BITS / 8 + step * STEP_BYTES * BITS / 8, STEP_BYTES * BITS / 8);
  if (step * STEP % w.group) return;
  size_t at = (row * groups + step * STEP / w.group * COLUMNS) * one;
  prefetch(w.scales, at, COLUMNS * one);
  prefetch(w.biases, at, COLUMNS * one);
}

// Unpacks groups [g, g + n) of the panel at n0, whose columns are `column`, into scratch.
template <int BITS>
static Panel unpack(const QuantWeights& w, int n0, const int* column, int g, int n, uint8_t* bytes, float* scales) {
  const uint8_t* row[COLUMNS];
  for (int c = 0; c < COLUMNS; c++) row[c] = w.w + (size_t)column[c] * w.K * BITS / 8;
  keep_in_memory(row);
  size_t first = (size_t)g * w.group / STEP, steps = (size_t)n * w.group / STEP;
  for (size_t i = 0; i < steps; i++) {
    prefetch_next<BITS>(w, n0, first + i);
    unpack_step<BITS>(row, (first + i) * STEP * BITS / 8, bytes + i * STEP_BYTES);
  }
  float* biases = scales + n * COLUMNS;
  unpack_scales(w.scales, w.type, w.K / w.group, column, g, n, scales);
  unpack_scales(w.biases, w.type, w.K / w.group, column, g, n, biases);
  return {bytes, scales, biases, w.group, g, n};
}

template <int BITS>
static void panel(const QuantWeights& w, const QuantRows& x, const int* rows, int M, int n0, float* acc) {
  int column[COLUMNS], groups = w.K / w.group;
  for (int c = 0; c < COLUMNS; c++) column[c] = n0 + c < w.N ? n0 + c : w.N - 1;  // a short last panel
  int chunk = (M <= ROWS ? 512 : 2048) / w.group;  // few rows: what was unpacked is used at once
  if (chunk > groups) chunk = groups;
  uint8_t* bytes = (uint8_t*)scratch(1, chunk * (w.group * (size_t)COLUMNS + 2 * COLUMNS * sizeof(float)));
  float* scales = (float*)(bytes + (size_t)chunk * w.group * COLUMNS);
  memset(acc, 0, (size_t)M * COLUMNS * sizeof(float));
  for (int g = 0; g < groups; g += chunk) {
    int n = groups - g < chunk ? groups - g : chunk;
    tiles<BITS>(unpack<BITS>(w, n0, column, g, n, bytes, scales), x, rows, M, acc);
  }
}

static void quantized_matmul(const QuantWeights& w, const QuantRows& x, const int* rows, const int* to, int M,
                             int n0, int n1, const Epilogue& e, void* out, Type type) {
  float* acc = (float*)scratch(0, (size_t)M * COLUMNS * sizeof(float));
  for (; n0 < n1; n0 += COLUMNS) {
    (w.bits == 4 ? panel<4> : panel<8>)(w, x, rows, M, n0, acc);
    int n = n1 - n0 < COLUMNS ? n1 - n0 : COLUMNS;
    finish(acc, COLUMNS, e, to, M, w.N, n0, n, out, type);
  }
}

void fill_quantized(Kernels& k) {
  k.quantized_matmul = quantized_matmul;
  k.panel = COLUMNS;
}

}  // namespace toast::TOAST_VARIANT
