// Norms, softmax, activations and rope as MLX ops: inputs made contiguous, rows shared out over the threads.
// The arithmetic is in the kernels (kernels.h); this file knows arrays, shapes and streams.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <map>
#include <mutex>

#include "bindings.h"
#include "mlx/fast.h"
#include "op.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr size_t kPiece = 1 << 14;  // elements worth waking a thread for
using Optional = std::optional<mx::array>;
using Arrays = std::vector<mx::array>;

// f(first, count) over `rows` rows of n elements, in pieces.
template <class F>
void each_rows(size_t rows, size_t n, F f) {
  size_t step = std::max<size_t>(1, kPiece / std::max<size_t>(n, 1));
  parallel((rows + step - 1) / step, [&](int i) { f(i * step, std::min(step, rows - i * step)); });
}

// y[rows, n] = kernel(x[rows, n], more..), kernel(from, to, rows) on the stream.
template <class F>
void by_rows(const mx::array& in, mx::array& out, const mx::Stream& s, F kernel) {
  auto x = contiguous(in, s);
  allocate(out);
  size_t n = out.shape(-1), row = n * out.itemsize();
  dispatch(s, [=, from = x.data<char>(), to = out.data<char>(), rows = out.size() / n] {
    each_rows(rows, n, [&](size_t first, size_t count) { kernel(from + first * row, to + first * row, count); });
  });
}

bool fits(const Optional& w, const mx::array& x) { return !w || (w->ndim() == 1 && w->shape(0) == x.shape(-1)); }

mx::array rms_norm(const mx::array& x, const Optional& weight, float eps, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto type = weight ? mx::result_type(x, *weight) : x.dtype();
  if (!ours(s) || !is_float(type) || !x.ndim() || !x.size() || !fits(weight, x))
    return mx::fast::rms_norm(x, weight, eps, where);
  Arrays inputs{mx::astype(x, type, s)};
  if (weight) inputs.push_back(mx::astype(*weight, type, s));
  return make("RMSNorm", x.shape(), type, s, std::move(inputs), [eps](const Arrays& in, mx::array& out, const mx::Stream& s) {
    Optional w;
    if (in.size() > 1) w = contiguous(in[1], s);
    by_rows(in[0], out, s, [=, w = w ? w->data<char>() : nullptr, type = type_of(out), n = out.shape(-1)](
        const char* x, char* y, size_t rows) { kernels().rms_norm(x, w, y, type, rows, n, eps); });
  });
}

mx::array layer_norm(const mx::array& x, const Optional& weight, const Optional& bias, float eps, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto type = !weight ? x.dtype() : bias ? mx::result_type(x, *weight, *bias) : mx::result_type(x, *weight);
  if (!ours(s) || !is_float(type) || !x.ndim() || !x.size() || !fits(weight, x) || !fits(bias, x))
    return mx::fast::layer_norm(x, weight, bias, eps, where);
  Arrays inputs{mx::astype(x, type, s)};
  for (auto& w : {weight, bias})
    if (w) inputs.push_back(mx::astype(*w, type, s));
  auto eval = [eps, weighted = weight.has_value(), biased = bias.has_value()](
      const Arrays& in, mx::array& out, const mx::Stream& s) {
    Optional w, b;
    if (weighted) w = contiguous(in[1], s);
    if (biased) b = contiguous(in.back(), s);
    by_rows(in[0], out, s, [=, w = w ? w->data<char>() : nullptr, b = b ? b->data<char>() : nullptr,
                            type = type_of(out), n = out.shape(-1)](const char* x, char* y, size_t rows) {
      kernels().layer_norm(x, w, b, y, type, rows, n, eps);
    });
  };
  return make("LayerNorm", x.shape(), type, s, std::move(inputs), eval);
}

mx::array softmax_last(const mx::array& x, const mx::Stream& s) {
  return make("Softmax", x.shape(), x.dtype(), s, {x}, [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    by_rows(in[0], out, s, [type = type_of(out), n = out.shape(-1)](const char* x, char* y, size_t rows) {
      kernels().softmax(x, y, type, rows, n);
    });
  });
}

using Axes = std::variant<std::monostate, int, std::vector<int>>;

