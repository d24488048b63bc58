// Every kernel's prototype, with its shapes: one table of plain C functions per CPU variant.
// Knows nothing of MLX, Python or threads: a kernel is one thread's work on plain memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace toast {

struct f16 { uint16_t bits; };   // IEEE 754 binary16
struct bf16 { uint16_t bits; };  // the upper half of a float32
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
};
// Rows x[m, K]: q int8 (in the order of int8.h), scale and sum (scale times the sum of q) [m, K / group].
struct QuantRows {
  const int8_t* q;
  const float *scale, *sum;
  int K, group;
};
// What happens to a result on its way out: + bias[N] (or null).
struct Epilogue {
  const float* bias;
};

struct Kernels {
  const char* name;  // "generic", "avx2", "avx512", "neon"
  int lanes;         // floats in one vector

  // ---- conversion (convert.cpp) -------------------------------------------------------------
  // x[n] of `type` -> y[n] float32, and back (round to nearest, ties to even).
  void (*to_f32)(const void* x, Type type, float* y, size_t n);
  void (*from_f32)(const float* x, void* y, Type type, size_t n);

  // ---- quantised matmul (quantize.cpp, quantized.cpp, quantized_generic.cpp) ------------------
  // One row x[K] -> q[K], scale[K / group], sum[K / group]; false when x has a NaN or an infinity.
  bool (*quantize_row)(const void* x, Type type, int K, int group, int bits, int8_t* q, float* scale,
                       float* sum);
  // out[to[m], n] = x[rows[m], :] . w[n, :] for m < M and columns [n0, n1), n0 a multiple of panel;
  // out[.., N] of `type`.
  void (*quantized_matmul)(const QuantWeights& w, const QuantRows& x, const int* rows, const int* to,
                           int M, int n0, int n1, const Epilogue& e, void* out, Type type);
  int panel;
  // The same for one row x[K] that has a NaN or an infinity: in float, nothing rounded.
  void (*quantized_row_exact)(const QuantWeights& w, const void* x, Type type, int to, int n0, int n1,
                              const Epilogue& e, void* out, Type out_type);
};

// The table in use. Chosen once by choose(); "" or "auto" takes the best this CPU has.
// Returns null when the name is unknown or the CPU lacks it.
const Kernels* choose(const char* variant);
const Kernels& kernels();

// Each variant's files fill their part of the table; one call per file.
#define TOAST_DECLARE_VARIANT(v) \
  namespace v {                  \
  void fill_convert(Kernels&);   \
  void fill_quantize(Kernels&);  \
  void fill_quantized(Kernels&); \
  }
TOAST_DECLARE_VARIANT(generic)
TOAST_DECLARE_VARIANT(avx2)
TOAST_DECLARE_VARIANT(avx512)
TOAST_DECLARE_VARIANT(neon)
#undef TOAST_DECLARE_VARIANT

}  // namespace toast
