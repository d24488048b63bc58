// Decoder layers as one MLX op, and one for the end of the last: a single token is then bound by memory, not by
// dispatch. What a layer does is in layer_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bindings.h"
#include "cache_op.h"
#include "experts_op.h"
#include "layer_work.h"
#include "matmul.h"
#include "mlx/transforms.h"
#include "quantized_work.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

void refuse(bool bad, const char* why) {
  if (bad) throw std::invalid_argument(std::string("[DecoderLayers] ") + why);
}

// How keys and values are best stored: float16 is finer than the weights they come from, and half of float32 to read.
mx::Dtype kv_dtype(Type type) { return type == Type::bf16 ? mx::bfloat16 : mx::float16; }

using Update = std::tuple<mx::array, mx::array, float>;  // a (K, rank), b (rank, N), scale

// A layer's parts as arrays.
struct LayerArrays {
  std::vector<Affine> linears;                 // q, k, v, o, gate, up, down, the last three of all experts
  std::vector<std::optional<Update>> updates;  // of each, or none at all
  // weight and eps: before and after attention; of q and k, or none; after attention's and the other block's end
  std::vector<std::optional<std::pair<mx::array, float>>> norms;
  Rope rope;
  int heads, kv_heads;
  float scale;
  std::vector<OptionalArray> biases;  // of each linear layer, or none at all
  Activation activation;
  std::optional<ExpertsTuple> experts;

  const mx::array& norm(int i) const { return norms[i]->first; }
};

void add_updates(const LayerArrays& l, mx::Dtype dtype, Arrays& all) {
  refuse(!l.updates.empty() && l.updates.size() != l.linears.size(), "an update or none for each linear layer.");
  for (auto& update : l.updates) {
    if (!update) continue;
    for (auto& a : {std::get<0>(*update), std::get<1>(*update)}) {
      refuse(a.ndim() != 2 || !a.size() || a.dtype() != mx::float32 || dtype != mx::float32, "updates in float32.");
      all.push_back(a);
      mx::eval(a);
      refuse(a.strides()[0] != 1 && a.strides()[1] != 1, "updates with rows or columns in one piece.");
    }
  }
}

// All of a layer's arrays, evaluated and contiguous; throws where this is no layer that we can do.
Arrays checked(const LayerArrays& l) {
  refuse(l.linears.size() != 7, "needs q, k, v, o, gate, up and down.");
  refuse(l.norms.size() != 6 || !l.norms[0] || !l.norms[1], "needs two norms, and those that may be none.");
  refuse(!l.biases.empty() && l.biases.size() != l.linears.size(), "a bias or none for each linear layer.");
  refuse(l.heads < 1 || l.kv_heads < 1 || l.heads % l.kv_heads, "heads.");
  auto dtype = l.norm(0).dtype();
  refuse(!is_float(dtype) || (l.activation == Activation::gelu_tanh && dtype != mx::float32), "a dtype that is ours.");
  Arrays all;
  auto add = [&](const mx::array& a) {
    refuse(a.dtype() != dtype || a.ndim() != 1, "norms and biases of one dtype.");
    all.push_back(a);
  };
  for (auto& norm : l.norms)
    if (norm) add(norm->first);
  for (auto& bias : l.biases)
    if (bias) add(*bias);
  for (size_t i = 0; i < l.linears.size(); i++) {
    auto& a = l.linears[i];
    refuse(a.w.ndim() != (l.experts && i > 3 ? 3 : 2) ||
               !is_supported(mx::array({1, a.bits ? a.width() : 0}, dtype, nullptr, {}), a),
           "affine weights of 2 to 6 or 8 bits.");
    refuse(mx::promote_types(a.scales.dtype(), dtype) != dtype, "a dtype that products keep.");
    all.insert(all.end(), {a.w, a.scales, a.biases});
  }
  mx::eval(all);
  for (auto& a : all) refuse(!a.flags().row_contiguous, "contiguous weights.");
  add_updates(l, dtype, all);
  return all;
}