mx::array softmax(const mx::array& x, const Axes& axis, bool precise, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto one = std::get_if<int>(&axis);
  auto many = std::get_if<std::vector<int>>(&axis);
  if (many && many->size() == 1) one = &many->front();
  bool last = one ? *one == -1 || *one == (int)x.ndim() - 1 : !many && x.ndim() == 1;
  if (last && ours(s) && is_float(x.dtype()) && x.ndim() && x.size()) return softmax_last(x, s);
  if (one) return mx::softmax(x, *one, precise, where);
  return many ? mx::softmax(x, *many, precise, where) : mx::softmax(x, precise, where);
}

// The same with MLX's ops, for other devices and dtypes.
mx::array plain(Activation f, const mx::array& x, const mx::Stream& s) {
  auto number = [&](double v) { return mx::array((float)v, mx::issubdtype(x.dtype(), mx::floating) ? x.dtype() : mx::float32); };
  auto times = [&](const mx::array& a, const mx::array& b) { return mx::multiply(a, b, s); };
  if (f == Activation::silu) return times(x, mx::sigmoid(x, s));
  if (f == Activation::gelu)
    return times(times(x, mx::add(number(1), mx::erf(times(x, number(std::sqrt(0.5))), s), s)), number(0.5));
  auto cubic = mx::add(x, times(number(0.044715), times(x, times(x, x))), s);
  return times(times(x, number(0.5)), mx::add(number(1), mx::tanh(times(number(std::sqrt(2 / M_PI)), cubic), s), s));
}

// f(x), or f(x) * up.
mx::array activate(Activation f, const mx::array& x, const Optional& up, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!ours(s) || !is_float(x.dtype()) || !x.size() || (up && (up->dtype() != x.dtype() || up->shape() != x.shape()))) {
    auto y = plain(f, x, s);
    return up ? mx::multiply(y, *up, s) : y;
  }
  Arrays inputs{x};
  if (up) inputs.push_back(*up);
  return make("Activation", x.shape(), x.dtype(), s, std::move(inputs), [f](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    Optional up;
    if (in.size() > 1) up = contiguous(in[1], s);
    allocate(out);
    dispatch(s, [=, x = x.data<char>(), up = up ? up->data<char>() : nullptr, y = out.data<char>(),
                 type = type_of(out), n = out.size()] {
      each_rows(n, 1, [&](size_t i, size_t count) {
        size_t at = i * size_of(type);
        kernels().activate(f, x + at, up ? up + at : nullptr, y + at, type, count);
      });
    });
  });
}

// base^(-i / half) for i < half, rounded once; computed once for each model.
std::shared_ptr<const std::vector<float>> inverse_frequencies(float base, int half) {
  static std::mutex mutex;
  static std::map<std::pair<float, int>, std::shared_ptr<const std::vector<float>>> known;
  std::lock_guard<std::mutex> lock(mutex);
  auto& found = known[{base, half}];
  if (!found) {
    std::vector<float> f(half);
    for (int i = 0; i < half; i++) f[i] = (float)std::pow((double)base, -(double)i / half);
    found = std::make_shared<const std::vector<float>>(std::move(f));
  }
  return found;
}

struct RopeArgs {
  int dims;
  bool traditional;
  float scale;
  int offset;  // when it is not an array
  bool has_offsets, has_freqs;
  std::shared_ptr<const std::vector<float>> inverse;  // when there is a base
};

