// Float ops as MLX primitives: inputs made contiguous, rows shared out over the threads.
// The arithmetic is in the kernels (kernels.h); this file knows arrays, shapes and streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include "bindings.h"
#include "op.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {

mx::array to_float32(const mx::array& x, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!ours(s) || !is_float(x.dtype())) return mx::astype(x, mx::float32, s);
  auto eval = [](const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    allocate(out);
    dispatch(s, [from = x.data<char>(), type = type_of(x), to = out.data<float>(), n = out.size()] {
      constexpr size_t piece = 1 << 15;
      parallel((n + piece - 1) / piece, [&](int i) {
        size_t at = i * piece;
        kernels().to_f32(from + at * size_of(type), type, to + at, std::min(piece, n - at));
      });
    });
  };
  return make("ToFloat32", x.shape(), mx::float32, s, {x}, eval);
}

void bind_floats(nb::module_& m) {
  m.def("to_float32", &to_float32, nb::arg(), nb::kw_only(), "stream"_a = nb::none());
}

}  // namespace toast
