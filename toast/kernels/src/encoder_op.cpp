// An encoder's layer with norms after (BERT's) as one op, or what of it follows attention: products, attention, norms.
// One thread takes a block of texts from the first product to the last norm: what lies between stays in its cache.
// Made of the ops' own parts in the same order: the bits are theirs.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "attention_work.h"
#include "bindings.h"
#include "floats_op.h"
#include "matmul.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

using Linear =
    std::tuple<mx::array, mx::array, mx::array, int, int, mx::array>;  // w, scales, biases, group, bits, bias
using Norm = std::tuple<mx::array, mx::array, float>;                  // weight, bias, eps

struct Affine {
  QuantWeights w;
  const float* bias;
};

struct Scaled {
  const float *weight, *bias;
  float eps;
};

constexpr size_t WORTH_UNPACKING = 32;  // rows of a block

// x[rows, K] -> f(x w' + bias) + residual: to[rows, N]; memory: project_bytes(). All float32 but the weights.
void multiply(const Affine& l, const float* x, int rows, float* to, const float* residual, Activation f, char* memory) {
  Epilogue e{residual, (size_t)l.w.N, 1, 1, l.bias, f};
  project((const char*)x, Type::f32, rows, memory, {{&l.w, {to, Type::f32, e}}});
}

// y[rows, out.w.K], x[rows, D] -> z[rows, D].
struct AfterAttention {
  Affine out, up, down;
  Scaled norm1, norm2;
  Activation activation;
  int D() const { return out.w.N; }
  int F() const { return up.w.N; }

  // Rows of a block whose widest state fits the second cache beside weights.
  size_t block() const { return std::max(WORTH_UNPACKING, (384 << 10) / (F() * sizeof(float))); }

  void run(const float* y, const float* x, float* z, int rows) const {
    size_t states = (size_t)rows * (2 * D() + F());  // one piece of memory after the other
    float* sum = (float*)scratch(3, states * sizeof(float) + project_bytes(rows, {&out.w, &up.w, &down.w}));
    float *h = sum + (size_t)rows * D(), *wide = h + (size_t)rows * D();
    char* memory = (char*)(sum + states);
    multiply(out, y, rows, sum, x, Activation::none, memory);
    norm(norm1, sum, h, rows);
    multiply(up, h, rows, wide, nullptr, activation, memory);
    multiply(down, wide, rows, sum, h, Activation::none, memory);
    norm(norm2, sum, z, rows);
  }

  void norm(const Scaled& n, const float* x, float* y, int rows) const {
    each_rows(rows, D(), [&](size_t first, size_t count) {
      kernels().layer_norm(x + first * D(), n.weight, n.bias, y + first * D(), Type::f32, count, D(), n.eps);
    });
  }
};

// A layer's attention: the product with q, k and v beside each other, and the mask [B, heads, L, L] by strides.
struct SelfAttention {
  Affine qkv;
  int heads;
  float scale;
  Mask mask;
  const char* m;
  int64_t m_text, m_head, m_row;
  int width() const { return qkv.w.N / 3; }

  // x[texts, L, D] -> y[texts, L, width]: those from `first` on.
  void run(const float* x, float* y, int first, int texts, int L) const {
    int rows = texts * L, tile = attention_tile(1, L, L);
    size_t states = (size_t)rows * 3 * width();
    float* all = (float*)scratch(5, states * sizeof(float) + project_bytes(rows, {&qkv.w}));
    multiply(qkv, x, rows, all, nullptr, Activation::none, (char*)(all + states));
    int tiles = (L + tile - 1) / tile;
    parallel(texts * heads * tiles, [&](int i) {
      attend(all, y, first, i / (heads * tiles), i / tiles % heads, i % tiles * tile,
             std::min(L - i % tiles * tile, tile), L);
    });
  }

