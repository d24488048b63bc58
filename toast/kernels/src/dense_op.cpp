// matmul, addmm and the untransposed quantised matmul as MLX ops: shapes, batches, strides.
// What is not float goes to MLX. Who computes what is in dense_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include "bindings.h"
#include "dense_work.h"
#include "floats_work.h"
#include "matmul.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// Offset in elements of matrix `i` of a batch, from the strides of all but the last two axes.
int64_t offset(const mx::array& a, size_t i) {
  int64_t at = 0;
  for (int d = (int)a.ndim() - 3; d >= 0; i /= a.shape(d), d--) at += i % a.shape(d) * a.strides()[d];
  return at;
}

// a[.., M, K] with k contiguous and float32: else a copy.
mx::array rows_of(const mx::array& in, const mx::Stream& s) {
  if (in.dtype() == mx::float32) return in.strides().back() == 1 ? in : contiguous(in, s);
  auto a = contiguous(in, s);
  mx::array wide(a.shape(), mx::float32, nullptr, {});
  allocate(wide);
  dispatch(s,
           [x = a.data<char>(), y = wide.data<float>(), type = type_of(a), n = a.size()] { widen_all(x, type, y, n); });
  mx::cpu::get_command_encoder(s).add_temporary(wide);
  return wide;
}

// b[.., K, N] with k or n contiguous.
mx::array columns_of(const mx::array& b, const mx::Stream& s) {
  size_t n = b.ndim();
  return b.strides()[n - 1] == 1 || b.strides()[n - 2] == 1 ? b : contiguous(b, s);
}

Matrix matrix(const mx::array& b, size_t i) {
  size_t n = b.ndim();
  auto data = b.data<char>() + offset(b, i) * (int64_t)b.itemsize();
  return {data, type_of(b), b.strides()[n - 2], b.strides()[n - 1], b.shape(-2), b.shape(-1)};
}

// out[B.., M, N] = the products of a[B.., M, K] with the matrices `b(i)` of as many batches.
template <class B>
void multiply_batches(const mx::array& a, B b, Epilogue e, mx::array& out, const mx::Stream& s) {
  allocate(out);
  if (out.size() == 0) return;
  int M = out.shape(-2), N = out.shape(-1);
  std::vector<DenseProduct> all;
  for (size_t i = 0; i < out.size() / ((size_t)M * N); i++) {
    Output to{out.data<char>() + i * M * N * out.itemsize(), type_of(out), e};
    all.push_back({a.data<float>() + offset(a, i), a.strides()[a.ndim() - 2], b(i), to});
    if (e.c) e.c += M * e.c_row;
  }
  dispatch(s, [all = std::move(all), M] { run(all, M); });
}

// a[.., M, K], b[.., K, N] of equal batches
void eval(const mx::array& left, const mx::array& right, const Epilogue& e, mx::array& out, const mx::Stream& s) {
  auto a = rows_of(left, s), b = columns_of(right, s);
  multiply_batches(a, [&](size_t i) { return matrix(b, i); }, e, out, s);
}

// in: a[.., M, K] and the parts of [.., K, N] quantised along N
void eval_untransposed(const Arrays& in, int group, int bits, mx::array& out, const mx::Stream& s) {
  auto a = rows_of(in[0], s);
  Affine w{contiguous(in[1], s), contiguous(in[2], s), contiguous(in[3], s), group, bits};
  auto b = [&](size_t i) {
    auto rows = w.matrix(i);  // of K rows with N columns here
    return Matrix{rows.w, rows.type, 0, 0, rows.N, rows.K, rows.scales, rows.biases, group, bits};
  };
  multiply_batches(a, b, {}, out, s);
}

bool suits(const mx::array& a, const mx::array& b, const mx::Stream& s) {
  return ours(s) && is_float(a.dtype()) && is_float(b.dtype()) && a.ndim() >= 1 && b.ndim() >= 2 &&
         a.shape(-1) == b.shape(-2) && a.shape(-1) > 0;
}

// One b for all of a's batches: its rows are one long matrix. Else the batches are broadcast.
std::pair<mx::array, mx::array> paired(const mx::array& a, const mx::array& b, const mx::Stream& s) {
  if (b.ndim() > 2) return broadcast_batches(a, b, s);
  return {a.ndim() == 2 ? a : mx::reshape(a, {-1, a.shape(-1)}, s), b};
}

