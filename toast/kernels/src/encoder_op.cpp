// What follows attention in an encoder's layer with norms after (BERT's), as one op of three products and two norms.
// One thread takes a block of rows from the first product to the last norm: what lies between stays in its cache.
// Made of the ops' own parts in the same order: the bits are theirs.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <numeric>

#include "bindings.h"
#include "floats_op.h"
#include "matmul.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

using Linear = std::tuple<mx::array, mx::array, mx::array, int, int, mx::array>;  // w, scales, biases, group, bits, bias
using Norm = std::tuple<mx::array, mx::array, float>;                             // weight, bias, eps

struct Affine {
  QuantWeights w;
  const float* bias;
};

struct Scaled {
  const float *weight, *bias;
  float eps;
};

// Everything float32 but the weights; y[rows, out.w.K], x[rows, D].
struct AfterAttention {
  Affine out, up, down;
  Scaled norm1, norm2;
  Activation activation;
  int D() const { return out.w.N; }
  int F() const { return up.w.N; }

  size_t bytes(int rows) const {  // of what lies between, one piece after the other
    return rows * (sizeof(int) + (2 * D() + F()) * sizeof(float)) + quantized_bytes(rows, {&out.w, &up.w, &down.w});
  }

  void run(const float* y, const float* x, float* z, int rows) const {
    float* sum = (float*)scratch(3, bytes(rows));
    float *h = sum + (size_t)rows * D(), *wide = h + (size_t)rows * D();
    int* order = (int*)(wide + (size_t)rows * F());
    std::iota(order, order + rows, 0);
    auto multiply = [&](const Affine& l, const float* x, float* to, const float* residual, Activation f) {
      Epilogue e{residual, (size_t)l.w.N, 1, 1, l.bias, f};
      project((const char*)x, Type::f32, rows, order, (char*)(order + rows), {{&l.w, {to, Type::f32, e}}});
    };
    multiply(out, y, sum, x, Activation::none);
    norm(norm1, sum, h, rows);
    multiply(up, h, wide, nullptr, activation);
    multiply(down, wide, sum, h, Activation::none);
    norm(norm2, sum, z, rows);
  }

  void norm(const Scaled& n, const float* x, float* y, int rows) const {
    each_rows(rows, D(), [&](size_t first, size_t count) {
      kernels().layer_norm(x + first * D(), n.weight, n.bias, y + first * D(), Type::f32, count, D(), n.eps);
    });
  }
};

// With all weights unpacked once for many blocks.
AfterAttention unpacked(AfterAttention l) {
  QuantWeights* all[] = {&l.out.w, &l.up.w, &l.down.w};
  size_t bytes = 0;
  for (auto w : all) bytes += kernels().unpacked_bytes(*w);
  char* to = (char*)scratch(4, bytes);
  for (auto w : all) {
    int panel = kernels().panel;
    parallel((w->N + panel - 1) / panel, [&](int i) { kernels().unpack(*w, i * panel, std::min(w->N, (i + 1) * panel), to); });
    w->unpacked = to;
    to += kernels().unpacked_bytes(*w);
  }
  return l;
}

// In blocks whose widest state fits the second cache beside weights, where there are enough for all threads.
void in_blocks(const AfterAttention& l, const float* y, const float* x, float* z, int rows) {
  constexpr int in_cache = 384 << 10, worth_unpacking = 32;
  int block = std::max<int>(worth_unpacking, in_cache / (l.F() * sizeof(float))), blocks = (rows + block - 1) / block;
  if (blocks < 2 * helpers()) return l.run(y, x, z, rows);
  block = ((rows + blocks - 1) / blocks + 3) / 4 * 4;  // whole tiles
  AfterAttention u = unpacked(l);
  parallel(blocks, [&](int i) {
    size_t first = (size_t)i * block, width = l.out.w.K;
    int count = std::min<int>(block, rows - first);
    if (count > 0) u.run(y + first * width, x + first * l.D(), z + first * l.D(), count);
  });
}

