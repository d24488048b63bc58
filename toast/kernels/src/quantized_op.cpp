// quantized_matmul and gather_qmm as MLX ops: shapes, batches, experts, and who computes which columns.
// What is not affine 4 or 8 bits with w transposed goes to MLX. The arithmetic is in quantized.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "bindings.h"
#include "matmul.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {

bool readable(const mx::array& x, const mx::array& w, const mx::array& scales, const Maybe& biases, bool transpose,
              int group, int bits, const std::string& mode) {
  if (mode != "affine" || !biases || w.dtype() != mx::uint32) return false;
  if ((bits != 4 && bits != 8) || (group != 32 && group != 64 && group != 128)) return false;
  if (!is_float(x.dtype()) || !is_float(scales.dtype()) || biases->dtype() != scales.dtype()) return false;
  if (x.ndim() < 1 || w.ndim() < 2 || scales.shape() != biases->shape()) return false;
  auto expected = w.shape();
  int packed = w.shape(-1) * 32 / bits;
  expected.back() = packed / group;
  if ((transpose ? packed : w.shape(-2)) != x.shape(-1)) return false;
  return packed > 0 && packed % group == 0 && x.shape(-1) > 0 && scales.shape() == expected;
}

QuantWeights matrix(const mx::array& w, const mx::array& scales, const mx::array& biases, size_t i, int K, int group,
                    int bits) {
  int N = w.shape(-2);
  size_t per = (size_t)N * K * bits / 8, part = (size_t)N * (K / group) * scales.itemsize();
  return {w.data<uint8_t>() + i * per,
          scales.data<char>() + i * part,
          biases.data<char>() + i * part,
          type_of(scales),
          N,
          K,
          group,
          bits};
}

