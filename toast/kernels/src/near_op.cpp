// Near pairs of an index's int8 vectors, for Python: bytes in, bytes out.
#include "bindings.h"
#include "near_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

nb::bytes pairs(nb::bytes codes, nb::bytes groups, size_t start, size_t stop, double threshold) {
  size_t rows = groups.size() / sizeof(uint32_t), n = rows ? codes.size() / rows : 0;
  if (codes.size() != rows * n || n >= 1 << 17 || start > stop || stop > rows)
    throw nb::value_error("int8_near: codes must be N x D, groups N, and start <= stop <= N");
  std::vector<Pair> found;
  {
    Near near{(const int8_t*)codes.data(), (const uint32_t*)groups.data(), rows, n, threshold};
    nb::gil_scoped_release release;
    found = near_pairs(near, start, stop);
  }
  return nb::bytes((const char*)found.data(), found.size() * sizeof(Pair));
}

}  // namespace

void bind_near(nb::module_& m) {
  m.def("int8_near", &pairs, "codes"_a, "groups"_a, "start"_a, "stop"_a, "threshold"_a,
        "codes (N, D) int8, groups (N,) uint32, as bytes -> pairs (later, earlier) uint32, as bytes: of a row in "
        "[start, stop) and one before it, in two groups, whose cosine is the threshold or more.");
}

}  // namespace toast
