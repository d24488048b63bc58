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

enum class Activation : uint8_t { gelu, gelu_tanh, silu };
enum class Mask : uint8_t { none, causal, boolean, additive };

// Attention of one key/value head to a tile of queries of the `group` heads that share it.
// q[group, queries, dk] k[keys, dk] v[keys, dv] -> y[group, queries, dv], all of `type`, rows contiguous.
struct Attention {
  Type type;
  Mask mask;
  size_t group, queries, keys, dk, dv;
  const void *q, *k, *v;
  void* y;
  int64_t q_head, q_row, k_row, v_row, y_head, y_row;  // strides in elements
  float scale;
  int64_t visible;        // causal: how many keys the first query sees (the next one sees one more)
  const void* m;          // boolean or additive (of `type`) mask [group, queries, keys], or null
  int64_t m_head, m_row;
  const void* sinks;      // [group] or null
};

struct Kernels {
  const char* name;  // "generic", "avx2", "avx512", "neon"
  int lanes;         // floats in one vector

  // ---- conversion (convert.cpp) -------------------------------------------------------------
  // x[n] of `type` -> y[n] float32, and back (round to nearest, ties to even).
  void (*to_f32)(const void* x, Type type, float* y, size_t n);
  void (*from_f32)(const float* x, void* y, Type type, size_t n);

  // ---- norms (norms.cpp): rows of n; w and b [n] or null; everything of `type` -----------------
  // x[rows, n] -> y[rows, n]
  void (*rms_norm)(const void* x, const void* w, void* y, Type type, size_t rows, size_t n, float eps);
  void (*layer_norm)(const void* x, const void* w, const void* b, void* y, Type type, size_t rows, size_t n, float eps);
  void (*softmax)(const void* x, void* y, Type type, size_t rows, size_t n);

  // ---- activations (activations.cpp): x[n] up[n] or null -> y[n] = f(x) up ---------------------
  void (*activate)(Activation f, const void* x, const void* up, void* y, Type type, size_t n);

  // ---- rotary positions (rope.cpp) ----------------------------------------------------------
  // inv_freqs[half] -> cosine[half], sine[half] of position * inv_freqs.
  void (*rope_angles)(float position, const float* inv_freqs, float* cosine, float* sine, size_t half);
  // x[dim] -> y[dim]: the first `dims` turned, in pairs of neighbours (traditional) or of halves.
  void (*rope)(const void* x, void* y, Type type, size_t dim, size_t dims, bool traditional, const float* cosine, const float* sine);

  // ---- attention (attention.cpp) --------------------------------------------------------------
  size_t (*attention_scratch)(const Attention& a);  // floats that attention() needs
  void (*attention)(const Attention& a, float* scratch);
};

// The table in use. Chosen once by choose(); "" or "auto" takes the best this CPU has.
// Returns null when the name is unknown or the CPU lacks it.
const Kernels* choose(const char* variant);
const Kernels& kernels();

// Each variant's files fill their part of the table; one call per file.
#define TOAST_DECLARE_VARIANT(v) \
  namespace v {                  \
  void fill_convert(Kernels&); \
  void fill_norms(Kernels&); \
  void fill_activations(Kernels&); \
  void fill_rope(Kernels&); \
  void fill_attention(Kernels&); \
  }
TOAST_DECLARE_VARIANT(generic)
TOAST_DECLARE_VARIANT(avx2)
TOAST_DECLARE_VARIANT(avx512)
TOAST_DECLARE_VARIANT(neon)
#undef TOAST_DECLARE_VARIANT

}  // namespace toast
