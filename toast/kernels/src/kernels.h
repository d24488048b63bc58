// Every kernel's prototype, with its shapes: one table of C functions per CPU variant.
// Knows nothing of MLX, Python or threads: a kernel is one thread's work on memory that it is given, scratch included.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace toast {

struct f16 {  // IEEE 754 binary16
  uint16_t bits;
};
struct bf16 {  // the upper half of a float32
  uint16_t bits;
};
enum class Type : uint8_t { f32, f16, bf16 };

inline size_t size_of(Type t) { return t == Type::f32 ? 4 : 2; }

// ---- what happens to sums on their way out ----
enum class Activation : uint8_t {
  gelu,
  gelu_tanh,
  silu,
  none,
  sigmoid,
  tanh,
  relu2
};  // products end in the first four
// f(alpha sums + bias[n]) + beta c[m, n], where bias and c may be null and c's rows are c_row apart.
struct Epilogue {
  const float* c = nullptr;
  size_t c_row = 0;
  float alpha = 1, beta = 1;
  const float* bias = nullptr;
  Activation activation = Activation::none;
};
// [.., N] of `type`, through the epilogue.
struct Output {
  void* data;
  Type type;
  Epilogue epilogue;
};

// ---- quantised weights and activations ----
// w[N, K] of 2 to 6 or 8 bits, packed as MLX does (low bits first); scales, biases [N, K / group] of
// `type`: weight = scale * code + bias. biases null: they are -scale * 2^(bits - 1), exactly, and need not be read.
struct QuantWeights {
  const uint8_t* w;
  const void *scales, *biases;
  Type type;
  int N, K, group, bits;
  const void* unpacked = nullptr;  // all of it as unpack() leaves it, 64-byte aligned, or null
};
// An activation far larger than its neighbours: its int8 is 0, and it goes into the product as a float, in units.
struct Outlier {
  int k;
  float x;
};
constexpr int ACTIVATION_GROUP = 32;  // activations that share a scale: more lose over 1% on real ones; 2026-11-23
// One int8 group: x = unit * scale * q, in the order of int8.h. In one piece: a tile has one pointer a row to hold.
struct Block {
  int16_t scale[2];  // twice: AVX2 multiplies pairs of sums by it
  int32_t sum;       // of q
  int8_t q[ACTIVATION_GROUP];
};
// Quantised rows x[m, K].
struct QuantRows {
  const float* unit;        // [m]: the power of two that scales row m
  const Block* blocks;      // [m, K / 32]: int8 groups
  const float* sum;         // [m, K / group]: sum of the dequantised row in each group of the weights, in units
  const Outlier* outliers;  // [m, K / 32]: activations that stay floats, sorted by k
  const int* count;         // [m]: how many outliers are valid; -1: the row is not finite and goes through in float
  int K, group;
};
// A bias over its scale where `biases` is null.
inline float middle(const QuantWeights& w) { return -(float)(1 << (w.bits - 1)); }
// Activations have one form for weights of 4 bits and one, that of 8, for all others.
inline int form_for(int bits) { return bits == 4 ? 4 : 8; }
// One of these rows, to be filled for weights of `bits`, 4 or 8, in groups of `group`.
struct QuantRow {
  float* unit;
  Block* blocks;
  float* sum;
  Outlier* outliers;
  int K, group, bits;
};
// out[to[m], n] = x[rows[m], :] . w[n, :] for m < M and columns [n0, n1), n0 a multiple of quantized_panel.
struct QuantTask {
  const QuantWeights& w;
  const QuantRows& x;
  const int *rows, *to;
  int M, n0, n1;
  const Output& out;
};

// ---- float matrices ----
// b[K, N] with strides in elements, one of them 1; or, with bits, rows of N packed weights and
// scales, biases [K, N / group], all of `type`.
struct Matrix {
  const void* data;
  Type type;
  int64_t k_stride, n_stride;
  int K, N;
  const void *scales = nullptr, *biases = nullptr;
  int group = 0, bits = 0;
};
// a[M, K] (rows a_row apart) b[K, N] -> out[M, N], columns [n0, n1) of it, n0 a multiple of matmul_panel.
struct MatmulTask {
  const float* a;
  int64_t a_row;
  const Matrix& b;
  int M, n0, n1;
  const Output& out;
};

// ---- norms, positions, attention ----
struct Norm {
  const void *weight, *bias;  // [n] or null
  float eps;
};
// cosine[dims / 2], sine[dims / 2] of a position: heads are rotated in pairs of neighbours (traditional) or of halves.
struct Angles {
  const float *cosine, *sine;
  size_t dims;
  bool traditional;
};

enum class Mask : uint8_t { none, causal, boolean, additive };

