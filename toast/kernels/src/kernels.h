// Every kernel's prototype, with its shapes: one table of plain C functions per CPU variant.
// Knows nothing of MLX, Python or threads: a kernel is one thread's work on plain memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace toast {

struct f16 {
  uint16_t bits;
};  // IEEE 754 binary16
struct bf16 {
  uint16_t bits;
};  // the upper half of a float32
enum class Type : uint8_t { f32, f16, bf16 };

inline size_t size_of(Type t) { return t == Type::f32 ? 4 : 2; }

// ---- quantised weights and activations ----
// w[N, K] of 4 or 8 bits, packed as MLX does (low bits first); scales, biases [N, K / group] of
// `type`: weight = scale * q + bias.
struct QuantWeights {
  const uint8_t* w;
  const void *scales, *biases;
  Type type;
  int N, K, group, bits;
  const void* unpacked = nullptr;  // all of it as unpack() leaves it, 64-byte aligned, or null
};
// An activation far larger than its neighbours: q has 0 in its place and it goes into the product as a float, x units.
struct Outlier {
  int k;
  float x;
};
// 32 activations: x = unit * scale * q, in the order of int8.h. In one piece: a tile holds one pointer a row in a
// register.
constexpr int ACTIVATION_GROUP = 32;  // larger ones lose more than 1% on real activations
struct Block {
  int16_t scale[2];  // twice: AVX2 multiplies pairs of sums by it
  int32_t sum;       // of q
  int8_t q[ACTIVATION_GROUP];
};
// Rows x[m, K]: a power of two each, the unit [m]; blocks [m, K / 32], the sum of x as rounded, outliers included, in
// units [m, K / group], and the outliers by 32s of k: [m, K / 32], the first `count`[m].
struct QuantRows {
  const float* unit;
  const Block* blocks;
  const float* sum;
  const Outlier* outliers;
  const int* count;
  int K, group;
};
// b[K, N] with strides in elements, one of them 1; or, with bits 4 or 8, rows of N packed weights and
// scales, biases [K, N / group], all of `type`.
struct Matrix {
  const void* data;
  Type type;
  int64_t k_stride, n_stride;
  int K, N;
  const void *scales = nullptr, *biases = nullptr;
  int group = 0, bits = 0;
};
enum class Activation : uint8_t { gelu, gelu_tanh, silu, none };
// What happens to sums on their way out: f(alpha sums + bias[n]) + beta c[m, n], where bias and c may
// be null and c's rows are c_row apart.
struct Epilogue {
  const float* c = nullptr;
  size_t c_row = 0;
  float alpha = 1, beta = 1;
  const float* bias = nullptr;
  Activation activation = Activation::none;
};

enum class Mask : uint8_t { none, causal, boolean, additive };

// Attention of one key/value head to a tile of queries of the `group` heads that share it.
// q[group, queries, dk] k[keys, dk] v[keys, dv] -> y[group, queries, dv], rows contiguous.
struct Attention {
  Type type;  // of q and y
  Type kept;  // of k and v: `type`, or f16 beside f32
  Mask mask;
  size_t group, queries, keys, dk, dv;
  const void *q, *k, *v;
  void* y;
  int64_t q_head, q_row, k_row, v_row, y_head, y_row;  // strides in elements
  float scale;
  int64_t visible;  // causal: how many keys the first query sees (the next one sees one more)
  const void* m;    // boolean or additive (of `type`) mask [group, queries, keys], or null
  int64_t m_head, m_row;
  const void* sinks;  // [group] or null
};

struct Kernels {
  const char* name;  // "generic", "avx2", "avx512", "neon"
  int lanes;         // floats in one vector

  // ---- conversion (convert.cpp) -------------------------------------------------------------
  // x[n] of `type` -> y[n] float32, and back (round to nearest, ties to even).
  void (*to_f32)(const void* x, Type type, float* y, size_t n);
  void (*from_f32)(const float* x, void* y, Type type, size_t n);