  void attend(const float* all, float* y, int first, int text, int head, int row, int rows, int L) const {
    int d = width() / heads, w = 3 * width();
    const float* q = all + (size_t)text * L * w + head * d;
    Attention a{};
    a.mask = mask, a.group = 1, a.queries = rows, a.keys = L, a.dk = a.dv = d, a.scale = scale;
    a.q = q + (size_t)row * w, a.k = q + width(), a.v = q + 2 * width(),
    a.y = y + ((size_t)text * L + row) * width() + head * d;
    a.q_row = a.k_row = a.v_row = w, a.y_row = width();
    int64_t size = mask == Mask::boolean ? 1 : sizeof(float);
    a.m_row = m_row, a.m = m + ((first + text) * m_text + head * m_head + row * m_row) * size;
    kernels().attention(a, (float*)scratch(0, kernels().attention_scratch(a) * sizeof(float)));
  }
};

// All the weights, once for many blocks.
void unpack(std::initializer_list<QuantWeights*> all) {
  size_t bytes = 0;
  for (auto w : all) bytes += kernels().unpacked_bytes(*w);
  char* to = (char*)scratch(4, bytes);
  for (auto w : all) {
    int panel = kernels().panel;
    parallel((w->N + panel - 1) / panel,
             [&](int i) { kernels().unpack(*w, i * panel, std::min(w->N, (i + 1) * panel), to); });
    w->unpacked = to;
    to += kernels().unpacked_bytes(*w);
  }
}

// y[rows, K], x[rows, D] -> z, in blocks of whole tiles where there are several.
void run_blocks(const AfterAttention& l, const float* y, const float* x, float* z, int rows) {
  int blocks = (rows + l.block() - 1) / l.block(), step = ((rows + blocks - 1) / blocks + 3) / 4 * 4;
  parallel((rows + step - 1) / step, [&](int i) {
    size_t first = (size_t)i * step;
    l.run(y + first * l.out.w.K, x + first * l.D(), z + first * l.D(), std::min<int>(step, rows - first));
  });
}

void run_after(AfterAttention l, const float* y, const float* x, float* z, int rows) {
  if (rows < 2 * helpers() * (int)l.block()) return l.run(y, x, z, rows);  // not a block for every thread
  unpack({&l.out.w, &l.up.w, &l.down.w});
  run_blocks(l, y, x, z, rows);
}

// x[B, L, D] -> z, in blocks of whole texts where there are enough for all threads, else one step after the other.
void run_layer(SelfAttention s, AfterAttention l, const float* x, float* z, int B, int L) {
  int texts = std::max<int>(1, l.block() / L);
  while (texts * L % 4 && texts * L < (int)l.block()) texts++;  // whole tiles
  int blocks = (B + texts - 1) / texts;
  auto y = [&](int rows) { return (float*)scratch(6, (size_t)rows * s.width() * sizeof(float)); };
  if (blocks < 4 * helpers()) {
    float* all = y(B * L);
    s.run(x, all, 0, B, L);
    return run_after(l, all, x, z, B * L);
  }
  unpack({&s.qkv.w, &l.out.w, &l.up.w, &l.down.w});
  parallel(blocks, [&](int i) {
    int first = i * texts, count = std::min(texts, B - first);
    size_t at = (size_t)first * L * l.D();
    float* some = y(count * L);
    s.run(x + at, some, first, count, L);
    run_blocks(l, some, x + at, z + at, count * L);
  });
}

void refuse(bool bad, const char* why) {
  if (bad) throw std::invalid_argument(std::string("[encoder] ") + why);
}

// linears, one after the other from K columns to D of x[.., D], and norms of D.
void check(const mx::array& x, int K, const std::vector<Linear>& linears, const std::vector<Norm>& norms) {
  refuse(x.dtype() != mx::float32 || x.ndim() < 1, "x float32.");
  int D = x.shape(-1);
  for (auto& [w, scales, biases, group, bits, bias] : linears) {
    mx::array row({1, K}, mx::float32, nullptr, {});
    refuse(w.ndim() != 2 || !readable(row, w, scales, biases, true, group, bits, "affine"),
           "affine weights of 4 or 8 bits that fit.");
    refuse(bias.shape() != mx::Shape{w.shape(0)}, "bias[N].");
    K = w.shape(0);
  }
  refuse(std::get<0>(linears[0]).shape(0) != D || K != D, "weights from and to x's width.");
  for (auto& [weight, bias, eps] : norms)
    refuse(weight.shape() != mx::Shape{D} || bias.shape() != mx::Shape{D}, "norms[D].");
}