// Attention of one key/value head to a tile of queries of the `group` heads that share it.
// q[group, queries, dk] k[keys, dk] v[keys, dv] -> y[group, queries, dv], rows contiguous.
struct Attention {
  Type type;     // of q and y
  Type kv_type;  // of k and v: `type`, or f16 beside f32
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

// ---- layers with a state (recurrence.cpp, mixer.cpp): all memory float32 unless it has a type ----
// A head's state s[dk, dv], whose columns never meet, over `steps`. With (s a)[j] = sum of s[i, j] a[i] over i:
//   s' = g s + k w + b (s a),  y = s' q + direct u,  where w = beta u, or beta (u - (g s) k) with `delta`.
// Mamba-2, the gated delta rule (delta) and RWKV-7 (a, b) are this. Sums run over i in order: the bits do not depend on
// how many steps a call has.
struct Recurrence {
  size_t steps, dk, dv;
  float* s;
  const float *q, *k;  // [steps, dk]
  const float* g;      // [steps, dk], or [steps] where all of a step's are alike
  const float* u;      // [steps, dv]
  const float* beta;   // [steps]
  const float *a, *b;  // [steps, dk], or null: no such term. Not with delta.
  float* y;            // [steps, dv], which may be where u is
  bool g_alike, delta;
  float direct;
};
// A causal convolution of each channel over time: x[rows + taps - 1, n] (rows x_row apart) -> y[rows, n] (y_row apart),
// y[t, c] = f(bias[c] + sum of x[t + j, c] w[c, j] over j), at most MOST_TAPS of them; bias may be null, f silu or
// none. w is [n, taps] where w_tap is 1, else [taps, n] in rows w_tap apart, which are sooner read.
constexpr size_t MOST_TAPS = 4;
struct Convolution {
  const void* x;
  void* y;
  Type type;  // of x and y
  const void *w, *bias;
  Type w_type;  // of w and bias
  size_t x_row, y_row, taps, rows, n;
  Activation activation;
  size_t w_tap = 1;
};
// y[rows, n] of x[rows, n], rows y_row and x_row apart: each over its root mean square, times weight[n] of weight_type,
// times f(gate[rows, n], gate_row apart), all three of type.
struct GatedNorm {
  const float* x;
  const void *gate, *weight;
  void* y;
  Type type, weight_type;
  size_t gate_row, y_row, rows, n;
  float eps;
  bool silu;  // else sigmoid
};

// ---- RWKV-7's time mix (rwkv.cpp): all memory float32 ----
// What a head's recurrence takes, of what its projections give for `steps` rows `row` apart: w, a and mix are what the
// logistic function gets.
struct WkvInputs {
  size_t steps, n, row;
  const float *k, *v, *w, *a;                 // [steps, n], row apart
  const float *mix, *first;                   // the same: how much of the first layer's values; null in that layer
  const float *k_k, *k_a;                     // [n]
  float *decay, *key, *value, *minus, *plus;  // [steps, n]: g, k, u, a and b of Recurrence
};
// What a head gives: out = (y + v times the sum of r k r_k) gate.
struct WkvOutputs {
  size_t steps, n, row;
  const float *y, *r, *k, *v;  // [steps, n]
  const float* r_k;            // [n]
  const float* gate;           // [steps, n], row apart
  float* out;                  // the same
};

// No entry may be null or zero: choose() refuses a variant that forgot one.
struct Kernels {
  const char* name;  // "generic", "avx2", "avx512", "neon"

  // ---- conversion (convert.cpp) -------------------------------------------------------------
  // x[n] of `type` -> y[n] float32, and back (round to nearest, ties to even).
  void (*to_f32)(const void* x, Type type, float* y, size_t n);
  void (*from_f32)(const float* x, void* y, Type type, size_t n);

  // ---- quantised matmul (quantize.cpp, quantized.cpp, quantized_generic.cpp) ------------------
  // One row x[K], with scratch[K / 32]. Returns how many outliers there are, or -1 when x has a NaN, an infinity or
  // what is almost one.
  int (*quantize_row)(const void* x, Type type, const QuantRow& to, float* scratch);
  // scratch: quantized_scratch() bytes for M rows, 64-byte aligned.
  void (*quantized_matmul)(const QuantTask& task, char* scratch);
  size_t (*quantized_scratch)(const QuantWeights& w, int M);
  intptr_t quantized_panel;
  // Columns [n0, n1) of w as quantized_matmul() unpacks them, for many calls, to their place in to[unpacked_bytes(w)].
  size_t (*unpacked_bytes)(const QuantWeights& w);
  void (*unpack)(const QuantWeights& w, int n0, int n1, void* to);
  // The same for one row x[K] that quantize_row() refused: in float, nothing rounded.
  void (*quantized_row_exact)(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                              const Output& out);