  // ---- quantised matmul (quantize.cpp, quantized.cpp, quantized_generic.cpp) ------------------
  // One row x[K] -> its unit, blocks[K / 32], sum[K / group], outliers[K / 32]. Returns how many outliers there are, or
  // -1 when x has a NaN, an infinity or what is almost one.
  int (*quantize_row)(const void* x, Type type, int K, int group, int bits, float* unit, Block* blocks, float* sum,
                      Outlier* outliers);
  // out[to[m], n] = x[rows[m], :] . w[n, :] for m < M and columns [n0, n1), n0 a multiple of panel;
  // out[.., N] of `type`.
  void (*quantized_matmul)(const QuantWeights& w, const QuantRows& x, const int* rows, const int* to, int M, int n0,
                           int n1, const Epilogue& e, void* out, Type type);
  int panel;
  // Columns [n0, n1) of w as quantized_matmul() unpacks them, for many calls, to their place in to[unpacked_bytes(w)].
  size_t (*unpacked_bytes)(const QuantWeights& w);
  void (*unpack)(const QuantWeights& w, int n0, int n1, void* to);
  // The same for one row x[K] that quantize_row() refused: in float, nothing rounded.
  void (*quantized_row_exact)(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                              const Epilogue& e, void* out, Type out_type);

  // ---- float matmul (dense.cpp) --------------------------------------------------------------
  // a[M, K] (rows a_row apart) b[K, N] -> out[M, N] of `type`, columns [n0, n1) of it, n0 a
  // multiple of matmul_panel.
  void (*matmul)(const float* a, int64_t a_row, const Matrix& b, int M, int n0, int n1, const Epilogue& e, void* out,
                 Type type);
  int matmul_panel;

  // ---- norms (norms.cpp): rows of n; w and b [n] or null; everything of `type` -----------------
  // x[rows, n] -> y[rows, n]
  void (*rms_norm)(const void* x, const void* w, void* y, Type type, size_t rows, size_t n, float eps);
  void (*layer_norm)(const void* x, const void* w, const void* b, void* y, Type type, size_t rows, size_t n, float eps);
  void (*softmax)(const void* x, void* y, Type type, size_t rows, size_t n);

  // ---- activations (activations.cpp): x[n] up[n] or null -> y[n] = f(x) up ---------------------
  void (*activate)(Activation f, const void* x, const void* up, void* y, Type type, size_t n);
  // x[n] y[n] -> x + y, which may be where x or y is.
  void (*add)(const void* x, const void* y, void* sum, Type type, size_t n);

  // ---- rotary positions (rope.cpp) ----------------------------------------------------------
  // inv_freqs[half] -> cosine[half], sine[half] of position * inv_freqs.
  void (*rope_angles)(float position, const float* inv_freqs, float* cosine, float* sine, size_t half);
  // x[dim] -> y[dim]: the first `dims` turned, in pairs of neighbours (traditional) or of halves.
  void (*rope)(const void* x, void* y, Type type, size_t dim, size_t dims, bool traditional, const float* cosine,
               const float* sine);

  // ---- attention (attention.cpp) --------------------------------------------------------------
  size_t (*attention_scratch)(const Attention& a);  // floats that attention() needs
  void (*attention)(const Attention& a, float* scratch);

  // ---- search (scan.cpp) ----------------------------------------------------------------------
  // codes[rows, n] scales[rows] query[n] -> scores[rows] = scales * (codes . query), 0 when not finite
  void (*int8_scan)(const int8_t* codes, const float* scales, const float* query, float* scores, size_t rows, size_t n);

  // ---- files (checksum.cpp) -------------------------------------------------------------------
  // The CRC-32 of what went before (0: nothing) and x[n] after it -> that of both, as zlib's crc32().
  uint32_t (*crc32)(uint32_t crc, const uint8_t* x, size_t n);
};

// The table in use. Chosen once by choose(); "" or "auto" takes the best this CPU has.
// Returns null when the name is unknown or the CPU lacks it.
const Kernels* choose(const char* variant);
const Kernels& kernels();

// Each variant's files fill their part of the table; one call per file.
#define TOAST_DECLARE_VARIANT(v)   \
  namespace v {                    \
  void fill_convert(Kernels&);     \
  void fill_quantize(Kernels&);    \
  void fill_quantized(Kernels&);   \
  void fill_dense(Kernels&);       \
  void fill_norms(Kernels&);       \
  void fill_activations(Kernels&); \
  void fill_rope(Kernels&);        \
  void fill_attention(Kernels&);   \
  void fill_scan(Kernels&);        \
  void fill_checksum(Kernels&);    \
  }
TOAST_DECLARE_VARIANT(generic)
TOAST_DECLARE_VARIANT(avx2)
TOAST_DECLARE_VARIANT(avx512)
TOAST_DECLARE_VARIANT(neon)
#undef TOAST_DECLARE_VARIANT

}  // namespace toast
