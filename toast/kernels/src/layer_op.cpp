// A decoder layer as Llama has it, quantised, as four MLX ops instead of fifteen: norm with q, k and v; the two
// writes to the cache; and all the rest. A single token is then bound by memory, not by dispatch.
// Made of the ops' own parts in the same order, with the same roundings: the bits are theirs.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "cache_op.h"
#include "matmul.h"
#include "mlx/transforms.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

// A linear layer without bias: weight, scales, biases, group size, bits.
using Linear = std::tuple<mx::array, mx::array, mx::array, int, int>;

QuantWeights weights(const Linear& l) {
  auto& [w, scales, biases, group, bits] = l;
  return matrix(w, scales, biases, 0, w.shape(1) * 32 / bits, group, bits);
}

struct Norm {
  mx::array weight;
  float eps;
};

struct Layer {
  Arrays owned;  // what the weights point into
  QuantWeights q, k, v, o, gate, up, down;
  Norm before, after;  // of attention
  int heads, kv_heads, D;
  float scale;
  Rope rope;
  Type type;

  Output to(char* data) const { return {data, type, {}}; }

  // How keys and values are best kept: float16 is finer than the weights they come from, and half as much to read.
  mx::Dtype kept() const { return owned[0].dtype() == mx::float32 ? mx::float16 : owned[0].dtype(); }
};

void norm(const Norm& n, const char* x, char* y, Type type, int rows) {
  size_t D = n.weight.size(), row = D * size_of(type);
  each_rows(rows, D, [&](size_t first, size_t count) {
    kernels().rms_norm(x + first * row, n.weight.data<char>(), y + first * row, type, count, D, n.eps);
  });
}

void add(const char* x, const char* y, char* sum, Type type, size_t n) {
  each_rows(n, 1, [&](size_t i, size_t count) {
    size_t at = i * size_of(type);
    kernels().add(x + at, y + at, sum + at, type, count);
  });
}

// Pieces of one temporary memory, each aligned, alive until the stream's work so far is done.
struct Pieces {
  std::vector<size_t> starts;
  char* base;

  Pieces(std::initializer_list<size_t> sizes, const mx::Stream& s) {
    size_t end = 0;
    for (size_t n : sizes) {
      starts.push_back(end);
      end += (n + 63) / 64 * 64;
    }
    auto memory = bytes_of(end);
    base = memory.data<char>();
    mx::cpu::get_command_encoder(s).add_temporary(memory);
  }
  char* operator[](int i) const { return base + starts[i]; }
};

using Shared = std::shared_ptr<const Layer>;

// x (.., D) -> its norm times q, k and v: three matrices one after the other.
mx::array before_attention(const Shared& layer, const mx::array& x, int rows, const mx::Stream& s) {
  auto eval = [layer, rows](const Arrays& in, mx::array& out, const mx::Stream& s) {
    const Layer& l = *layer;
    auto x = contiguous(in[0], s);
    allocate(out);
    Pieces p({x.nbytes(), project_bytes(rows, {&l.q, &l.k, &l.v})}, s);
    dispatch(s, [layer, p, rows, x = x.data<char>(), q = out.data<char>()] {
      const Layer& l = *layer;
      size_t row = rows * size_of(l.type);
      auto k = q + l.q.N * row, v = k + l.k.N * row;
      norm(l.before, x, p[0], l.type, rows);
      project(p[0], l.type, rows, p[1], {{&l.q, l.to(q)}, {&l.k, l.to(k)}, {&l.v, l.to(v)}});
    });
  };
  return make("LayerBeforeAttention", {rows * (layer->q.N + layer->k.N + layer->v.N)}, x.dtype(), s, {x}, eval);
}