void check_shapes(const Layer& l, const LayerArrays& arrays) {
  int hidden = l.width();
  auto is = [](const QuantWeights& w, int N, int K) { return w.N == N && w.K == K; };
  for (int i = 0; i < 6; i++)
    refuse(arrays.norms[i] && arrays.norm(i).shape() != mx::Shape{i == 2 || i == 3 ? l.D : hidden}, "norms.");
  refuse(!is(l.q, l.heads * l.D, hidden) || !is(l.k, l.kv_heads * l.D, hidden) || !is(l.v, l.k.N, hidden) ||
             !is(l.o, hidden, l.q.N) || !is(l.gate, l.gate.N, hidden) || !is(l.up, l.gate.N, hidden) ||
             !is(l.down, hidden, l.gate.N),
         "shapes.");
  refuse(l.rope.dims > l.D, "rope.");
  const QuantWeights* linears[] = {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down};
  for (size_t i = 0; i < arrays.biases.size(); i++)
    refuse(arrays.biases[i] && arrays.biases[i]->size() != (size_t)linears[i]->N, "biases.");
  for (size_t i = 0; i < l.updates.size(); i++) {
    auto& u = l.updates[i];
    refuse(l.experts.count && i > 3 && (u.a.N || l.biases[i]), "an expert's matrices and no more.");
    bool fits = u.a.K == linears[i]->K && u.a.N == u.b.K && u.b.N == linears[i]->N;
    refuse(u.a.N && !fits, "shapes of an update.");
  }
}

Matrix matrix(const mx::array& b) {
  return {b.data<char>(), Type::f32, b.strides()[0], b.strides()[1], b.shape(0), b.shape(1)};
}

// Throws where this is no layer that we can do: the caller's own code does it then.
std::shared_ptr<const Layer> make_layer(const LayerArrays& arrays) {
  using Owned = std::pair<Layer, Arrays>;  // and what it points into
  auto all = checked(arrays);
  auto w = [&](int i) {
    auto matrix = arrays.linears[i].matrix();
    if (!(arrays.experts && i > 3) && is_centred(matrix)) matrix.biases = nullptr;
    return matrix;
  };
  auto norm = [&](int i) {
    return arrays.norms[i] ? Norm{arrays.norm(i).data<char>(), nullptr, arrays.norms[i]->second} : Norm{};
  };
  Layer l{w(0),
          w(1),
          w(2),
          w(3),
          w(4),
          w(5),
          w(6),
          norm(0),
          norm(1),
          arrays.heads,
          arrays.kv_heads,
          0,
          arrays.scale,
          arrays.rope,
          type_of(arrays.norm(0))};
  l.D = l.q.N / l.heads;
  l.q_norm = norm(2), l.k_norm = norm(3), l.after_attention = norm(4), l.after_feed_forward = norm(5);
  l.activation = arrays.activation;
  for (size_t i = 0; i < arrays.biases.size(); i++)
    if (arrays.biases[i]) l.biases[i] = arrays.biases[i]->data<char>();
  for (size_t i = 0; i < arrays.updates.size(); i++)
    if (auto& update = arrays.updates[i])
      l.updates[i] = {matrix(std::get<0>(*update)), matrix(std::get<1>(*update)), std::get<2>(*update)};
  if (arrays.experts) l.experts = make_experts(*arrays.experts, arrays.linears, arrays.norm(0).dtype(), all);
  check_shapes(l, arrays);
  auto owned = std::make_shared<Owned>(std::move(l), std::move(all));
  return {owned, &owned->first};
}

// A cache's buffers on their way through an op: in as inputs, out through arrays that depend on it. The work holds them
// itself: those arrays may be dropped before it runs.
using Buffers = std::vector<OptionalArray>;

// What nobody else holds is written in place. What another array still holds (the previous step releases it) is waited
// for instead of copied.
void take_all(const Arrays& in, size_t first, Buffers& buffers, const mx::Stream& s) {
  bool held = std::any_of(in.begin() + first, in.end(), [](auto& a) { return a.data_shared_ptr().use_count() > 1; });
  if (held) mx::synchronize(s);
  for (size_t i = 0; i < buffers.size(); i++) {
    auto& x = in[first + i];
    buffers[i] = mx::array(x.shape(), x.dtype(), nullptr, {});
    take(x, *buffers[i], s);
  }
}