mx::array counting(int n) {
  mx::array a({n}, mx::int32, nullptr, {});
  allocate(a);
  std::iota(a.data<int>(), a.data<int>() + n, 0);
  return a;
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

// The last activations quantised on this thread's streams: q, k and v (gate and up) share theirs.
// Holding the source's memory keeps it from being written again while the key is valid.
struct Last {
  std::shared_ptr<mx::array::Data> source;
  int64_t offset = 0;
  int stream = -1;
  std::optional<mx::array> memory;
  QuantizedRows rows{};
};

// The quantised form of contiguous x, alive until the stream's work so far is done, and whether it must still be
// filled.
std::pair<QuantizedRows, bool> quantized(const mx::array& x, int K, int group, int bits, const mx::Stream& s) {
  static thread_local Last* last = new Last;  // never freed: MLX's allocator may be gone by then
  int rows = x.size() / K;
  auto& old = last->rows;
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
mx::array multiply(const mx::array& x, const mx::array& w, const mx::array& scales, const mx::array& biases, int group,
                   int bits, const Extras& extras, const mx::Stream& s) {
  std::vector<mx::array> inputs{x, w, scales, biases};
  auto finish = with_extras(inputs, extras, w.shape(-2), s);
  auto eval = [group, bits, finish](const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s), w = contiguous(in[1], s), sc = contiguous(in[2], s), b = contiguous(in[3], s);
    allocate(out);
    if (out.size() == 0) return;
    int K = x.shape(-1), N = w.shape(-2);
    auto [q, fresh] = quantized(x, K, group, bits, s);
    auto order = counting(q.rows);
    auto& encoder = mx::cpu::get_command_encoder(s);
    encoder.add_temporary(order);
    size_t stack = w.size() / ((size_t)N * w.shape(-1));
    Output to{out.data<void>(), type_of(out), finish(in, s)};
    std::vector<Job> jobs;
    int M = q.rows / stack;
    for (size_t i = 0; i < stack; i++) {
      auto rows = order.data<int>() + i * M;
      jobs.push_back({matrix(w, sc, b, i, K, group, bits), rows, rows, M, to});
    }
    encoder.dispatch([jobs = std::move(jobs), q = q, fresh = fresh, source = x.data<char>(), type = type_of(x)] {
      if (fresh) q.fill(source, type);
      run(jobs, q, source, type);
    });
  };
  auto shape = x.shape();
  shape.back() = w.shape(-2);
  auto dtype = mx::promote_types(x.dtype(), scales.dtype());
  return make("QuantizedMatmul", shape, dtype, s, inputs, eval);
}

mx::array quantized_matmul(const mx::array& x, const mx::array& w, const mx::array& scales, const Maybe& biases,
                           bool transpose, std::optional<int> group, std::optional<int> bits, const std::string& mode,
                           mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  int g = group.value_or(64), b = bits.value_or(4);
  bool stacked = w.ndim() > 2;
  if (!ours(s) || !readable(x, w, scales, biases, transpose, g, b, mode) || (stacked && x.ndim() < 3))
    return mx::quantized_matmul(x, w, scales, biases, transpose, group, bits, mode, where);
  if (!transpose) return multiply_untransposed(x, w, scales, *biases, g, b, s);
  if (!stacked) return multiply(x, w, scales, *biases, g, b, {}, s);
  auto [left, right] = broadcast_batches(x, w, s);
  auto sc = broadcast_batches(x, scales, s).second, bi = broadcast_batches(x, *biases, s).second;
  return multiply(left, right, sc, bi, g, b, {}, s);
}

// f(x w' + bias) + residual with w[N, K] float, or quantised when there are scales: a linear layer as
// one op. The result has the type of x w'.
mx::array linear(const mx::array& x, const mx::array& w, const Maybe& scales, const Maybe& biases, int group, int bits,
                 const Maybe& bias, Maybe residual, const std::string& activation, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  auto f = activation_named(activation);
  if (!ours(s) || w.ndim() != 2 || x.ndim() < 1)
    throw std::invalid_argument("[linear] x[.., K] and w[N, K] on the CPU only.");
  if (bias && bias->shape() != mx::Shape{w.shape(0)}) throw std::invalid_argument("[linear] bias[N].");
  if (residual) {
    auto shape = x.shape();
    shape.back() = w.shape(0);
    residual = mx::broadcast_to(*residual, shape, s);
  }
  if (!scales) {
    if (!is_float(x.dtype()) || !is_float(w.dtype()) || x.shape(-1) != w.shape(-1) || x.shape(-1) == 0)
      throw std::invalid_argument("[linear] x[.., K] and w[N, K] of floats.");
    return multiply_dense(x, w, {bias, residual, f}, s);
  }
  if (!readable(x, w, *scales, biases, true, group, bits, "affine"))
    throw std::invalid_argument("[linear] x[.., K] and affine w[N, K] of 4 or 8 bits, group 32, 64 or 128.");
  return multiply(x, w, *scales, *biases, group, bits, {bias, residual, f}, s);
}

// Sorts the pairs (row of x, row of out) by expert and makes one job of each expert that has any.
struct Experts {
  std::vector<int> rows, to;
  std::vector<Job> jobs;

  Experts(const uint32_t* lhs, const uint32_t* rhs, int n, int M, int inputs, int stack,
          const std::function<QuantWeights(int)>& weights, const Output& out)
      : rows(n * M), to(n * M) {
    for (int i = 0; i < n; i++)
      if (lhs[i] >= (uint32_t)inputs || rhs[i] >= (uint32_t)stack) throw std::out_of_range("[gather_qmm] index");
    std::vector<int> start(stack + 1);
    for (int i = 0; i < n; i++) start[rhs[i] + 1] += M;
    std::partial_sum(start.begin(), start.end(), start.begin());
    auto at = start;
    for (int i = 0; i < n; i++)
      for (int m = 0; m < M; m++) {
        int p = at[rhs[i]]++;
        rows[p] = lhs[i] * M + m;
        to[p] = i * M + m;
      }
    for (int e = 0; e < stack; e++)
      if (start[e + 1] > start[e])
        jobs.push_back({weights(e), &rows[start[e]], &to[start[e]], start[e + 1] - start[e], out});
  }
};

mx::array indices(const Maybe& given, const mx::array& a, const mx::Stream& s) {
  if (given) return mx::astype(*given, mx::uint32, s);
  mx::Shape batch(a.shape().begin(), a.shape().end() - 2);
  int n = std::accumulate(batch.begin(), batch.end(), 1, std::multiplies<int>());
  return mx::reshape(mx::arange(0, n, 1, mx::uint32, s), batch, s);
}

mx::array gather_qmm(const mx::array& x, const mx::array& w, const mx::array& scales, const Maybe& biases,
                     const Maybe& lhs, const Maybe& rhs, bool transpose, std::optional<int> group,
                     std::optional<int> bits, const std::string& mode, const Maybe& global_scale, bool sorted,
                     mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  int g = group.value_or(64), b = bits.value_or(4);
  bool integral =
      (!lhs || mx::issubdtype(lhs->dtype(), mx::integer)) && (!rhs || mx::issubdtype(rhs->dtype(), mx::integer));
  if (!lhs && !rhs) return toast::quantized_matmul(x, w, scales, biases, transpose, group, bits, mode, where);
  if (!ours(s) || global_scale || !integral || x.ndim() < 2 || !transpose ||
      !readable(x, w, scales, biases, transpose, g, b, mode))
    return mx::gather_qmm(x, w, scales, biases, lhs, rhs, transpose, group, bits, mode, global_scale, sorted, where);

  auto pair = mx::broadcast_arrays({indices(lhs, x, s), indices(rhs, w, s)}, s);
  auto shape = pair[0].shape();
  shape.push_back(x.shape(-2));
  shape.push_back(w.shape(-2));
  auto eval = [g, b](const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s) {
    std::vector<mx::array> c;
    for (auto& a : in) c.push_back(mx::array::unsafe_weak_copy(contiguous(a, s)));
    allocate(out);
    if (out.size() == 0) return;
    auto [q, fresh] = quantized(c[0], c[0].shape(-1), g, b, s);
    dispatch(s, [c, g, b, q = q, fresh = fresh, M = c[0].shape(-2), to = Output{out.data<void>(), type_of(out), {}}] {
      auto source = c[0].data<char>();
      if (fresh) q.fill(source, type_of(c[0]));
      int stack = c[1].size() / ((size_t)c[1].shape(-2) * c[1].shape(-1));
      Experts e(
          c[4].data<uint32_t>(), c[5].data<uint32_t>(), c[4].size(), M, q.rows / M, stack,
          [&](int i) { return matrix(c[1], c[2], c[3], i, q.K, g, b); }, to);
      run(e.jobs, q, source, type_of(c[0]));
    });
  };
  auto dtype = mx::promote_types(x.dtype(), scales.dtype());
  return make("GatherQMM", shape, dtype, s, {x, w, scales, *biases, pair[0], pair[1]}, eval);
}

}  // namespace

