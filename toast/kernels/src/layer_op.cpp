// Decoder layers as one MLX op, and one for the end of the last: a single token is then bound by memory, not by
// dispatch. What a layer does is in layer_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings.h"
#include "cache_op.h"
#include "layer_work.h"
#include "matmul.h"
#include "mlx/transforms.h"

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

// How keys and values are best kept: float16 is finer than the weights they come from, and half of float32 to read.
mx::Dtype kept_as(Type type) { return type == Type::bf16 ? mx::bfloat16 : mx::float16; }

// Throws where this is no layer that we can do: the caller's own code does it then.
std::shared_ptr<const Layer> make_layer(const std::vector<Linear>& linears, const mx::array& before, float before_eps,
                                        const mx::array& after, float after_eps, int heads, int kv_heads, float scale,
                                        int dims, bool traditional, std::optional<float> base, float rope_scale,
                                        const Optional& freqs) {
  auto refuse = [](bool bad, const char* why) {
    if (bad) throw std::invalid_argument(std::string("[Layer] ") + why);
  };
  refuse(linears.size() != 7, "needs q, k, v, o, gate, up and down.");
  refuse(heads < 1 || kv_heads < 1 || heads % kv_heads, "heads.");
  auto s = mx::default_stream(mx::Device::cpu);
  Arrays all{before, after};
  for (auto& [w, scales, biases, group, bits] : linears) {
    mx::array x({1, bits ? w.shape(-1) * 32 / bits : 0}, before.dtype(), nullptr, {});
    refuse(w.ndim() != 2 || !readable(x, w, scales, biases, true, group, bits, "affine"),
           "affine weights of 4 or 8 bits.");
    refuse(mx::promote_types(scales.dtype(), before.dtype()) != before.dtype(), "a dtype that products keep.");
    all.insert(all.end(), {w, scales, biases});
  }
  mx::eval(all);
  for (auto& a : all) refuse(!a.flags().row_contiguous, "contiguous weights.");
  auto w = [&](int i) { return weights(linears[i]); };
  Rope rope{dims, traditional, rope_scale, nullptr};
  using Owned = std::pair<Layer, Arrays>;  // and what it points into
  auto owned =
      std::make_shared<Owned>(Layer{w(0), w(1), w(2), w(3), w(4), w(5), w(6), before.data<char>(), after.data<char>(),
                                    before_eps, after_eps, heads, kv_heads, 0, scale, rope, type_of(before)},
                              all);
  Layer* l = &owned->first;
  l->D = l->q.N / heads;
  int hidden = l->q.K;
  refuse(before.shape() != mx::Shape{hidden} || after.shape() != mx::Shape{hidden} || after.dtype() != before.dtype(),
         "norms.");
  refuse(l->q.N != heads * l->D || l->k.N != kv_heads * l->D || l->v.N != l->k.N || l->k.K != hidden ||
             l->v.K != hidden || l->o.K != l->q.N || l->o.N != hidden || l->gate.K != hidden || l->up.K != hidden ||
             l->up.N != l->gate.N || l->down.K != l->gate.N || l->down.N != hidden,
         "shapes.");
  refuse(dims < 2 || dims > l->D || dims % 2 || base.has_value() == freqs.has_value() ||
             (freqs && freqs->size() != (size_t)dims / 2),
         "rope.");
  l->rope.inverse = frequencies(base, freqs, dims, s);
  return {owned, l};
}

// A cache's buffers on their way through an op: in as inputs, out through arrays that depend on it. The work holds them
// itself: those arrays may be dropped before it runs.
using Buffers = std::vector<Optional>;

