// quantized_matmul, linear and gather_qmm as MLX ops: shapes, batches, experts.
// What is not affine, of 2 to 6 or 8 bits, goes to MLX. Who computes what is in quantized_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <algorithm>
#include <numeric>

#include "bindings.h"
#include "matmul.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {

bool is_supported(const mx::array& x, const Affine& a, bool transposed) {
  auto& [w, scales, biases, group, bits] = a;
  if (w.dtype() != mx::uint32) return false;
  if (bits < 2 || bits > 8 || bits == 7 || (bits < 4 && w.shape(-1) < 4)) return false;  // no row is below 16 bytes
  if (group != 32 && group != 64 && group != 128) return false;
  if (!is_float(x.dtype()) || !is_float(scales.dtype()) || biases.dtype() != scales.dtype()) return false;
  if (x.ndim() < 1 || w.ndim() < 2 || scales.shape() != biases.shape()) return false;
  auto expected = w.shape();
  expected.back() = a.width() / group;
  if ((transposed ? a.width() : w.shape(-2)) != x.shape(-1)) return false;
  return a.width() > 0 && a.width() % group == 0 && x.shape(-1) > 0 && scales.shape() == expected;
}

QuantWeights Affine::matrix(size_t i) const {
  int N = w.shape(-2), K = width();
  size_t codes = (size_t)N * K * bits / 8, part = (size_t)N * (K / group) * scales.itemsize();
  return {w.data<uint8_t>() + i * codes,
          scales.data<char>() + i * part,
          biases.data<char>() + i * part,
          type_of(scales),
          N,
          K,
          group,
          bits};
}

Activation activation_named(const std::string& name) {
  auto f = name == "gelu"          ? Activation::gelu
           : name == "gelu_approx" ? Activation::gelu_tanh
           : name == "silu"        ? Activation::silu
                                   : Activation::none;
  if (f == Activation::none && !name.empty()) throw std::invalid_argument("[toast] activation " + name);
  return f;
}