// run_layers() -> states, and the caches (keys and values of each layer in turn) with what it stores. MLX gives an op
// of several outputs no buffer to write in place, so the caches are arrays that wait for the one.
// shifts: KvBuffer's, of each layer's.
std::pair<mx::array, Arrays> run_to_last_attention(const Layers& layers, const mx::array& x, const Arrays& caches,
                                                   const std::vector<int>& shifts, const SharedBatch& batch,
                                                   const mx::Stream& s) {
  auto buffers = std::make_shared<Buffers>(caches.size());
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    take_all(in, 1, *buffers, s);
    std::vector<KvCaches> at;
    for (size_t i = 0; i < buffers->size(); i += 2)
      at.push_back(
          {kv_rows(*(*buffers)[i], *batch, shifts[i / 2]), kv_rows(*(*buffers)[i + 1], *batch, shifts[i / 2])});
    allocate(out);
    dispatch(s, [=, held = *buffers, at = std::move(at), x = x.data<char>(), states = out.data<char>(),
                 memory = temporary(run_layers_bytes(layers, batch->rows), s)] {
      run_layers(layers, x, *batch, at, states, memory);
    });
  };
  Arrays inputs{x}, written;
  inputs.insert(inputs.end(), caches.begin(), caches.end());
  int size = batch->rows * states_width(*layers.back());
  auto states = make("DecoderLayers", {size}, x.dtype(), s, std::move(inputs), eval);
  for (size_t i = 0; i < caches.size(); i++) {
    auto hand_out = [buffers, i](const Arrays&, mx::array& out, const mx::Stream&) {
      out.copy_shared_buffer(*(*buffers)[i]);
      (*buffers)[i].reset();
    };
    written.push_back(make("CacheWritten", caches[i].shape(), caches[i].dtype(), s, {states}, hand_out));
  }
  return {states, written};
}

// finish_layer() of the last one, an op of its own: nobody asks for it while a prompt is prefilled.
// inputs: states, keys, values.
mx::array finish_last(const std::shared_ptr<const Layer>& layer, const Arrays& inputs, int shift,
                      const mx::Shape& shape, const SharedBatch& batch, const mx::Stream& s) {
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    allocate(out);
    dispatch(s, [=, states = in[0].data<char>(),
                 caches = KvCaches{kv_rows(in[1], *batch, shift), kv_rows(in[2], *batch, shift)}, y = out.data<char>(),
                 memory = temporary(finish_layer_bytes(*layer, batch->rows), s)] {
      finish_layer(*layer, states, *batch, caches, y, memory);
    });
  };
  return make("LastLayersEnd", shape, inputs[0].dtype(), s, inputs, eval);
}

using Lengths = std::vector<std::pair<int, int>>;  // of each text: new rows, rows so far

SharedBatch batch_of(const Lengths& lengths, int rows) {
  auto batch = std::make_shared<RaggedBatch>(RaggedBatch{{}, rows, true});
  int at = 0;
  for (auto [length, offset] : lengths) {
    refuse(length < 1 || length > rows - at, "a text without rows.");
    batch->segments.push_back({at, length, offset});
    at += length;
  }
  refuse(lengths.empty() || at != rows, "rows without a text.");
  return batch;
}

struct DecoderLayers {
  Layers layers;

  const Layer& first() const { return *layers[0]; }

  // An embedding's dtype may be narrower: the norm makes it float32.
  bool takes(const mx::array& x) const {
    return is_float(x.dtype()) && (first().type == Type::f32 || type_of(x) == first().type);
  }

  // Whether a buffer of `rows` texts has room for a text's new rows from row `place` on.
  bool fits(const mx::array& a, int rows, const Segment& part, int place) const {
    return a.ndim() == 4 && a.shape(0) == rows && a.shape(1) == first().kv_heads && a.shape(3) == first().D &&
           place >= 0 && part.offset >= place && part.length <= a.shape(2) - place;
  }

  // caches: keys and values in turn.
  void check_dtype(const Arrays& caches, const mx::array& x) const {
    for (size_t i = 0; i < caches.size(); i++) {
      auto dtype = caches[i].dtype();
      refuse(dtype != x.dtype() && dtype != kv_dtype(first().type), "dtype of the caches.");
      refuse(dtype != caches[i - i % 2].dtype(), "keys and values of two dtypes.");
    }
  }

  mx::array checked_input(const mx::array& x, const mx::Stream& s) const {
    refuse(!ours(s) || !takes(x), "x is not of the layers' dtype.");
    refuse(!x.size() || x.shape(-1) != first().width(), "x is not of the layers' width.");
    return first().type == Type::f32 ? mx::astype(x, mx::float32, s) : x;
  }

