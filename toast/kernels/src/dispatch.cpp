// Which variant runs: decided once, by what the CPU can do and what the user asked for.
// Knows no kernel, only the tables.
#include <atomic>
#include <cstring>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define CPU(feature) ((getauxval(AT_HWCAP) & HWCAP_##feature) != 0)
#else
#define CPU(feature) __builtin_cpu_supports(#feature)
#endif

namespace toast {
namespace {

struct Variant {
  const char* name;
  bool (*runs_here)();
  void (*fill)(Kernels&);
};

#define TOAST_FILL(file) fill_##file(k);
#define VARIANT(name, runs_here, flags)   \
  {#name, [] { return bool(runs_here); }, \
   [](Kernels& k) {                       \
     using namespace name;                \
     TOAST_KERNEL_FILES(TOAST_FILL)       \
   }},
const Variant variants[] = {
#include "variants.def"
};

Kernels tables[std::size(variants)];
std::mutex filling;
std::atomic<const Kernels*> in_use{nullptr};

const Kernels* table_of(size_t i) {
  std::lock_guard<std::mutex> lock(filling);
  Kernels& k = tables[i];
  if (k.name) return &k;
  Kernels filled{};
  variants[i].fill(filled);
  filled.name = variants[i].name;
  if (!is_complete(filled)) throw std::logic_error(std::string("variant ") + filled.name + " lacks a kernel");
  k = filled;
  return &k;
}

}  // namespace

bool is_complete(const Kernels& k) {
  uintptr_t entries[sizeof(Kernels) / sizeof(uintptr_t)];
  static_assert(sizeof(entries) == sizeof(Kernels));  // nothing but pointers and what is as wide
  std::memcpy(entries, &k, sizeof k);
  for (auto entry : entries)
    if (!entry) return false;
  return true;
}

const Kernels* choose(const char* name) {
  bool any = !*name || !std::strcmp(name, "auto");
  for (size_t i = 0; i < std::size(variants); i++) {
    if (!(any || !std::strcmp(name, variants[i].name)) || !variants[i].runs_here()) continue;
    in_use.store(table_of(i), std::memory_order_release);
    return in_use;
  }
  return nullptr;
}

const Kernels& kernels() {
  const Kernels* k = in_use.load(std::memory_order_acquire);
  return k ? *k : *choose("auto");
}

}  // namespace toast
