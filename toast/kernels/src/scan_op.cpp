// The scan of an index's int8 vectors, for Python: bytes in, bytes out.
#include "bindings.h"
#include "scan_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

nb::bytes int8_scan(nb::bytes codes, nb::bytes scales, nb::bytes query) {
  size_t n = query.size() / sizeof(float), rows = scales.size() / sizeof(float);
  if (codes.size() != rows * n) throw nb::value_error("int8_scan: codes must be N x D, scales N, query D");
  nb::bytes scores = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, rows * sizeof(float)));
  if (!scores.is_valid()) nb::raise_python_error();
  Scan scan{(const int8_t*)codes.data(),
            (const float*)scales.data(),
            (const float*)query.data(),
            (float*)PyBytes_AsString(scores.ptr()),
            rows,
            n};
  nb::gil_scoped_release release;
  run(scan);
  return scores;
}

}  // namespace

void bind_scan(nb::module_& m) {
  m.def("int8_scan", &int8_scan, "codes"_a, "scales"_a, "query"_a,
        "codes (N, D) int8, scales (N,) float32, query (D,) float32, as bytes -> N float32 scores, as bytes.");
}

}  // namespace toast