// Attention over the cache, its projection, and the feed-forward block, with their residuals: x's shape.
mx::array attention_and_after(const Shared& layer, const mx::array& x, const mx::array& qkv, const mx::array& keys,
                              const mx::array& values, const SharedSegments& segments, int rows, bool causal,
                              const mx::Stream& s) {
  auto eval = [layer, segments, rows, causal](const Arrays& in, mx::array& out, const mx::Stream& s) {
    const Layer& l = *layer;
    auto x = contiguous(in[0], s);
    allocate(out);
    size_t one = size_of(l.type), wide = rows * l.q.N * one, hidden = rows * l.gate.N * one;
    Pieces p({wide, wide, x.nbytes(), x.nbytes(), x.nbytes(), hidden, hidden, project_bytes(rows, {&l.o, &l.gate, &l.up, &l.down})}, s);
    dispatch(s, [layer, segments, p, rows, causal, x = x.data<char>(), q = in[1].data<char>(), keys = kept(in[2]),
                 values = kept(in[3]), out = out.data<char>()] {
      const Layer& l = *layer;
      size_t n = (size_t)rows * l.o.N, wide = (size_t)rows * l.gate.N;
      char *turned = p[0], *y = p[1], *r = p[2], *h = p[3], *normed = p[4], *gate = p[5], *up = p[6], *memory = p[7];
      attend(q, l.type, l.heads, *segments, l.rope, l.scale, causal, keys, values, turned, y);
      project(y, l.type, rows, memory, {{&l.o, l.to(r)}});
      add(x, r, h, l.type, n);
      norm(l.after, h, normed, l.type, rows);
      project(normed, l.type, rows, memory, {{&l.gate, l.to(gate)}, {&l.up, l.to(up)}});
      each_rows(wide, 1, [&](size_t i, size_t count) {
        size_t at = i * size_of(l.type);
        kernels().activate(Activation::silu, gate + at, up + at, gate + at, l.type, count);
      });
      project(gate, l.type, rows, memory, {{&l.down, l.to(r)}});
      add(h, r, out, l.type, n);
    });
  };
  return make("LayerAfter", x.shape(), x.dtype(), s, {x, qkv, keys, values}, eval);
}

// Throws where this is no layer that we can do: the caller's own code does it then.
Shared make_layer(const std::vector<Linear>& linears, const mx::array& before, float before_eps, const mx::array& after,
                  float after_eps, int heads, int kv_heads, float scale, int dims, bool traditional,
                  std::optional<float> base, float rope_scale, const Optional& freqs) {
  auto refuse = [](bool bad, const char* why) {
    if (bad) throw std::invalid_argument(std::string("[Layer] ") + why);
  };
  refuse(linears.size() != 7, "needs q, k, v, o, gate, up and down.");
  refuse(heads < 1 || kv_heads < 1 || heads % kv_heads, "heads.");
  auto s = mx::default_stream(mx::Device::cpu);
  Arrays all{before, after};
  for (auto& [w, scales, biases, group, bits] : linears) {
    mx::array x({1, bits ? w.shape(-1) * 32 / bits : 0}, before.dtype(), nullptr, {});
    refuse(w.ndim() != 2 || !readable(x, w, scales, biases, true, group, bits, "affine"), "affine weights of 4 or 8 bits.");
    refuse(mx::promote_types(scales.dtype(), before.dtype()) != before.dtype(), "a dtype that products keep.");
    all.insert(all.end(), {w, scales, biases});
  }
  mx::eval(all);
  for (auto& a : all) refuse(!a.flags().row_contiguous, "contiguous weights.");
  auto w = [&](int i) { return weights(linears[i]); };
  auto l = std::make_shared<Layer>(Layer{all, w(0), w(1), w(2), w(3), w(4), w(5), w(6), {before, before_eps},
                                         {after, after_eps}, heads, kv_heads, 0, scale,
                                         {dims, traditional, rope_scale, nullptr}, type_of(before)});
  l->D = l->q.N / heads;
  int hidden = l->q.K;
  refuse(before.shape() != mx::Shape{hidden} || after.shape() != mx::Shape{hidden} || after.dtype() != before.dtype(), "norms.");
  refuse(l->q.N != heads * l->D || l->k.N != kv_heads * l->D || l->v.N != l->k.N || l->k.K != hidden || l->v.K != hidden ||
             l->o.K != l->q.N || l->o.N != hidden || l->gate.K != hidden || l->up.K != hidden || l->up.N != l->gate.N ||
             l->down.K != l->gate.N || l->down.N != hidden, "shapes.");
  refuse(dims < 2 || dims > l->D || dims % 2 || base.has_value() == freqs.has_value() || (freqs && freqs->size() != (size_t)dims / 2), "rope.");
  l->rope.inverse = frequencies(base, freqs, dims, s);
  return l;
}

struct DecoderLayer {
  Shared layer;

  using Result = std::tuple<mx::array, mx::array, mx::array>;

  // An embedding's dtype may be narrower: the norm makes it float32.
  bool takes(const mx::array& x) const {
    return is_float(x.dtype()) && (layer->type == Type::f32 || type_of(x) == layer->type);
  }