// What nobody else holds is written in place; what an earlier step still holds, it will not for long.
void take_all(const Arrays& in, size_t first, Buffers& buffers, const mx::Stream& s) {
  bool held = std::any_of(in.begin() + first, in.end(), [](auto& a) { return a.data_shared_ptr().use_count() > 1; });
  if (held) mx::synchronize(s);
  for (size_t i = 0; i < buffers.size(); i++) {
    auto& x = in[first + i];
    buffers[i] = mx::array(x.shape(), x.dtype(), nullptr, {});
    take(x, *buffers[i], s);
  }
}

// run_layers() -> states, and the caches with what it writes. MLX gives an op of several outputs no buffer to write in
// place, so the caches are arrays that wait for the one.
std::pair<mx::array, Arrays> to_halfway(const Layers& layers, const mx::array& x, const Arrays& caches,
                                        const SharedSegments& segments, int rows, bool causal, const mx::Stream& s) {
  auto buffers = std::make_shared<Buffers>(caches.size());
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    take_all(in, 1, *buffers, s);
    std::vector<Kept> at;
    for (auto& b : *buffers) at.push_back(kept(*b));
    allocate(out);
    dispatch(s, [=, held = *buffers, at = std::move(at), x = x.data<char>(), states = out.data<char>(),
                 memory = temporary(run_layers_bytes(layers, rows), s)] {
      run_layers(layers, x, rows, *segments, causal, at, states, memory);
    });
  };
  Arrays inputs{x}, written;
  inputs.insert(inputs.end(), caches.begin(), caches.end());
  auto states = make("DecoderLayers", {(int)(rows * halfway(*layers.back()))}, x.dtype(), s, std::move(inputs), eval);
  for (size_t i = 0; i < caches.size(); i++) {
    auto hand_out = [buffers, i](const Arrays&, mx::array& out, const mx::Stream&) {
      out.copy_shared_buffer(*(*buffers)[i]);
      (*buffers)[i].reset();
    };
    written.push_back(make("CacheWritten", caches[i].shape(), caches[i].dtype(), s, {states}, hand_out));
  }
  return {states, written};
}

// end_layer() of the last one, an op of its own: nobody asks for it while a prompt is read.
mx::array to_the_end(const std::shared_ptr<const Layer>& layer, const mx::array& states, const mx::array& keys,
                     const mx::array& values, const mx::Shape& shape, const SharedSegments& segments, int rows,
                     bool causal, const mx::Stream& s) {
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    allocate(out);
    dispatch(s, [=, states = in[0].data<char>(), keys = kept(in[1]), values = kept(in[2]), y = out.data<char>(),
                 memory = temporary(end_layer_bytes(*layer, rows), s)] {
      end_layer(*layer, states, rows, *segments, causal, keys, values, y, memory);
    });
  };
  return make("LastLayersEnd", shape, states.dtype(), s, {states, keys, values}, eval);
}

struct DecoderLayers {
  Layers layers;

  const Layer& first() const { return *layers[0]; }

  // An embedding's dtype may be narrower: the norm makes it float32.
  bool takes(const mx::array& x) const {
    return is_float(x.dtype()) && (first().type == Type::f32 || type_of(x) == first().type);
  }

  void check(const mx::array& x, const Arrays& caches, const Segments& segments, int rows) const {
    auto fits = [&](const mx::array& a) {
      bool ok =
          a.dtype() == caches[0].dtype() && a.ndim() == 4 && a.shape(1) == first().kv_heads && a.shape(3) == first().D;
      for (auto& part : segments)
        ok = ok && part.row >= 0 && part.row < a.shape(0) && part.length > 0 && part.offset >= 0 &&
             part.length <= a.shape(2) - part.offset;
      return ok;
    };
    if (caches.size() != 2 * layers.size() || !x.size() || x.shape(-1) != first().width() || segments.empty() ||
        segments.back().first + segments.back().length != rows || !std::all_of(caches.begin(), caches.end(), fits) ||
        (caches[0].dtype() != x.dtype() && caches[0].dtype() != kept_as(first().type)))
      throw std::invalid_argument("[DecoderLayers] shapes or dtypes do not fit.");
  }

