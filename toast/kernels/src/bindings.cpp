// What Python sees of the kernels: functions with MLX's signatures, and the pool's and variant's switches.
// Replacing MLX's functions is toast/kernels/__init__.py's business.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <atomic>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "bindings.h"
#include "bus.h"
#include "cpus.h"
#include "kernels.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

// An op's output of some megabytes would otherwise be mapped, cleared by the kernel page by page and unmapped
// again, a quarter of an encoder's time. What is kept is at most what was in use at once.
static void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, toast::tuning::KEPT_BLOCK);
  mallopt(M_TRIM_THRESHOLD, toast::tuning::KEPT_MEMORY);
#endif
}

NB_MODULE(_ext, m) {
  keep_freed_memory();
  m.def(
      "choose",
      [](const std::string& v) {
        auto k = toast::choose(v.c_str());
        return k ? k->name : nullptr;
      },
      "variant"_a, "Use this variant from now on; returns its name, or None when it cannot run here.");
  m.def("set_threads", &toast::set_threads, "n"_a,
        "Threads in all; 0 follows the CPU affinity and the cgroup's quota.");
  m.def("threads", &toast::threads);
  m.def("quota_cpus", &toast::quota_cpus, "cgroups"_a, "root"_a,
        "CPUs that the smallest quota is worth, of what /proc/PID/cgroup says and where cgroups are mounted; 0: none.");
  m.def(
      "parallel_sum",
      [](int n) {
        std::atomic<int64_t> sum{0};
        toast::parallel(n, [&](int i) { sum += i; });
        return sum.load();
      },
      "n"_a, "0 + 1 + .. + n - 1, every number a task of the pool: it shows that the threads are alive.");
  m.def("tell_of_shrunk_files", &toast::tell_of_shrunk_files,
        "A mapped file that shrinks ends the process with status 2 and a line.");
  toast::bind_floats(m);
  toast::bind_quantized(m);
  toast::bind_dense(m);
  toast::bind_weights(m);
  toast::bind_rope(m);
  toast::bind_attention(m);
  toast::bind_cache(m);
  toast::bind_recurrence(m);
  toast::bind_mixer(m);
  toast::bind_delta_net(m);
  toast::bind_short_conv(m);
  toast::bind_mamba(m);
  toast::bind_layer(m);
  toast::bind_rwkv(m);
  toast::bind_encoder(m);
  toast::bind_scan(m);
  toast::bind_near(m);
  toast::bind_checksum(m);
}