  // ---- float matmul (dense.cpp) --------------------------------------------------------------
  void (*matmul)(const MatmulTask& task, float* scratch);
  size_t (*matmul_scratch)(int M);  // floats that matmul() needs
  intptr_t matmul_panel;

  // ---- norms (norms.cpp): x[rows, n] -> y[rows, n], everything of `type` -----------------------
  void (*rms_norm)(const void* x, void* y, Type type, size_t rows, size_t n, const Norm& norm);
  void (*layer_norm)(const void* x, void* y, Type type, size_t rows, size_t n, const Norm& norm);
  void (*softmax)(const void* x, void* y, Type type, size_t rows, size_t n);

  // ---- activations (activations.cpp): x[n] up[n] or null -> y[n] = f(x) up ---------------------
  void (*activate)(Activation f, const void* x, const void* up, void* y, Type type, size_t n);
  // x[n] y[n] -> x + y, which may be where x or y is.
  void (*add)(const void* x, const void* y, void* sum, Type type, size_t n);
  // x[k, n] weights[k] -> y[n]: the sum, in order, of the products, each of which is rounded to `type`.
  void (*weighted_sum)(const void* x, const float* weights, void* y, Type type, size_t k, size_t n);

  // ---- rotary positions (rope.cpp) ----------------------------------------------------------
  // inv_freqs[half] -> cosine[half], sine[half] of position * inv_freqs.
  void (*rope_angles)(float position, const float* inv_freqs, float* cosine, float* sine, size_t half);
  // x[dim] -> y[dim]: the first angles.dims rotated.
  void (*rope)(const void* x, void* y, Type type, size_t dim, const Angles& angles);

  // ---- attention (attention.cpp) --------------------------------------------------------------
  size_t (*attention_scratch)(const Attention& a);  // floats that attention() needs
  void (*attention)(const Attention& a, float* scratch);

  // ---- layers with a state (recurrence.cpp, mixer.cpp) -------------------------------------------
  // scratch: recurrence_scratch() floats.
  void (*recurrence)(const Recurrence& r, float* scratch);
  size_t (*recurrence_scratch)(const Recurrence& r);
  void (*convolution)(const Convolution& c);
  // x[rows, n] -> y[rows, n] = scale x / sqrt(sum of x^2 + eps) of each row; y may be where x is.
  void (*unit_length)(const float* x, float* y, size_t rows, size_t n, float eps, float scale);
  void (*gated_norm)(const GatedNorm& g);

  // ---- search (scan.cpp) ----------------------------------------------------------------------
  // codes[rows, n] scales[rows] query[n] -> scores[rows] = scales * (codes . query), 0 when not finite
  void (*int8_scan)(const int8_t* codes, const float* scales, const float* query, float* scores, size_t rows, size_t n);
  // a[rows, n] b[columns, n], int8 in 16 bits, n < 2^17 -> out[rows, columns]: their products, exact.
  void (*int8_products)(const int16_t* a, size_t rows, const int16_t* b, size_t columns, size_t n, int32_t* out);

  // ---- files (checksum.cpp) -------------------------------------------------------------------
  // The CRC-32 of what went before (0: nothing) and x[n] after it -> that of both, as zlib's crc32().
  uint32_t (*crc32)(uint32_t crc, const uint8_t* x, size_t n);

  // ---- RWKV-7 (rwkv.cpp) ----------------------------------------------------------------------
  // x[n] z[n] by[n] -> y[n] = x + (z - x) by
  void (*lerp)(const float* x, const float* z, const float* by, float* y, size_t n);
  void (*wkv_inputs)(const WkvInputs& w);
  void (*wkv_outputs)(const WkvOutputs& w);
};

// The table in use. Chosen once by choose(); "" or "auto" takes the best this CPU has.
// Returns null when the name is unknown or the CPU lacks it; throws std::logic_error when a kernel is missing.
// Safe to call from several threads; what ran before keeps the table that it had.
const Kernels* choose(const char* variant);
const Kernels& kernels();
bool is_complete(const Kernels& k);

// The files of a variant, each of which fills its part of the table.
#define TOAST_KERNEL_FILES(F) \
  F(convert)                  \
  F(quantize)                 \
  F(quantized) F(dense) F(norms) F(activations) F(rope) F(attention) F(recurrence) F(mixer) F(rwkv) F(scan) F(checksum)

#define TOAST_DECLARE_FILL(file) void fill_##file(Kernels&);
#define VARIANT(name, runs_here, flags)  \
  namespace name {                       \
  TOAST_KERNEL_FILES(TOAST_DECLARE_FILL) \
  }
#include "variants.def"
#undef TOAST_DECLARE_FILL

}  // namespace toast