  std::tuple<mx::array, Arrays, Arrays> run(const mx::array& given, const Arrays& keys, const Arrays& values,
                                            int offset, bool causal, const std::vector<int>& places) const {
    auto s = mx::to_stream({});
    auto x = checked_input(given, s);
    refuse(x.ndim() != 3 || keys.size() != layers.size() || values.size() != layers.size(), "a cache of every layer.");
    auto batch = equal_texts(x.shape(0), x.shape(1), offset, causal);
    Arrays caches;
    for (size_t i = 0; i < keys.size(); i++) caches.insert(caches.end(), {keys[i], values[i]});
    check_dtype(caches, x);
    refuse(!places.empty() && places.size() != layers.size(), "a place in every layer's cache.");
    std::vector<int> shifts(layers.size());
    for (size_t i = 0; i < caches.size(); i++) {
      int place = places.empty() ? offset : places[i / 2];
      refuse(!fits(caches[i], x.shape(0), batch->segments[0], place), "shapes do not fit.");
      refuse(place < offset && x.shape(1) > 1, "a ring takes one row at a time.");
      shifts[i / 2] = offset - place;
    }
    auto [states, written] = run_to_last_attention(layers, x, caches, shifts, batch, s);
    auto y = finish_last(layers.back(), {states, written[written.size() - 2], written.back()}, shifts.back(), x.shape(),
                         batch, s);
    Arrays new_keys, new_values;
    for (size_t i = 0; i < written.size(); i++) (i % 2 ? new_values : new_keys).push_back(written[i]);
    return {y, new_keys, new_values};
  }

  // The caches of every layer in turn, of each text: what they write into is theirs alone, and there already.
  std::vector<KvCaches> in_place(const Arrays& keys, const Arrays& values, const RaggedBatch& batch) const {
    size_t texts = batch.segments.size();
    refuse(keys.size() != layers.size() * texts || values.size() != keys.size(), "a cache of every layer and text.");
    std::vector<KvCaches> at(layers.size());
    for (size_t i = 0; i < keys.size(); i++) {
      for (auto a : {&keys[i], &values[i]})
        refuse(!a->is_available() || !a->flags().row_contiguous || a->data_shared_ptr().use_count() > 1 ||
                   !fits(*a, 1, batch.segments[i % texts], batch.segments[i % texts].offset),
               "a cache that cannot be written in place.");
      at[i / texts].keys.push_back(kv_buffer(keys[i]));
      at[i / texts].values.push_back(kv_buffer(values[i]));
    }
    return at;
  }

  std::pair<mx::array, mx::array> write(const mx::array& given, const Arrays& keys, const Arrays& values,
                                        const Lengths& lengths) const {
    auto s = mx::to_stream({});
    auto x = checked_input(given, s);
    auto batch = batch_of(lengths, x.size() / first().width());
    auto at = in_place(keys, values, *batch);
    check_dtype(keys, x), check_dtype(values, x);
    int size = batch->rows * states_width(first());
    auto begin = [batch, at, keys, values, layers = layers](const Arrays& in, mx::array& out, const mx::Stream& s) {
      auto x = contiguous(in[0], s);
      allocate(out);
      dispatch(s, [=, x = x.data<char>(), states = out.data<char>(),
                   memory = temporary(run_layers_bytes(layers, batch->rows), s)] {
        run_layers(layers, x, *batch, at, states, memory);
      });
    };
    auto finish = [batch, caches = at.back(), layer = layers.back(), keys, values](const Arrays& in, mx::array& out,
                                                                                   const mx::Stream& s) {
      allocate(out);
      dispatch(s, [=, states = in[0].data<char>(), y = out.data<char>(),
                   memory = temporary(finish_layer_bytes(*layer, batch->rows), s)] {
        finish_layer(*layer, states, *batch, caches, y, memory);
      });
    };
    auto states = make("LayersInPlace", {size}, x.dtype(), s, {x}, begin);
    return {states, make("LastLayersEnd", x.shape(), x.dtype(), s, {states}, finish)};
  }
};

