// Float matmul: panels of B are packed as float32 [k][PANEL * W], tiles of rows run over them.
// Each output is one chain of fma over k in order, so a row's bits do not depend on the tile.
#include "epilogue.h"
#include "weights.h"

namespace toast::TOAST_VARIANT {

constexpr int ROWS = tuning::matmul_rows(REGISTERS), PANEL = tuning::matmul_panel(REGISTERS);
constexpr int CHUNK = tuning::MATMUL_CHUNK, CHUNK_OF_FEW_ROWS = tuning::MATMUL_CHUNK_OF_FEW_ROWS;
constexpr int COLUMNS = PANEL * W;

// Column c of the panel, or the last one again in a short panel.
static inline int64_t column(const Matrix& b, int n0, int c) { return n0 + c < b.N ? n0 + c : b.N - 1; }

// B[k, n] with n contiguous: rows are copied.
template <class T>
static void pack_rows(const Matrix& b, int n0, int k0, int k1, float* out) {
  int n = b.N - n0 < COLUMNS ? b.N - n0 : COLUMNS;
  for (int k = k0; k < k1; k++, out += COLUMNS) {
    const T* row = (const T*)b.data + k * b.k_stride + n0;
    for (int c = 0; c < n; c += W) store(out + c, load_some(row + c, n - c < W ? n - c : W));
  }
}

// B[k, n] with k contiguous: W x W squares are transposed.
template <class T>
static void pack_columns(const Matrix& b, int n0, int k0, int k1, float* out) {
  for (int p = 0; p < COLUMNS; p += W) {
    const T* from[W];
    for (int c = 0; c < W; c++) from[c] = (const T*)b.data + column(b, n0, p + c) * b.n_stride;
    for (int k = k0; k < k1; k += W) {
      int n = k1 - k < W ? k1 - k : W;
      vf square[W];
      for (int c = 0; c < W; c++) square[c] = load_some(from[c] + k, n);
      transpose(square);
      for (int i = 0; i < n; i++) store(out + (k - k0 + i) * COLUMNS + p, square[i]);
    }
  }
}

// B[k, n] quantised along n (MLX's transpose=False): scale * q + bias.
static void pack_quantized(const Matrix& b, int n0, int k0, int k1, float* out) {
  int groups = b.N / b.group, first = n0 / b.group;
  for (int k = k0; k < k1; k++, out += COLUMNS) {
    const uint8_t* row = (const uint8_t*)b.data + (size_t)k * b.N * b.bits / 8;
    float scale[COLUMNS], bias[COLUMNS];  // of the groups first, first + 1, ..
    for (int g = first; g <= (int)column(b, n0, COLUMNS - 1) / b.group; g++) {
      size_t at = (size_t)k * groups + g;
      scale[g - first] = value_at(b.scales, b.type, at);
      bias[g - first] = value_at(b.biases, b.type, at);
    }
    for (int c = 0; c < COLUMNS; c++) {
      int n = column(b, n0, c), g = n / b.group - first;
      out[c] = scale[g] * code_at(row, n, b.bits) + bias[g];
    }
  }
}

static void pack(const Matrix& b, int n0, int k0, int k1, float* out) {
  if (b.bits) return pack_quantized(b, n0, k0, k1, out);
  with_type(b.type, [&](auto t) {
    using T = decltype(t);
    b.n_stride == 1 ? pack_rows<T>(b, n0, k0, k1, out) : pack_columns<T>(b, n0, k0, k1, out);
  });
}

// acc[MR][COLUMNS] += a[MR, k0:k1] panel[k0:k1, COLUMNS]
template <int MR>
static void tile(const float* a, int64_t a_row, const float* panel, int k, float* acc) {
  vf sums[MR][PANEL];
  for (int m = 0; m < MR; m++)
    for (int n = 0; n < PANEL; n++) sums[m][n] = load(acc + m * COLUMNS + n * W);
  for (int i = 0; i < k; i++, panel += COLUMNS) {
    vf b[PANEL];
    for (int n = 0; n < PANEL; n++) b[n] = load(panel + n * W);
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++) {
      vf v = set1(a[m * a_row + i]);
      for (int n = 0; n < PANEL; n++) sums[m][n] = fma(v, b[n], sums[m][n]);
    }
  }
  for (int m = 0; m < MR; m++)
    for (int n = 0; n < PANEL; n++) store(acc + m * COLUMNS + n * W, sums[m][n]);
}

static void tiles(const float* a, int64_t a_row, const float* panel, int k, int M, float* acc) {
  int m = 0;
  for (; m + ROWS <= M; m += ROWS) tile<ROWS>(a + m * a_row, a_row, panel, k, acc + m * COLUMNS);
  for (; m + 4 <= M; m += 4) tile<4>(a + m * a_row, a_row, panel, k, acc + m * COLUMNS);
  for (; m + 2 <= M; m += 2) tile<2>(a + m * a_row, a_row, panel, k, acc + m * COLUMNS);
  if (m < M) tile<1>(a + m * a_row, a_row, panel, k, acc + m * COLUMNS);
}

static int chunk_of(int M) { return M <= ROWS ? CHUNK_OF_FEW_ROWS : CHUNK; }

static size_t matmul_scratch(int M) { return (size_t)(chunk_of(M) + M) * COLUMNS; }

static void matmul(const MatmulTask& t, float* scratch) {
  const Matrix& b = t.b;
  int chunk = chunk_of(t.M);
  float *panel = scratch, *acc = panel + (size_t)chunk * COLUMNS;
  for (int n0 = t.n0; n0 < t.n1; n0 += COLUMNS) {
    memset(acc, 0, (size_t)t.M * COLUMNS * sizeof(float));
    for (int k = 0; k < b.K; k += chunk) {
      int end = b.K - k < chunk ? b.K : k + chunk;
      pack(b, n0, k, end, panel);
      tiles(t.a + k, t.a_row, panel, end - k, t.M, acc);
    }
    int n = t.n1 - n0 < COLUMNS ? t.n1 - n0 : COLUMNS;
    finish({acc, COLUMNS, nullptr, nullptr, t.M, b.N, n0, n}, t.out);
  }
}

void fill_dense(Kernels& k) {
  k.matmul = matmul;
  k.matmul_scratch = matmul_scratch;
  k.matmul_panel = COLUMNS;
}

}  // namespace toast::TOAST_VARIANT