  std::tuple<mx::array, Arrays, Arrays> run(const mx::array& given, const Arrays& keys, const Arrays& values,
                                            const std::vector<std::tuple<int, int, int>>& texts, bool causal) const {
    auto s = mx::to_stream({});
    if (!ours(s) || !takes(given)) throw std::invalid_argument("[DecoderLayers] x is not of the layers' dtype.");
    auto x = first().type == Type::f32 ? mx::astype(given, mx::float32, s) : given;
    int rows = x.size() / first().width();
    auto segments = std::make_shared<Segments>();
    for (int at = 0; auto [row, length, offset] : texts) {
      if (length < 1 || length > rows - at) throw std::invalid_argument("[DecoderLayers] a text without rows.");
      segments->push_back({row, at, length, offset});
      at += length;
    }
    Arrays caches;
    for (size_t i = 0; i < keys.size() && i < values.size(); i++) caches.insert(caches.end(), {keys[i], values[i]});
    check(x, caches, *segments, rows);
    auto [states, written] = to_halfway(layers, x, caches, segments, rows, causal, s);
    auto y = to_the_end(layers.back(), states, written[written.size() - 2], written.back(), x.shape(), segments, rows,
                        causal, s);
    Arrays new_keys, new_values;
    for (size_t i = 0; i < written.size(); i++) (i % 2 ? new_values : new_keys).push_back(written[i]);
    return {y, new_keys, new_values};
  }
};

DecoderLayers together(const std::vector<const DecoderLayers*>& parts) {
  DecoderLayers all;
  for (auto part : parts) all.layers.insert(all.layers.end(), part->layers.begin(), part->layers.end());
  for (auto& l : all.layers)
    if (l->type != all.first().type || l->width() != all.first().width() || l->heads != all.first().heads ||
        l->kv_heads != all.first().kv_heads || l->D != all.first().D)
      throw std::invalid_argument("[DecoderLayers] layers differ.");
  return all;
}

}  // namespace

void bind_layer(nb::module_& m) {
  nb::class_<DecoderLayers>(m, "DecoderLayers", "Llama's decoder layers with quantised weights (MLX's affine form).")
      .def(
          "__init__",
          [](DecoderLayers* self, const std::vector<Linear>& linears, const mx::array& before, float before_eps,
             const mx::array& after, float after_eps, int heads, int kv_heads, float scale, int dims, bool traditional,
             std::optional<float> base, float rope_scale, const Optional& freqs) {
            new (self) DecoderLayers{{make_layer(linears, before, before_eps, after, after_eps, heads, kv_heads, scale,
                                                 dims, traditional, base, rope_scale, freqs)}};
          },
          "linears"_a, "before"_a, "before_eps"_a, "after"_a, "after_eps"_a, "heads"_a, "kv_heads"_a, "scale"_a,
          "dims"_a, "traditional"_a, "base"_a.none(), "rope_scale"_a, "freqs"_a.none(),
          "One layer. linears: (weight, scales, biases, group_size, bits) of q, k, v, o, gate, up, down.")
      .def_static("together", &together, "parts"_a)
      .def("takes", &DecoderLayers::takes, "x"_a)
      .def("__call__", &DecoderLayers::run, "x"_a, "keys"_a, "values"_a, "texts"_a, "causal"_a = true,
           "x (.., T, D), the new rows of texts one after the other, each (row of the cache, how many, rows so far);\n"
           "keys, values: caches (R, heads, capacity, d) of every layer -> y like x, keys, values.")
      .def_prop_ro("kv_heads", [](const DecoderLayers& l) { return l.first().kv_heads; })
      .def_prop_ro("head_dims", [](const DecoderLayers& l) { return l.first().D; })
      .def_prop_ro(
          "kept", [](const DecoderLayers& l) { return kept_as(l.first().type); },
          "dtype for new caches, beside x's own");
}

}  // namespace toast
