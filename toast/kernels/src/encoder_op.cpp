// An encoder's layer with norms after (BERT's) as one op, or what of it follows attention: arrays, shapes and streams.
// Who does what in which order is in encoder_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "bindings.h"
#include "encoder_work.h"
#include "matmul.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// As Python gives them: w, scales, biases, group, bits, bias; weight, bias, eps.
using LinearTuple = std::tuple<mx::array, mx::array, mx::array, int, int, mx::array>;
using NormTuple = std::tuple<mx::array, mx::array, float>;

constexpr Refuse refuse{"[encoder] "};

mx::array row_of(int n) { return mx::array({1, n}, mx::float32, nullptr, {}); }

// linears, one after the other from K columns on; returns the columns of the last.
int check(int K, const std::vector<LinearTuple>& linears) {
  for (auto& [w, scales, biases, group, bits, bias] : linears) {
    bool fits = w.ndim() == 2 && is_supported(row_of(K), {w, scales, biases, group, bits});
    refuse(!fits, "affine weights of 2 to 6 or 8 bits that fit.");
    refuse(bias.shape() != mx::Shape{w.shape(0)}, "bias[N].");
    K = w.shape(0);
  }
  return K;
}

// out, up and down, from K columns to D of x[.., D], and norms of D.
void check(const mx::array& x, int K, const std::vector<LinearTuple>& linears, const std::vector<NormTuple>& norms) {
  refuse(x.dtype() != mx::float32 || x.ndim() < 1, "x float32.");
  int D = x.shape(-1);
  refuse(check(K, linears) != D || std::get<0>(linears[0]).shape(0) != D, "weights from and to x's width.");
  for (auto& [weight, bias, eps] : norms)
    refuse(weight.shape() != mx::Shape{D} || bias.shape() != mx::Shape{D}, "norms[D].");
}

// An op's weights as its inputs from number `first` on, and back when it runs.
struct Weights {
  std::vector<std::pair<int, int>> forms;
  std::vector<float> eps;
  size_t first;

  Weights(Arrays& inputs, const std::vector<LinearTuple>& linears, const std::vector<NormTuple>& norms,
          const mx::Stream& s)
      : first(inputs.size()) {
    for (auto& [w, scales, biases, group, bits, bias] : linears) {
      inputs.insert(inputs.end(), {w, scales, biases, mx::astype(bias, mx::float32, s)});
      forms.push_back({group, bits});
    }
    for (auto& [weight, bias, e] : norms) {
      inputs.insert(inputs.end(), {mx::astype(weight, mx::float32, s), mx::astype(bias, mx::float32, s)});
      eps.push_back(e);
    }
  }
  QuantLinear linear(const Arrays& in, int i) const {
    auto [group, bits] = forms[i];
    auto* w = &in[first + 4 * i];
    return {Affine{w[0], w[1], w[2], group, bits}.matrix(), w[3].data<float>()};
  }
  Norm norm(const Arrays& in, int i) const {
    auto* n = &in[first + 4 * forms.size() + 2 * i];
    return {n[0].data<float>(), n[1].data<float>(), eps[i]};
  }
  AfterAttention after(const Arrays& in, int i, Activation f) const {  // linears from number i on
    return {linear(in, i), linear(in, i + 1), linear(in, i + 2), norm(in, 0), norm(in, 1), f};
  }
};

// The first n contiguous, the others in their rows.
Arrays contiguous(const Arrays& in, size_t n, const mx::Stream& s) {
  Arrays out;
  for (auto& a : in) out.push_back(out.size() < n ? toast::contiguous(a, s) : rows_contiguous(a, s));
  return out;
}