void check(const mx::array& y, const mx::array& x, const std::vector<Linear>& linears, const std::vector<Norm>& norms) {
  auto refuse = [](bool bad, const char* why) {
    if (bad) throw std::invalid_argument(std::string("[after_attention] ") + why);
  };
  refuse(linears.size() != 3 || norms.size() != 2, "needs out, up and down, and two norms.");
  refuse(y.dtype() != mx::float32 || x.dtype() != mx::float32 || x.ndim() < 1 || y.ndim() < 1, "y and x float32.");
  int D = x.shape(-1), K = y.shape(-1);
  for (auto& [w, scales, biases, group, bits, bias] : linears) {
    refuse(!readable(mx::array({1, K}, mx::float32, nullptr, {}), w, scales, biases, true, group, bits, "affine") || w.ndim() != 2,
           "affine weights of 4 or 8 bits that fit each other.");
    refuse(bias.shape() != mx::Shape{w.shape(0)}, "bias[N].");
    K = w.shape(0);
  }
  auto shape = y.shape();
  shape.back() = D;
  refuse(x.shape() != shape || std::get<0>(linears[0]).shape(0) != D || K != D, "x[.., D] and y[.., K] of as many rows.");
  for (auto& [weight, bias, eps] : norms) refuse(weight.shape() != mx::Shape{D} || bias.shape() != mx::Shape{D}, "norms[D].");
}

mx::array after_attention(const mx::array& y, const mx::array& x, const std::vector<Linear>& linears,
                          const std::vector<Norm>& norms, const std::string& activation) {
  auto s = mx::to_stream({});
  auto f = activation_named(activation);
  check(y, x, linears, norms);
  if (!ours(s)) throw std::invalid_argument("[after_attention] on the CPU only.");
  Arrays inputs{y, x};
  std::vector<std::pair<int, int>> forms;
  std::vector<float> eps;
  for (auto& [w, scales, biases, group, bits, bias] : linears) {
    inputs.insert(inputs.end(), {w, scales, biases, mx::astype(bias, mx::float32, s)});
    forms.push_back({group, bits});
  }
  for (auto& [weight, bias, e] : norms) {
    inputs.insert(inputs.end(), {mx::astype(weight, mx::float32, s), mx::astype(bias, mx::float32, s)});
    eps.push_back(e);
  }
  auto eval = [forms, eps, f](const Arrays& in, mx::array& out, const mx::Stream& s) {
    Arrays a;
    for (auto& i : in) a.push_back(contiguous(i, s));
    allocate(out);
    if (!out.size()) return;
    auto affine = [&](int i) {
      auto [group, bits] = forms[i];
      auto *w = &a[2 + 4 * i];
      return Affine{matrix(w[0], w[1], w[2], 0, w[0].shape(1) * 32 / bits, group, bits), w[3].data<float>()};
    };
    auto scaled = [&](int i) { return Scaled{a[14 + 2 * i].data<float>(), a[15 + 2 * i].data<float>(), eps[i]}; };
    AfterAttention l{affine(0), affine(1), affine(2), scaled(0), scaled(1), f};
    dispatch(s, [l, y = a[0].data<float>(), x = a[1].data<float>(), z = out.data<float>(), rows = (int)(out.size() / l.D())] {
      in_blocks(l, y, x, z, rows);
    });
  };
  return make("AfterAttention", x.shape(), mx::float32, s, std::move(inputs), eval);
}

}  // namespace

void bind_encoder(nb::module_& m) {
  m.def("after_attention", &after_attention, "y"_a, "x"_a, "linears"_a, "norms"_a, "activation"_a,
        "norm2(h + down(f(up(h)))) of h = norm1(x + out(y)), float32: y (.., K), x (.., D) -> (.., D).\n"
        "linears: (weight, scales, biases, group_size, bits, bias) of out, up, down; norms: (weight, bias, eps) of both.");
}

}  // namespace toast
