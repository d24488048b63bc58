// Norms, softmax and activations as MLX ops: arrays, shapes and streams. Who computes what is in floats_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "bindings.h"
#include "floats_work.h"
#include "mlx/fast.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// work(x, y, type, rows, n) on the stream: x[rows, n] -> y[rows, n]
template <class F>
void by_rows(const mx::array& in, mx::array& out, const mx::Stream& s, F work) {
  auto x = contiguous(in, s);
  allocate(out);
  size_t n = out.shape(-1);
  dispatch(s, [=, from = x.data<char>(), to = out.data<char>(), type = type_of(out), rows = out.size() / n] {
    work(from, to, type, rows, n);
  });
}

bool fits(const OptionalArray& w, const mx::array& x) { return !w || (w->ndim() == 1 && w->shape(0) == x.shape(-1)); }

// The norm of an op whose inputs are x, [weight], [bias].
Norm norm_of(const Arrays& in, bool weighted, bool biased, float eps, const mx::Stream& s) {
  Norm norm{nullptr, nullptr, eps};
  if (weighted) norm.weight = contiguous(in[1], s).data<char>();
  if (biased) norm.bias = contiguous(in.back(), s).data<char>();
  return norm;
}

mx::array rms_norm(const mx::array& x, const OptionalArray& weight, float eps, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto type = weight ? mx::result_type(x, *weight) : x.dtype();
  if (!ours(s) || !is_float(type) || !x.ndim() || !x.size() || !fits(weight, x))
    return mx::fast::rms_norm(x, weight, eps, where);
  Arrays inputs{mx::astype(x, type, s)};
  if (weight) inputs.push_back(mx::astype(*weight, type, s));
  auto eval = [eps](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto norm = norm_of(in, in.size() > 1, false, eps, s);
    by_rows(in[0], out, s, [norm](auto... rows) { rms_norm_rows(rows..., norm); });
  };
  return make("RMSNorm", x.shape(), type, s, std::move(inputs), eval);
}

mx::array layer_norm(const mx::array& x, const OptionalArray& weight, const OptionalArray& bias, float eps,
                     mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto type = !weight ? x.dtype() : bias ? mx::result_type(x, *weight, *bias) : mx::result_type(x, *weight);
  if (!ours(s) || !is_float(type) || !x.ndim() || !x.size() || !fits(weight, x) || !fits(bias, x))
    return mx::fast::layer_norm(x, weight, bias, eps, where);
  Arrays inputs{mx::astype(x, type, s)};
  for (auto& w : {weight, bias})
    if (w) inputs.push_back(mx::astype(*w, type, s));
  auto eval = [eps, weighted = weight.has_value(), biased = bias.has_value()](const Arrays& in, mx::array& out,
                                                                              const mx::Stream& s) {
    auto norm = norm_of(in, weighted, biased, eps, s);
    by_rows(in[0], out, s, [norm](auto... rows) { layer_norm_rows(rows..., norm); });
  };
  return make("LayerNorm", x.shape(), type, s, std::move(inputs), eval);
}

mx::array softmax_last(const mx::array& x, const mx::Stream& s) {
  return make("Softmax", x.shape(), x.dtype(), s, {x}, [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    by_rows(in[0], out, s, [](auto... rows) { softmax_rows(rows...); });
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
mx::array by_mlx(Activation f, const mx::array& x, const mx::Stream& s) {
  auto number = [&](double v) {
    return mx::array((float)v, mx::issubdtype(x.dtype(), mx::floating) ? x.dtype() : mx::float32);
  };
  auto times = [&](const mx::array& a, const mx::array& b) { return mx::multiply(a, b, s); };
  if (f == Activation::sigmoid) return mx::sigmoid(x, s);
  if (f == Activation::silu) return times(x, mx::sigmoid(x, s));
  if (f == Activation::gelu)
    return times(times(x, mx::add(number(1), mx::erf(times(x, number(std::sqrt(0.5))), s), s)), number(0.5));
  auto cubic = mx::add(x, times(number(0.044715), times(x, times(x, x))), s);
  return times(times(x, number(0.5)), mx::add(number(1), mx::tanh(times(number(std::sqrt(2 / M_PI)), cubic), s), s));
}

// f(x), or f(x) * up.
mx::array activate(Activation f, const mx::array& x, const OptionalArray& up, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!ours(s) || !is_float(x.dtype()) || !x.size() || (up && (up->dtype() != x.dtype() || up->shape() != x.shape()))) {
    auto y = by_mlx(f, x, s);
    return up ? mx::multiply(y, *up, s) : y;
  }
  Arrays inputs{x};
  if (up) inputs.push_back(*up);
  auto eval = [f](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s).data<char>(), up = in.size() > 1 ? contiguous(in[1], s).data<char>() : nullptr;
    allocate(out);
    dispatch(s, [=, y = out.data<char>(), type = type_of(out), n = out.size()] { activate_all(f, x, up, y, type, n); });
  };
  return make("Activation", x.shape(), x.dtype(), s, std::move(inputs), eval);
}

// x + y: MLX's own does an element at a time.
mx::array add(const mx::array& x, const mx::array& y) {
  auto s = mx::to_stream({});
  if (!ours(s) || !is_float(x.dtype()) || !x.size() || x.dtype() != y.dtype() || x.shape() != y.shape())
    return mx::add(x, y, s);
  auto eval = [](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s).data<char>(), y = contiguous(in[1], s).data<char>();
    allocate(out);
    dispatch(s, [=, to = out.data<char>(), type = type_of(out), n = out.size()] { add_all(x, y, to, type, n); });
  };
  return make("Sum", x.shape(), x.dtype(), s, {x, y}, eval);
}

}  // namespace

void bind_floats(nb::module_& m) {
  auto stream = "stream"_a = nb::none();
  m.def("rms_norm", &rms_norm, "x"_a, "weight"_a.none(), "eps"_a, nb::kw_only(), stream);
  m.def("layer_norm", &layer_norm, "x"_a, "weight"_a.none(), "bias"_a.none(), "eps"_a, nb::kw_only(), stream);
  m.def("softmax", &softmax, nb::arg(), "axis"_a = nb::none(), nb::kw_only(), "precise"_a = false, stream);
  auto define = [&](const char* name, Activation f) {
    m.def(name, [f](const mx::array& x) { return activate(f, x, {}, {}); }, "x"_a);
  };
  define("gelu", Activation::gelu);
  define("gelu_approx", Activation::gelu_tanh);
  define("silu", Activation::silu);
  m.def("add", &add, "x"_a, "y"_a);
  m.def(
      "sigmoid",
      [](const mx::array& x, mx::StreamOrDevice where) { return activate(Activation::sigmoid, x, {}, where); },
      nb::arg(), nb::kw_only(), stream);
  m.def(
      "swiglu", [](const mx::array& gate, const mx::array& x) { return activate(Activation::silu, gate, x, {}); },
      "gate"_a, "x"_a, "silu(gate) * x");
}

}  // namespace toast