mx::array after_attention(const mx::array& y, const mx::array& x, const std::vector<LinearTuple>& linears,
                          const std::vector<NormTuple>& norms, const std::string& activation) {
  auto s = mx::to_stream({});
  auto f = activation_named(activation);
  refuse(!ours(s), "on the CPU only.");
  refuse(linears.size() != 3 || norms.size() != 2, "needs out, up and down, and two norms.");
  refuse(y.dtype() != mx::float32 || y.ndim() < 1, "y float32.");
  check(x, y.shape(-1), linears, norms);
  auto shape = y.shape();
  shape.back() = x.shape(-1);
  refuse(x.shape() != shape, "x[.., D] and y[.., K] of as many rows.");
  Arrays inputs{y, x};
  Weights weights(inputs, linears, norms, s);
  auto eval = [weights, f](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto a = contiguous(in, in.size(), s);
    allocate(out);
    if (!out.size()) return;
    auto l = weights.after(a, 0, f);
    dispatch(s, [l, y = a[0].data<float>(), x = a[1].data<float>(), z = out.data<float>(),
                 rows = (int)(out.size() / l.D())] { run(l, y, x, z, rows); });
  };
  return make("AfterAttention", x.shape(), mx::float32, s, std::move(inputs), eval);
}

// A mask (B, heads, L, L) with contiguous rows.
void set_mask(SelfAttention& a, const mx::array& m) {
  a.mask = m.dtype() == mx::bool_ ? Mask::boolean : Mask::additive;
  a.m = m.data<char>(), a.m_text = m.strides(0), a.m_head = m.strides(1), a.m_row = m.strides(2);
}

mx::array encoder_layer(const mx::array& x, const OptionalArray& mask, int heads,
                        const std::vector<LinearTuple>& linears, const std::vector<NormTuple>& norms,
                        const std::string& activation) {
  auto s = mx::to_stream({});
  auto f = activation_named(activation);
  refuse(!ours(s), "on the CPU only.");
  refuse(linears.size() != 4 || norms.size() != 2, "needs qkv, out, up and down, and two norms.");
  refuse(x.ndim() != 3, "x[B, L, D].");
  int B = x.shape(0), L = x.shape(1), N = std::get<0>(linears[0]).shape(0);
  refuse(heads < 1 || N % (3 * heads), "q, k and v of whole heads.");
  check(x, N / 3, {linears.begin() + 1, linears.end()}, norms);
  check(x.shape(2), {linears[0]});
  Arrays inputs{x};
  Weights weights(inputs, linears, norms, s);
  size_t unmasked = inputs.size();
  if (mask) {
    auto m = mask->dtype() == mx::bool_ ? *mask : mx::astype(*mask, mx::float32, s);
    inputs.push_back(mx::broadcast_to(m, {B, heads, L, L}, s));
  }
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto a = contiguous(in, unmasked, s);
    allocate(out);
    if (!out.size()) return;
    SelfAttention self{weights.linear(a, 0), heads, (float)std::pow(N / 3 / heads, -0.5)};
    if (a.size() > unmasked) set_mask(self, a[unmasked]);
    dispatch(s, [=, l = EncoderLayer{self, weights.after(a, 1, f)}, x = a[0].data<float>(), z = out.data<float>()] {
      run(l, x, z, B, L);
    });
  };
  return make("EncoderLayer", x.shape(), mx::float32, s, std::move(inputs), eval);
}

}  // namespace

void bind_encoder(nb::module_& m) {
  m.def("after_attention", &after_attention, "y"_a, "x"_a, "linears"_a, "norms"_a, "activation"_a,
        "norm2(h + down(f(up(h)))) of h = norm1(x + out(y)), float32: y (.., K), x (.., D) -> (.., D).\n"
        "linears: (weight, scales, biases, group_size, bits, bias) of out, up, down; norms: (weight, bias, eps) of "
        "both.");
  m.def("encoder_layer", &encoder_layer, "x"_a, "mask"_a.none(), "heads"_a, "linears"_a, "norms"_a, "activation"_a,
        "after_attention() of y = softmax(q k' / sqrt(d) + mask) v by heads, q, k, v = qkv(x): x (B, L, D) -> (B, L, "
        "D).\n"
        "mask: boolean or float, broadcast to (B, heads, L, L); linears: qkv before the others.");
}

}  // namespace toast