// An op's weights as its inputs from number `first` on, and back when it runs.
struct Weights {
  std::vector<std::pair<int, int>> forms;
  std::vector<float> eps;
  size_t first;

  Weights(Arrays& inputs, const std::vector<Linear>& linears, const std::vector<Norm>& norms, const mx::Stream& s)
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
  Affine affine(const Arrays& in, int i) const {
    auto [group, bits] = forms[i];
    auto* w = &in[first + 4 * i];
    return {matrix(w[0], w[1], w[2], 0, w[0].shape(1) * 32 / bits, group, bits), w[3].data<float>()};
  }
  Scaled scaled(const Arrays& in, int i) const {
    auto* n = &in[first + 4 * forms.size() + 2 * i];
    return {n[0].data<float>(), n[1].data<float>(), eps[i]};
  }
  AfterAttention after(const Arrays& in, int i, Activation f) const {  // linears from number i on
    return {affine(in, i), affine(in, i + 1), affine(in, i + 2), scaled(in, 0), scaled(in, 1), f};
  }
};

Arrays contiguous(const Arrays& in, size_t n, const mx::Stream& s) {
  Arrays out;
  for (auto& a : in) out.push_back(out.size() < n ? toast::contiguous(a, s) : rows_contiguous(a, s));
  return out;
}

mx::array after_attention(const mx::array& y, const mx::array& x, const std::vector<Linear>& linears,
                          const std::vector<Norm>& norms, const std::string& activation) {
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
                 rows = (int)(out.size() / l.D())] { run_after(l, y, x, z, rows); });
  };
  return make("AfterAttention", x.shape(), mx::float32, s, std::move(inputs), eval);
}

mx::array encoder_layer(const mx::array& x, const Optional& mask, int heads, const std::vector<Linear>& linears,
                        const std::vector<Norm>& norms, const std::string& activation) {
  auto s = mx::to_stream({});
  auto f = activation_named(activation);
  refuse(!ours(s), "on the CPU only.");
  refuse(linears.size() != 4 || norms.size() != 2, "needs qkv, out, up and down, and two norms.");
  refuse(x.ndim() != 3, "x[B, L, D].");
  int B = x.shape(0), L = x.shape(1), N = std::get<0>(linears[0]).shape(0);
  refuse(heads < 1 || N % (3 * heads), "q, k and v of whole heads.");
  check(x, N / 3, {linears.begin() + 1, linears.end()}, norms);
  check(mx::array({1, N}, mx::float32, nullptr, {}), x.shape(2), {linears[0]}, {});
  Arrays inputs{x};
  Weights weights(inputs, linears, norms, s);
  size_t plain = inputs.size();
  bool boolean = mask && mask->dtype() == mx::bool_;
  if (mask)
    inputs.push_back(mx::broadcast_to(boolean ? *mask : mx::astype(*mask, mx::float32, s), {B, heads, L, L}, s));
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto a = contiguous(in, plain, s);
    allocate(out);
    if (!out.size()) return;
    SelfAttention self{weights.affine(a, 0), heads, (float)std::pow(N / 3 / heads, -0.5), Mask::none, nullptr, 0, 0, 0};
    if (a.size() > plain) {
      auto& m = a[plain];
      self.mask = boolean ? Mask::boolean : Mask::additive;
      self.m = m.data<char>(), self.m_text = m.strides(0), self.m_head = m.strides(1), self.m_row = m.strides(2);
    }
    dispatch(s, [=, l = weights.after(a, 1, f), x = a[0].data<float>(), z = out.data<float>()] {
      run_layer(self, l, x, z, B, L);
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
