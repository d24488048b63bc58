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

struct Kernels {
  const char* name;  // "generic", "avx2", "avx512", "neon"
  int lanes;         // floats in one vector

  // ---- conversion (convert.cpp) -------------------------------------------------------------
  // x[n] of `type` -> y[n] float32, and back (round to nearest, ties to even).
  void (*to_f32)(const void* x, Type type, float* y, size_t n);
  void (*from_f32)(const float* x, void* y, Type type, size_t n);
};

// The table in use. Chosen once by choose(); "" or "auto" takes the best this CPU has.
// Returns null when the name is unknown or the CPU lacks it.
const Kernels* choose(const char* variant);
const Kernels& kernels();

// Each variant's files fill their part of the table; one call per file.
#define TOAST_DECLARE_VARIANT(v) \
  namespace v {                  \
  void fill_convert(Kernels&);   \
  }
TOAST_DECLARE_VARIANT(generic)
TOAST_DECLARE_VARIANT(avx2)
TOAST_DECLARE_VARIANT(avx512)
TOAST_DECLARE_VARIANT(neon)
#undef TOAST_DECLARE_VARIANT

}  // namespace toast