  Result run(const mx::array& given, const mx::array& keys, const mx::array& values, const SharedSegments& segments,
             bool causal) const {
    auto s = mx::to_stream({});
    const Layer& l = *layer;
    auto x = l.type == Type::f32 ? mx::astype(given, mx::float32, s) : given;
    int rows = x.size() / l.q.K;
    auto fits = [&](const mx::array& a) {
      bool ok = a.dtype() == keys.dtype() && a.ndim() == 4 && a.shape(1) == l.kv_heads && a.shape(3) == l.D;
      for (auto& part : *segments)
        ok = ok && part.row >= 0 && part.row < a.shape(0) && part.length > 0 && part.offset >= 0 && part.length <= a.shape(2) - part.offset;
      return ok;
    };
    if (!ours(s) || !x.size() || !takes(x) || x.shape(-1) != l.q.K || segments->empty() ||
        segments->back().first + segments->back().length != rows ||
        (keys.dtype() != x.dtype() && keys.dtype() != l.kept()) || !fits(keys) || !fits(values))
      throw std::invalid_argument("[Layer] shapes or dtypes do not fit.");
    auto qkv = before_attention(layer, x, rows, s);
    int64_t k = (int64_t)rows * l.q.N, v = k + (int64_t)rows * l.k.N;
    auto new_keys = write(qkv, k, segments, keys, l.rope, s), new_values = write(qkv, v, segments, values, {}, s);
    return {attention_and_after(layer, x, qkv, new_keys, new_values, segments, rows, causal, s), new_keys, new_values};
  }

  Result equal(const mx::array& x, const mx::array& keys, const mx::array& values, int offset, bool causal) const {
    if (x.ndim() != 3 || keys.ndim() != 4 || keys.shape(0) != x.shape(0)) throw std::invalid_argument("[Layer] x (B, L, D).");
    return run(x, keys, values, equal_segments(x.shape(0), x.shape(1), offset), causal);
  }

  Result ragged(const mx::array& x, const mx::array& keys, const mx::array& values,
                const std::vector<std::tuple<int, int, int>>& texts) const {
    auto segments = std::make_shared<Segments>();
    int first = 0;
    for (auto [row, length, offset] : texts) {
      if (length < 1 || length > (int)x.size() - first) throw std::invalid_argument("[Layer] a text without rows.");
      segments->push_back({row, first, length, offset});
      first += length;
    }
    return run(x, keys, values, segments, true);
  }
};

}  // namespace

void bind_layer(nb::module_& m) {
  nb::class_<DecoderLayer>(m, "DecoderLayer", "Llama's decoder layer with quantised weights (MLX's affine form).")
      .def("__init__", [](DecoderLayer* self, const std::vector<Linear>& linears, const mx::array& before, float before_eps,
                          const mx::array& after, float after_eps, int heads, int kv_heads, float scale, int dims,
                          bool traditional, std::optional<float> base, float rope_scale, const Optional& freqs) {
        new (self) DecoderLayer{make_layer(linears, before, before_eps, after, after_eps, heads, kv_heads, scale, dims,
                                           traditional, base, rope_scale, freqs)};
      }, "linears"_a, "before"_a, "before_eps"_a, "after"_a, "after_eps"_a, "heads"_a, "kv_heads"_a, "scale"_a, "dims"_a,
         "traditional"_a, "base"_a.none(), "rope_scale"_a, "freqs"_a.none(),
         "linears: (weight, scales, biases, group_size, bits) of q, k, v, o, gate, up, down.")
      .def("takes", &DecoderLayer::takes, "x"_a)
      .def("__call__", &DecoderLayer::equal, "x"_a, "keys"_a, "values"_a, "offset"_a, "causal"_a,
           "x (B, L, D), caches (B, heads, capacity, d) with `offset` rows so far -> y (B, L, D), keys, values.")
      .def_prop_ro("kv_heads", [](const DecoderLayer& l) { return l.layer->kv_heads; })
      .def_prop_ro("head_dims", [](const DecoderLayer& l) { return l.layer->D; })
      .def_prop_ro("kept", [](const DecoderLayer& l) { return l.layer->kept(); }, "dtype for new caches, beside x's own")
      .def("ragged", &DecoderLayer::ragged, "x"_a, "keys"_a, "values"_a, "texts"_a,
           "x (1, T, D), the new rows of texts one after the other, each (row of the cache, how many, rows so far);\n"
           "caches (R, heads, capacity, d) -> y (1, T, D), keys, values.");
}

}  // namespace toast
