// Rope as an MLX op: the angles of a position computed once for all its heads.
// The arithmetic is in rope.cpp; this file knows arrays, shapes and streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include "bindings.h"
#include "floats_op.h"
#include "mlx/fast.h"
#include "rope_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {

namespace {

// x (B, N, T, D) turned into y, which has its memory already; rows contiguous in both.
void turn(Rope r, int offset, const mx::array& x, mx::array& y, const Optional& offsets, const Optional& freqs,
          const mx::Stream& s) {
  size_t T = x.shape(-2), D = x.shape(-1), B = x.shape(0), N = x.size() / (B * T * D);
  auto head = [&](const mx::array& a) { return a.ndim() == 3 ? 0 : a.ndim() == 4 ? a.strides(1) : (int64_t)(T * D); };
  dispatch(s, [=, type = type_of(x), size = (int64_t)x.itemsize(), from = x.data<char>(), to = y.data<char>(),
               xb = x.strides(0), xn = head(x), xt = x.strides(-2), yb = y.strides(0), yn = head(y), yt = y.strides(-2),
               starts = offsets ? offsets->data<int>() : nullptr, many = offsets && offsets->size() > 1,
               freqs = freqs ? freqs->data<float>() : nullptr]() mutable {
    if (freqs) r.inverse = inverted(freqs, r.dims / 2);
    each_rows(B * T, N * D, [&](size_t first, size_t count) {
      Turn turn(r);
      for (size_t row = first; row < first + count; row++) {
        int64_t b = row / T, t = row % T;
        turn.at((float)t + (starts ? (float)starts[many ? b : 0] : (float)offset));
        for (int64_t n = 0; n < (int64_t)N; n++)
          turn.head(from + (b * xb + n * xn + t * xt) * size, to + (b * yb + n * yn + t * yt) * size, type, D);
      }
    });
  });
}

mx::array rope(const mx::array& x, int dims, bool traditional, std::optional<float> base, float scale,
               const std::variant<int, mx::array>& offset, const Optional& freqs, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto offsets = std::get_if<mx::array>(&offset);
  auto whole = [&](const mx::array& o) {
    return o.ndim() <= 1 && (o.size() == 1 || (int)o.size() == x.shape(0)) && mx::issubdtype(o.dtype(), mx::integer);
  };
  bool ok = ours(s) && is_float(x.dtype()) && x.ndim() >= 3 && x.size() && dims > 0 && dims % 2 == 0 &&
            dims <= x.shape(-1) && base.has_value() != freqs.has_value() && (!offsets || whole(*offsets)) &&
            (!freqs || (freqs->ndim() == 1 && freqs->shape(0) == dims / 2));
  if (!ok) {
    if (offsets) return mx::fast::rope(x, dims, traditional, base, scale, *offsets, freqs, where);
    return mx::fast::rope(x, dims, traditional, base, scale, std::get<int>(offset), freqs, where);
  }
  Arrays inputs{x};
  if (offsets) inputs.push_back(mx::astype(*offsets, mx::int32, s));
  if (freqs) inputs.push_back(mx::astype(*freqs, mx::float32, s));
  Rope r{dims, traditional, scale, base ? inverse_frequencies(*base, dims / 2) : nullptr};
  auto eval = [r, first = offsets ? 0 : std::get<int>(offset), has_offsets = offsets != nullptr,
               has_freqs = freqs.has_value()](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = in[0].ndim() <= 4 ? rows_contiguous(in[0], s) : contiguous(in[0], s);
    if (x.flags().contiguous && x.data_size() == x.size())  // the same layout: heads stay merged
      out.set_data(mx::allocator::malloc(out.nbytes()), x.data_size(), x.strides(), x.flags());
    else
      allocate(out);
    Optional offsets, freqs;
    if (has_offsets) offsets = contiguous(in[1], s);
    if (has_freqs) freqs = contiguous(in.back(), s);
    turn(r, first, x, out, offsets, freqs, s);
  };
  return make("RoPE", x.shape(), x.dtype(), s, std::move(inputs), eval);
}

}  // namespace

void bind_rope(nb::module_& m) {
  m.def("rope", &rope, "a"_a, "dims"_a, nb::kw_only(), "traditional"_a, "base"_a.none(), "scale"_a, "offset"_a,
        "freqs"_a = nb::none(), "stream"_a = nb::none());
}

}  // namespace toast