DecoderLayers stack(const std::vector<const DecoderLayers*>& parts) {
  DecoderLayers all;
  for (auto part : parts) all.layers.insert(all.layers.end(), part->layers.begin(), part->layers.end());
  for (auto& l : all.layers) {
    auto& first = all.first();
    refuse(l->type != first.type || l->width() != first.width() || l->heads != first.heads ||
               l->kv_heads != first.kv_heads || l->D != first.D,
           "layers differ.");
  }
  return all;
}

using LinearTuple = std::tuple<mx::array, mx::array, mx::array, int, int>;

// One layer as Python gives it.
DecoderLayers single(const std::vector<LinearTuple>& linears, LayerArrays rest) {
  for (auto& [w, scales, biases, group, bits] : linears) rest.linears.push_back({w, scales, biases, group, bits});
  return {{make_layer(rest)}};
}

}  // namespace

void bind_layer(nb::module_& m) {
  nb::class_<DecoderLayers>(m, "DecoderLayers", "Llama's decoder layers with quantised weights (MLX's affine form).")
      .def(
          "__init__",
          [](DecoderLayers* self, const std::vector<LinearTuple>& linears,
             const std::vector<std::optional<std::pair<mx::array, float>>>& norms, const Rope& rope, int heads,
             int kv_heads, float scale, const std::vector<std::optional<Update>>& updates,
             const std::vector<OptionalArray>& biases, const std::string& activation,
             const std::optional<ExpertsTuple>& experts) {
            new (self) DecoderLayers(single(
                linears,
                {{}, updates, norms, rope, heads, kv_heads, scale, biases, activation_named(activation), experts}));
          },
          nb::kw_only(), "linears"_a, "norms"_a, "rope"_a, "heads"_a, "kv_heads"_a, "scale"_a, "updates"_a, "biases"_a,
          "activation"_a, "experts"_a = nb::none(),
          "One layer. linears: (weight, scales, biases, group_size, bits) of q, k, v, o, gate, up, down;\n"
          "norms: (weight, eps) before attention, before the feed-forward block, and each may be None: of q's heads, "
          "of "
          "k's, and\n"
          "before both residuals; updates: an adapter's of each linear layer, (a, b, scale) or None, or none at all; "
          "biases: of\n"
          "each, or None, or none at all; activation: silu or gelu_approx. experts, where gate, up and down are stacks "
          "of "
          "matrices:\n"
          "((weight, scales, biases, group_size, bits) of the router, without scales where it is float; how many see a "
          "row; what\n"
          "they are weighed by: their part of the softmax over 'all', the same 'normed' to one, or of that over those "
          "'used').")
      .def_static("stack", &stack, "parts"_a, "Layers one after the other; ValueError when their shapes differ.")
      .def("takes", &DecoderLayers::takes, "x"_a)
      .def(
          "__call__", &DecoderLayers::run, "x"_a, "keys"_a, "values"_a, "offset"_a, nb::kw_only(), "causal"_a = true,
          "places"_a = std::vector<int>{},
          "x (B, L, D), the new rows of B texts that are equally far; keys, values: caches (B, heads, capacity, d) of "
          "every\n"
          "layer, which hold `offset` rows -> y like x, keys, values. places: the row of each layer's caches where the "
          "new ones\n"
          "begin; before `offset` in a ring, which takes one row at a time and sees all that it holds.")
      .def(
          "write", &DecoderLayers::write, "x"_a, "keys"_a, "values"_a, "lengths"_a,
          "x (1, L, D), the new rows of texts one after the other; lengths: each text's (new rows, rows so far); keys, "
          "values:\n"
          "its caches (1, heads, capacity, d), of all texts for every layer in turn -> states, y like x. Computing "
          "states\n"
          "writes into the caches, which must be computed and nobody else's; compute it before they are used.")
      .def_prop_ro(
          "mixtures",
          [](const DecoderLayers& l) {
            return std::count_if(l.layers.begin(), l.layers.end(), [](auto& one) { return one->experts.count > 0; });
          },
          "how many of them have experts")
      .def_prop_ro("kv_heads", [](const DecoderLayers& l) { return l.first().kv_heads; })
      .def_prop_ro("head_dims", [](const DecoderLayers& l) { return l.first().D; })
      .def_prop_ro(
          "kv_dtype", [](const DecoderLayers& l) { return kv_dtype(l.first().type); },
          "dtype for new caches, beside x's own");
}

}  // namespace toast