void bind_quantized(nb::module_& m) {
  m.def("quantized_matmul", &quantized_matmul, nb::arg(), nb::arg(), "scales"_a, "biases"_a = nb::none(),
        "transpose"_a = true, "group_size"_a = nb::none(), "bits"_a = nb::none(), "mode"_a = "affine", nb::kw_only(),
        "stream"_a = nb::none(), "As mx.quantized_matmul.");
  m.def("linear", &linear, "x"_a, "w"_a, "scales"_a = nb::none(), "biases"_a = nb::none(), "group_size"_a = 64,
        "bits"_a = 4, nb::kw_only(), "bias"_a = nb::none(), "residual"_a = nb::none(), "activation"_a = "",
        "stream"_a = nb::none(),
        "activation(x w' + bias) + residual in one op: w[N, K] float or, with scales, MLX's affine form.");
  m.def("gather_qmm", &gather_qmm, nb::arg(), nb::arg(), "scales"_a, "biases"_a = nb::none(),
        "lhs_indices"_a = nb::none(), "rhs_indices"_a = nb::none(), "transpose"_a = true, "group_size"_a = nb::none(),
        "bits"_a = nb::none(), "mode"_a = "affine", "global_scale"_a = nb::none(), nb::kw_only(),
        "sorted_indices"_a = false, "stream"_a = nb::none(), "As mx.gather_qmm.");
}

}  // namespace toast