namespace {

// 0, 1, .. n - 1, until the stream's work so far is done
const int* counting(int n, const mx::Stream& s) {
  int* order = (int*)temporary(n * sizeof(int), s);
  std::iota(order, order + n, 0);
  return order;
}

// The last activations that this thread's ops quantised: q, k and v (gate and up) share theirs.
// Holding the source's memory keeps it from being written again while the key is valid.
struct Last {
  std::shared_ptr<mx::array::Data> source;
  int64_t offset = 0;
  int stream = -1;
  OptionalArray memory;
  QuantizedRows rows{};
};

// The quantised form of contiguous x for these weights, alive until the stream's work so far is done, and whether it
// must still be filled.
std::pair<QuantizedRows, bool> quantized(const mx::array& x, int group, int bits, const mx::Stream& s) {
  static thread_local Last* last = new Last;  // never freed: MLX's allocator may be gone by then
  int K = x.shape(-1), rows = x.size() / K;
  auto& old = last->rows;
  bits = form_for(bits);
  bool same = last->source == x.data_shared_ptr() && last->offset == x.offset() && last->stream == s.index &&
              old.rows == rows && old.K == K && old.group == group && old.bits == bits;
  if (!same) {
    auto memory = bytes_of(QuantizedRows::bytes(rows, K, group));
    *last = {x.data_shared_ptr(), x.offset(), s.index, memory, {rows, K, group, bits, memory.data<char>()}};
  }
  mx::cpu::get_command_encoder(s).add_temporary(*last->memory);
  return {old, !same};
}

// Batches: x[B.., M, K] and w[B.., N, K'] with the same B, or one w for all rows of x.
mx::array multiply(const mx::array& x, const Affine& a, const Extras& extras, const mx::Stream& s) {
  Arrays inputs{x, a.w, a.scales, a.biases};
  auto finish = with_extras(inputs, extras, a.w.shape(-2), s);
  auto eval = [group = a.group, bits = a.bits, finish](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    Affine a{contiguous(in[1], s), contiguous(in[2], s), contiguous(in[3], s), group, bits};
    allocate(out);
    if (out.size() == 0) return;
    auto [q, fresh] = quantized(x, group, bits, s);
    const int* order = counting(q.rows, s);
    size_t stack = a.w.size() / ((size_t)a.w.shape(-2) * a.w.shape(-1));
    Output to{out.data<void>(), type_of(out), finish(in, s)};
    std::vector<Job> jobs;
    int M = q.rows / stack;
    for (size_t i = 0; i < stack; i++) jobs.push_back({a.matrix(i), order + i * M, order + i * M, M, to});
    dispatch(s, [jobs = std::move(jobs), q = q, fresh = fresh, source = x.data<char>(), type = type_of(x)] {
      if (fresh) q.fill(source, type);
      run(jobs, q, source, type);
    });
  };
  auto shape = x.shape();
  shape.back() = a.w.shape(-2);
  auto dtype = mx::promote_types(x.dtype(), a.scales.dtype());
  return make("QuantizedMatmul", shape, dtype, s, inputs, eval);
}

mx::array quantized_matmul(const mx::array& x, const mx::array& w, const mx::array& scales, const OptionalArray& biases,
                           bool transpose, std::optional<int> group, std::optional<int> bits, const std::string& mode,
                           mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  bool stacked = w.ndim() > 2;
  auto to_mlx = [&] { return mx::quantized_matmul(x, w, scales, biases, transpose, group, bits, mode, where); };
  if (!ours(s) || mode != "affine" || !biases || (stacked && x.ndim() < 3)) return to_mlx();
  Affine a{w, scales, *biases, group.value_or(64), bits.value_or(4)};
  if (!is_supported(x, a, transpose)) return to_mlx();
  if (!transpose) return multiply_untransposed(x, a, s);
  if (!stacked) return multiply(x, a, {}, s);
  auto [left, right] = broadcast_batches(x, w, s);
  auto part = [&](const mx::array& p) { return broadcast_batches(x, p, s).second; };
  return multiply(left, {right, part(scales), part(*biases), a.group, a.bits}, {}, s);
}

constexpr Refuse refuse{"[linear] "};

// f(x w' + bias) + residual with w[N, K] float, or quantised when there are scales: a linear layer as
// one op. The result has the type of x w'.
mx::array linear(const mx::array& x, const mx::array& w, const OptionalArray& scales, const OptionalArray& biases,
                 int group, int bits, Extras extras) {
  auto s = mx::to_stream({});
  refuse(!ours(s) || w.ndim() != 2 || x.ndim() < 1, "x[.., K] and w[N, K] on the CPU only.");
  refuse(extras.bias && extras.bias->shape() != mx::Shape{w.shape(0)}, "bias[N].");
  if (extras.residual) {
    auto shape = x.shape();
    shape.back() = w.shape(0);
    extras.residual = mx::broadcast_to(*extras.residual, shape, s);
  }
  if (!scales) {
    refuse(!is_float(x.dtype()) || !is_float(w.dtype()) || x.shape(-1) != w.shape(-1) || x.shape(-1) == 0,
           "x[.., K] and w[N, K] of floats.");
    return multiply_dense(x, w, extras, s);
  }
  auto form = "x[.., K] and affine w[N, K] of 2 to 6 or 8 bits, group 32, 64 or 128.";
  refuse(!biases, form);
  Affine a{w, *scales, *biases, group, bits};
  refuse(!is_supported(x, a), form);
  return multiply(x, a, extras, s);
}

// a: a stack of an expert's weights each; lhs, rhs[n]: matrix of x, of `inputs` with M rows each, and expert.
Meetings meetings(const Affine& a, const mx::array& lhs, const mx::array& rhs, int M, int inputs) {
  int n = lhs.size(), stack = a.w.size() / ((size_t)a.w.shape(-2) * a.w.shape(-1));
  auto *l = lhs.data<uint32_t>(), *r = rhs.data<uint32_t>();
  for (int i = 0; i < n; i++)
    if (l[i] >= (uint32_t)inputs || r[i] >= (uint32_t)stack) throw std::out_of_range("[gather_qmm] index");
  return {n * M, stack, [&](int p) { return r[p / M]; }, [&](int p) { return l[p / M] * M + p % M; }};
}

mx::array indices(const OptionalArray& given, const mx::array& a, const mx::Stream& s) {
  if (given) return mx::astype(*given, mx::uint32, s);
  mx::Shape batch(a.shape().begin(), a.shape().end() - 2);
  int n = std::accumulate(batch.begin(), batch.end(), 1, std::multiplies<int>());
  return mx::reshape(mx::arange(0, n, 1, mx::uint32, s), batch, s);
}

// x (.., M, K) and weights of experts, and which of both meet -> (.., M, N)
mx::array gather(const mx::array& x, const Affine& a, const mx::array& lhs, const mx::array& rhs, const mx::Stream& s) {
  auto pair = mx::broadcast_arrays({lhs, rhs}, s);
  auto shape = pair[0].shape();
  shape.push_back(x.shape(-2));
  shape.push_back(a.w.shape(-2));
  auto eval = [group = a.group, bits = a.bits](const Arrays& in, mx::array& out, const mx::Stream& s) {
    Arrays c;
    for (auto& a : in) c.push_back(mx::array::unsafe_weak_copy(contiguous(a, s)));
    allocate(out);
    if (out.size() == 0) return;
    auto [q, fresh] = quantized(c[0], group, bits, s);
    Affine a{c[1], c[2], c[3], group, bits};
    dispatch(s, [c, a, q = q, fresh = fresh, to = Output{out.data<void>(), type_of(out), {}}] {
      auto source = c[0].data<char>();
      if (fresh) q.fill(source, type_of(c[0]));
      int M = c[0].shape(-2);
      auto met = meetings(a, c[4], c[5], M, q.rows / M);
      run(met.jobs([&](int e) { return a.matrix(e); }, to), q, source, type_of(c[0]));
    });
  };
  auto dtype = mx::promote_types(x.dtype(), a.scales.dtype());
  return make("GatherQMM", shape, dtype, s, {x, a.w, a.scales, a.biases, pair[0], pair[1]}, eval);
}

mx::array gather_qmm(const mx::array& x, const mx::array& w, const mx::array& scales, const OptionalArray& biases,
                     const OptionalArray& lhs, const OptionalArray& rhs, bool transpose, std::optional<int> group,
                     std::optional<int> bits, const std::string& mode, const OptionalArray& global_scale, bool sorted,
                     mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto integral = [](const OptionalArray& i) { return !i || mx::issubdtype(i->dtype(), mx::integer); };
  auto to_mlx = [&] {
    return mx::gather_qmm(x, w, scales, biases, lhs, rhs, transpose, group, bits, mode, global_scale, sorted, where);
  };
  if (!lhs && !rhs) return toast::quantized_matmul(x, w, scales, biases, transpose, group, bits, mode, where);
  if (!ours(s) || global_scale || !integral(lhs) || !integral(rhs) || x.ndim() < 2 || !transpose || mode != "affine" ||
      !biases)
    return to_mlx();
  Affine a{w, scales, *biases, group.value_or(64), bits.value_or(4)};
  if (!is_supported(x, a)) return to_mlx();
  return gather(x, a, indices(lhs, x, s), indices(rhs, w, s), s);
}

}  // namespace