// x (B, N, T, D), last dimension contiguous, -> out with the same layout when x is dense.
void eval_rope(const RopeArgs& r, const Arrays& in, mx::array& out, const mx::Stream& s) {
  auto x = in[0].ndim() <= 4 && in[0].strides(-1) == 1 ? in[0] : contiguous(in[0], s);
  if (x.flags().contiguous && x.data_size() == x.size())
    out.set_data(mx::allocator::malloc(out.nbytes()), x.data_size(), x.strides(), x.flags());
  else
    allocate(out);
  size_t T = x.shape(-2), D = x.shape(-1), B = x.shape(0), N = x.size() / (B * T * D), half = r.dims / 2;
  auto head = [&](const mx::array& a) { return a.ndim() == 3 ? 0 : a.ndim() == 4 ? a.strides(1) : (int64_t)(T * D); };
  Optional offsets, freqs;
  if (r.has_offsets) offsets = contiguous(in[1], s);
  if (r.has_freqs) freqs = contiguous(in.back(), s);
  dispatch(s, [=, type = type_of(out), size = out.itemsize(), from = x.data<char>(), to = out.data<char>(),
               xb = x.strides(0), xn = head(x), xt = x.strides(-2), yb = out.strides(0), yn = head(out),
               yt = out.strides(-2), starts = offsets ? offsets->data<int>() : nullptr,
               many = offsets && offsets->size() > 1, freqs = freqs ? freqs->data<float>() : nullptr] {
    std::vector<float> own;
    for (size_t i = 0; freqs && i < half; i++) own.push_back(1.f / freqs[i]);
    const float* inverse = freqs ? own.data() : r.inverse->data();
    each_rows(B * T, N * D, [&](size_t first, size_t count) {
      std::vector<float> angles(2 * half);
      for (size_t row = first; row < first + count; row++) {
        size_t b = row / T, t = row % T;
        float start = starts ? (float)starts[many ? b : 0] : (float)r.offset;
        kernels().rope_angles(((float)t + start) * r.scale, inverse, angles.data(), angles.data() + half, half);
        for (size_t n = 0; n < N; n++)
          kernels().rope(from + (int64_t)(b * xb + n * xn + t * xt) * (int64_t)size,
                         to + (int64_t)(b * yb + n * yn + t * yt) * (int64_t)size, type, D, r.dims,
                         r.traditional, angles.data(), angles.data() + half);
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
  RopeArgs r{dims, traditional, scale, offsets ? 0 : std::get<int>(offset), offsets != nullptr, freqs.has_value(),
             base ? inverse_frequencies(*base, dims / 2) : nullptr};
  return make("RoPE", x.shape(), x.dtype(), s, std::move(inputs),
              [r](const Arrays& in, mx::array& out, const mx::Stream& s) { eval_rope(r, in, out, s); });
}

// buffer (B, H, capacity, D) with rows (B, H, n, D) written from position `start` on, and its first start + n.
std::pair<mx::array, mx::array> append(const mx::array& buffer, const mx::array& rows, int start) {
  auto stop = buffer.shape();
  stop.at(2) = start + rows.shape(2);
  auto updated = mx::slice_update(buffer, rows, {0, 0, start, 0}, stop);
  return {updated, mx::slice(updated, {0, 0, 0, 0}, stop)};
}

mx::array to_float32(const mx::array& x, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!ours(s) || !is_float(x.dtype())) return mx::astype(x, mx::float32, s);
  return make("ToFloat32", x.shape(), mx::float32, s, {x}, [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    allocate(out);
    dispatch(s, [from = x.data<char>(), type = type_of(x), to = out.data<float>(), n = out.size()] {
      each_rows(n, 1, [&](size_t i, size_t count) { kernels().to_f32(from + i * size_of(type), type, to + i, count); });
    });
  });
}

}  // namespace

void bind_floats(nb::module_& m) {
  auto stream = "stream"_a = nb::none();
  m.def("to_float32", &to_float32, nb::arg(), nb::kw_only(), stream);
  m.def("rms_norm", &rms_norm, "x"_a, "weight"_a.none(), "eps"_a, nb::kw_only(), stream);
  m.def("layer_norm", &layer_norm, "x"_a, "weight"_a.none(), "bias"_a.none(), "eps"_a, nb::kw_only(), stream);
  m.def("softmax", &softmax, nb::arg(), "axis"_a = nb::none(), nb::kw_only(), "precise"_a = false, stream);
  m.def("rope", &rope, "a"_a, "dims"_a, nb::kw_only(), "traditional"_a, "base"_a.none(), "scale"_a, "offset"_a,
        "freqs"_a = nb::none(), stream);
  auto define = [&](const char* name, Activation f) {
    m.def(name, [f](const mx::array& x) { return activate(f, x, {}, {}); }, "x"_a);
  };
  define("gelu", Activation::gelu);
  define("gelu_approx", Activation::gelu_tanh);
  define("silu", Activation::silu);
  m.def("swiglu", [](const mx::array& gate, const mx::array& x) { return activate(Activation::silu, gate, x, {}); },
        "gate"_a, "x"_a, "silu(gate) * x");
  m.def("append", &append, "buffer"_a, "rows"_a, "start"_a);
}

}  // namespace toast
