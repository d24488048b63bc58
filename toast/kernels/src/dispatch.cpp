// Which variant runs: decided once, by what the CPU can do and what the user asked for.
// Knows no kernel, only the tables.
#include <cstring>

#include "kernels.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace toast {
namespace {

using Fill = void (*)(Kernels&);
struct Variant {
  const char* name;
  bool (*runs_here)();
  Fill fill[12];  // the rest null
};

bool always() { return true; }

#define FILLS(v)                                                                              \
  {v::fill_convert,  v::fill_norms,     v::fill_activations, v::fill_rope, v::fill_attention, \
   v::fill_quantize, v::fill_quantized, v::fill_dense,       v::fill_scan, v::fill_checksum}

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("pclmul");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
const Variant variants[] = {
    {"avx512", has_avx512, FILLS(avx512)},
    {"avx2", has_avx2, FILLS(avx2)},
    {"generic", always, FILLS(generic)},
};
#elif defined(__aarch64__)
bool has_neon() {
  constexpr unsigned long wanted = 1ul << 20 | 1ul << 7;  // HWCAP_ASIMDDP, HWCAP_CRC32
  return (getauxval(AT_HWCAP) & wanted) == wanted;
}
const Variant variants[] = {
    {"neon", has_neon, FILLS(neon)},
    {"generic", always, FILLS(generic)},
};
#else
const Variant variants[] = {{"generic", always, FILLS(generic)}};
#endif

Kernels table;

}  // namespace

const Kernels* choose(const char* name) {
  bool any = !*name || !std::strcmp(name, "auto");
  for (const Variant& v : variants) {
    if (!(any || !std::strcmp(name, v.name)) || !v.runs_here()) continue;
    Kernels k{};
    k.name = v.name;
    for (Fill fill : v.fill)
      if (fill) fill(k);
    table = k;
    return &table;
  }
  return nullptr;
}

const Kernels& kernels() {
  if (!table.name) choose("auto");
  return table;
}

}  // namespace toast