// f(alpha a b + bias) + beta residual; the residual may be any shape that broadcasts.
mx::array product(const mx::array& a, const mx::array& b, Extras extras, float alpha, float beta, const mx::Stream& s) {
  auto [left, right] = paired(a, b, s);
  auto flat = left.shape(), shape = b.ndim() > 2 ? left.shape() : a.shape();
  flat.back() = shape.back() = b.shape(-1);
  if (extras.residual) extras.residual = mx::reshape(mx::broadcast_to(*extras.residual, shape, s), flat, s);
  Arrays in{left, right};
  auto finish = with_extras(in, extras, b.shape(-1), s);
  auto run = [finish, alpha, beta](const Arrays& in, mx::array& out, const mx::Stream& s) {
    Epilogue e = finish(in, s);
    e.alpha = alpha;
    e.beta = beta;
    eval(in[0], in[1], e, out, s);
  };
  auto dtype = mx::promote_types(a.dtype(), b.dtype());
  return mx::reshape(make("Matmul", flat, dtype, s, in, run), shape, s);
}

mx::array matmul(const mx::array& a, const mx::array& b, mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!suits(a, b, s) || (b.ndim() > 2 && a.ndim() < 2)) return mx::matmul(a, b, where);
  return product(a, b, {}, 1, 1, s);
}

mx::array addmm(const mx::array& c, const mx::array& a, const mx::array& b, float alpha, float beta,
                mx::StreamOrDevice where) {
  auto s = mx::to_stream(where);
  if (!suits(a, b, s) || (b.ndim() > 2 && a.ndim() < 2) || !is_float(c.dtype()))
    return mx::addmm(c, a, b, alpha, beta, where);
  bool row = c.ndim() == 1 && c.shape(0) == b.shape(-1) && beta == 1;
  auto out = row ? product(a, b, {c, {}}, alpha, 1, s) : product(a, b, {{}, c}, alpha, beta, s);
  return mx::astype(out, mx::promote_types(out.dtype(), c.dtype()), s);
}

}  // namespace

std::function<Epilogue(const Arrays&, const mx::Stream&)> with_extras(Arrays& inputs, const Extras& extras, int N,
                                                                      const mx::Stream& s) {
  int bias = -1, residual = -1;
  auto add = [&](const mx::array& a) {
    inputs.push_back(mx::astype(a, mx::float32, s));
    return (int)inputs.size() - 1;
  };
  if (extras.bias) bias = add(*extras.bias);
  if (extras.residual) residual = add(*extras.residual);
  return [=, f = extras.activation](const Arrays& in, const mx::Stream& s) {
    Epilogue e;
    e.activation = f;
    if (bias >= 0) e.bias = contiguous(in[bias], s).data<float>();
    if (residual >= 0) e.c = contiguous(in[residual], s).data<float>(), e.c_row = N;
    return e;
  };
}

std::pair<mx::array, mx::array> broadcast_batches(const mx::array& a, const mx::array& b, const mx::Stream& s) {
  auto axes = [](const mx::array& m) { return mx::Shape(m.shape().begin(), m.shape().end() - 2); };
  auto batch = mx::broadcast_shapes(axes(a), axes(b));
  auto spread = [&](const mx::array& m) {
    auto shape = batch;
    shape.push_back(m.shape(-2));
    shape.push_back(m.shape(-1));
    return mx::broadcast_to(m, shape, s);
  };
  return {spread(a), spread(b)};
}

mx::array multiply_dense(const mx::array& x, const mx::array& w, const Extras& extras, const mx::Stream& s) {
  return product(x, mx::transpose(w, s), extras, 1, 1, s);
}

mx::array multiply_untransposed(const mx::array& x, const Affine& a, const mx::Stream& s) {
  auto [left, right] = paired(x, a.w, s);
  auto sc = paired(x, a.scales, s).second, bi = paired(x, a.biases, s).second;
  auto flat = left.shape(), shape = a.w.ndim() > 2 ? left.shape() : x.shape();
  flat.back() = shape.back() = a.width();
  auto run = [group = a.group, bits = a.bits](const Arrays& in, mx::array& out, const mx::Stream& s) {
    eval_untransposed(in, group, bits, out, s);
  };
  auto dtype = mx::promote_types(x.dtype(), a.scales.dtype());
  return mx::reshape(make("QuantizedMatmul", flat, dtype, s, {left, right, sc, bi}, run), shape, s);
}

void bind_dense(nb::module_& m) {
  m.def("matmul", &matmul, nb::arg(), nb::arg(), nb::kw_only(), "stream"_a = nb::none(), "As mx.matmul.");
  m.def("addmm", &addmm, nb::arg(), nb::arg(), nb::arg(), "alpha"_a = 1.0f, "beta"_a = 1.0f, nb::kw_only(),
        "stream"_a = nb::none(), "As mx.addmm.");
}

}  // namespace toast
