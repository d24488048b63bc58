// Rope as an MLX op: arrays, shapes and streams. Who rotates what is in rope_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include "bindings.h"
#include "mlx/fast.h"
#include "op.h"
#include "rope_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {

namespace {

// x (B, N, T, D) -> y, which has its memory already; rows contiguous in both.
RopeWork work_of(const mx::array& x, mx::array& y) {
  size_t T = x.shape(-2), D = x.shape(-1), B = x.shape(0), N = x.size() / (B * T * D);
  auto heads = [&](const mx::array& a) {
    int64_t head = a.ndim() == 3 ? 0 : a.ndim() == 4 ? a.strides(1) : (int64_t)(T * D);
    return RopeWork::Heads{const_cast<char*>(a.data<char>()), a.strides(0), head, a.strides(-2)};
  };
  return {heads(x), heads(y), type_of(x), B, N, T, D, nullptr, false, 0};
}

mx::array rope(const mx::array& x, int dims, bool traditional, std::optional<float> base, float scale,
               const std::variant<int, mx::array>& offset, const OptionalArray& freqs, mx::StreamOrDevice where) {
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
    auto work = work_of(x, out);
    work.offset = first;
    if (has_offsets) work.offsets = contiguous(in[1], s).data<int>(), work.offset_a_text = in[1].size() > 1;
    auto f = has_freqs ? contiguous(in.back(), s).data<float>() : nullptr;
    dispatch(s, [work, f, r = r]() mutable {
      if (f) r.inverse = inverted(f, r.dims / 2);
      rotate_all(r, work);
    });
  };
  return make("RoPE", x.shape(), x.dtype(), s, std::move(inputs), eval);
}

}  // namespace

void bind_rope(nb::module_& m) {
  m.def("rope", &rope, "a"_a, "dims"_a, nb::kw_only(), "traditional"_a, "base"_a.none(), "scale"_a, "offset"_a,
        "freqs"_a = nb::none(), "stream"_a = nb::none());
}

}  // namespace toast
