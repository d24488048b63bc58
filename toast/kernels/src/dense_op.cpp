// matmul, addmm and the untransposed quantised matmul as MLX ops: shapes, batches, strides.
// What is not float goes to MLX. The arithmetic is in dense.cpp.
#include "matmul.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include <algorithm>

#include "bindings.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// One product of a batch: a[M, K] (rows a_row apart) and b -> out[M, N].
struct Product {
  const float* a;
  int64_t a_row;
  Matrix b;
  Epilogue e;
  char* out;
};

void run(const std::vector<Product>& products, int M, Type type) {
  constexpr size_t in_cache = 1 << 20, worth_a_task = 1 << 16;
  const Matrix& b = products[0].b;
  int panel = kernels().matmul_panel;
  int blocks = std::max<size_t>(1, (size_t)M * b.K * 4 / in_cache);
  int rows = ((M + blocks - 1) / blocks + 7) / 8 * 8;
  int pieces = std::max(1, 4 * threads() / (int)std::min<size_t>(products.size(), 1 << 20));
  int columns = std::max<size_t>(b.N / pieces, worth_a_task / ((size_t)std::min(rows, M) * b.K + 1));
  columns = std::max(1, columns / panel) * panel;
  int across = (b.N + columns - 1) / columns, down = (M + rows - 1) / rows;
  parallel(products.size() * down * across, [&](int task) {
    const Product& p = products[task / (down * across)];
    int m = task / across % down * rows, n = task % across * columns;
    Epilogue e = p.e;
    if (e.c) e.c += m * e.c_row;
    kernels().matmul(p.a + m * p.a_row, p.a_row, p.b, std::min(rows, M - m), n, std::min(b.N, n + columns), e,
                     p.out + (size_t)m * b.N * size_of(type), type);
  });
}

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
  dispatch(s, [x = a.data<char>(), y = wide.data<float>(), type = type_of(a), n = a.size()] {
    constexpr size_t piece = 1 << 14;
    parallel((n + piece - 1) / piece, [&](int i) {
      size_t at = i * piece;
      kernels().to_f32(x + at * size_of(type), type, y + at, std::min(piece, n - at));
    });
  });
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

// The products of a[B.., M, K] with the matrices `b(i)` of as many batches -> out[B.., M, N].
template <class B>
std::vector<Product> products(const mx::array& a, B b, Epilogue e, mx::array& out) {
  int M = out.shape(-2), N = out.shape(-1);
  std::vector<Product> all(out.size() / ((size_t)M * N));
  for (size_t i = 0; i < all.size(); i++) {
    all[i] = {a.data<float>() + offset(a, i), a.strides()[a.ndim() - 2], b(i), e,
              out.data<char>() + i * M * N * out.itemsize()};
    if (e.c) e.c += M * e.c_row;
  }
  return all;
}

// a[.., M, K], b[.., K, N] of equal batches
void eval(const mx::array& left, const mx::array& right, const Epilogue& e, mx::array& out, const mx::Stream& s) {
  auto a = rows_of(left, s), b = columns_of(right, s);
  allocate(out);
  if (out.size() == 0) return;
  auto all = products(a, [&](size_t i) { return matrix(b, i); }, e, out);
  dispatch(s, [all = std::move(all), M = out.shape(-2), type = type_of(out)] { run(all, M, type); });
}

void eval_untransposed(const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s, int group, int bits) {
  auto a = rows_of(in[0], s), w = contiguous(in[1], s), sc = contiguous(in[2], s), bi = contiguous(in[3], s);
  allocate(out);
  if (out.size() == 0) return;
  int K = w.shape(-2), N = out.shape(-1);
  auto b = [&](size_t i) {
    size_t part = (size_t)K * (N / group) * sc.itemsize();
    return Matrix{w.data<char>() + i * K * N * bits / 8,
                  type_of(sc),
                  0,
                  0,
                  K,
                  N,
                  sc.data<char>() + i * part,
                  bi.data<char>() + i * part,
                  group,
                  bits};
  };
  auto all = products(a, b, {}, out);
  dispatch(s, [all = std::move(all), M = out.shape(-2), type = type_of(out)] { run(all, M, type); });
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
  std::vector<mx::array> in{left, right};
  auto finish = with_extras(in, extras, b.shape(-1), s);
  auto run = [finish, alpha, beta](const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s) {
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

std::function<Epilogue(const std::vector<mx::array>&, const mx::Stream&)> with_extras(std::vector<mx::array>& inputs,
                                                                                      const Extras& extras, int N,
                                                                                      const mx::Stream& s) {
  int bias = -1, residual = -1;
  auto add = [&](const mx::array& a) {
    inputs.push_back(mx::astype(a, mx::float32, s));
    return (int)inputs.size() - 1;
  };
  if (extras.bias) bias = add(*extras.bias);
  if (extras.residual) residual = add(*extras.residual);
  return [=, f = extras.activation](const std::vector<mx::array>& in, const mx::Stream& s) {
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

mx::array multiply_untransposed(const mx::array& x, const mx::array& w, const mx::array& scales,
                                const mx::array& biases, int group, int bits, const mx::Stream& s) {
  auto [left, right] = paired(x, w, s);
  auto sc = paired(x, scales, s).second, bi = paired(x, biases, s).second;
  auto flat = left.shape(), shape = w.ndim() > 2 ? left.shape() : x.shape();
  flat.back() = shape.back() = w.shape(-1) * 32 / bits;
  auto run = [group, bits](const std::vector<mx::array>& in, mx::array& out, const mx::Stream& s) {
    eval_untransposed(in, out, s, group, bits);
  };
  auto dtype = mx::promote_types(x.dtype(), scales.dtype());
  return mx::reshape(make("QuantizedMatmul", flat, dtype, s, {left, right, sc, bi}, run), shape, s);
}

void bind_dense(nb::module_& m) {
  m.def("matmul", &matmul, nb::arg(), nb::arg(), nb::kw_only(), "stream"_a = nb::none(), "As mx.matmul.");
  m.def("addmm", &addmm, nb::arg(), nb::arg(), nb::arg(), "alpha"_a = 1.0f, "beta"_a = 1.0f, nb::kw_only(),
        "stream"_a = nb::none(), "As mx.addmm.");
}

}  // namespace toast