void bind_quantized(nb::module_& m) {
  auto none = nb::none();
  m.def("quantized_matmul", &quantized_matmul, nb::arg(), nb::arg(), "scales"_a, "biases"_a = none,
        "transpose"_a = true, "group_size"_a = none, "bits"_a = none, "mode"_a = "affine", nb::kw_only(),
        "stream"_a = none, "As mx.quantized_matmul.");
  m.def(
      "linear",
      [](const mx::array& x, const mx::array& w, const OptionalArray& scales, const OptionalArray& biases, int group,
         int bits, const OptionalArray& bias, const OptionalArray& residual, const std::string& activation) {
        return linear(x, w, scales, biases, group, bits, {bias, residual, activation_named(activation)});
      },
      "x"_a, "w"_a, "scales"_a = none, "biases"_a = none, "group_size"_a = 64, "bits"_a = 4, nb::kw_only(),
      "bias"_a = none, "residual"_a = none, "activation"_a = "",
      "activation(x w' + bias) + residual in one op: w[N, K] float or, with scales, MLX's affine form.");
  m.def("gather_qmm", &gather_qmm, nb::arg(), nb::arg(), "scales"_a, "biases"_a = none, "lhs_indices"_a = none,
        "rhs_indices"_a = none, "transpose"_a = true, "group_size"_a = none, "bits"_a = none, "mode"_a = "affine",
        "global_scale"_a = none, nb::kw_only(), "sorted_indices"_a = false, "stream"_a = none, "As mx.gather_qmm.");
}

}  // namespace toast
