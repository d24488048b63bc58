// The scan of an index's int8 vectors, for Python: bytes in, bytes out, all threads.
#include <algorithm>

#include "bindings.h"
#include "kernels.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr size_t block = 512;  // rows of a task

nb::bytes int8_scan(nb::bytes codes, nb::bytes scales, nb::bytes query) {
  size_t n = query.size() / sizeof(float), rows = scales.size() / sizeof(float);
  if (codes.size() != rows * n) throw nb::value_error("int8_scan: codes must be N x D, scales N, query D");
  nb::bytes scores = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, rows * sizeof(float)));
  if (!scores.is_valid()) nb::raise_python_error();
  auto c = (const int8_t*)codes.data();
  auto s = (const float*)scales.data(), q = (const float*)query.data();
  auto y = (float*)PyBytes_AsString(scores.ptr());
  nb::gil_scoped_release release;
  if (rows)
    parallel((int)((rows + block - 1) / block), [&](int task) {
      size_t at = task * block;
      kernels().int8_scan(c + at * n, s + at, q, y + at, std::min(block, rows - at), n);
    });
  return scores;
}

}  // namespace

void bind_scan(nb::module_& m) {
  m.def("int8_scan", &int8_scan, "codes"_a, "scales"_a, "query"_a,
        "codes (N, D) int8, scales (N,) float32, query (D,) float32, as bytes -> N float32 scores, as bytes.");
}

}  // namespace toast
