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
#include "layer_arrays.h"
#include "mlx/transforms.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr Refuse refuse{"[DecoderLayers] "};

// How keys and values are best stored: float16 is finer than the weights they come from, and half of float32 to read.
mx::Dtype kv_dtype(Type type) { return type == Type::bf16 ? mx::bfloat16 : mx::float16; }

// What nobody else holds is written in place. What another array still holds (the previous step releases it) is waited
// for instead of copied.
bool is_held(const Arrays& in, size_t first) {
  return std::any_of(in.begin() + first, in.end(), [](auto& a) { return a.data_shared_ptr().use_count() > 1; });
}

// The keys and values of slot i, buffers 2 i and 2 i + 1, which are the inputs after those.
KvCaches take_rows(const Arrays& in, size_t i, Kept& buffers, const RaggedBatch& batch, int shift,
                   const mx::Stream& s) {
  for (size_t j : {2 * i, 2 * i + 1}) {
    buffers[j] = mx::array(in[j + 1].shape(), in[j + 1].dtype(), nullptr, {});
    take(in[j + 1], *buffers[j], s);
  }
  return {kv_rows(*buffers[2 * i], batch, shift), kv_rows(*buffers[2 * i + 1], batch, shift)};
}

// Layers keep two arrays in every slot: of a mixer, which is given here, and then of attention, null.
std::vector<const Mixer*> slots_of(const Layers& layers) {
  std::vector<const Mixer*> slots;
  for (auto& l : layers) {
    if (l->mixer) slots.push_back(&l->mixer);
    if (l->attends()) slots.push_back(nullptr);
  }
  return slots;
}

// run_layers() -> states, and the slots' arrays in turn with what it stores. shifts: KvBuffer's, of each slot.
std::pair<mx::array, Arrays> run_to_last_attention(const Layers& layers, const mx::array& x, const Arrays& caches,
                                                   const std::vector<int>& shifts, const SharedBatch& batch,
                                                   const mx::Stream& s) {
  auto buffers = std::make_shared<Kept>(caches.size());
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    auto x = contiguous(in[0], s);
    if (is_held(in, 1)) mx::synchronize(s);
    std::vector<LayerCache> at(layers.size());
    size_t slot = 0;
    auto take_mixer = [&](const Mixer& m, size_t i) {
      auto &before = in[2 * i + 1], &states = in[2 * i + 2];
      return take_state(&before, &states, m, before.shape(0), before.dtype(), (*buffers)[2 * i], (*buffers)[2 * i + 1],
                        s);
    };
    for (size_t i = 0; i < layers.size(); i++) {
      if (layers[i]->mixer) at[i].mixer = take_mixer(layers[i]->mixer, slot++);
      if (layers[i]->attends()) (KvCaches&)at[i] = take_rows(in, slot, *buffers, *batch, shifts[slot], s), slot++;
    }
    allocate(out);
    dispatch(s, [=, held = *buffers, at = std::move(at), x = x.data<char>(), states = out.data<char>(),
                 memory = temporary(run_layers_bytes(layers, batch->rows), s)] {
      run_layers(layers, x, *batch, at, states, memory);
    });
  };
  Arrays inputs{x};
  inputs.insert(inputs.end(), caches.begin(), caches.end());
  int size = batch->rows * states_width(layers);
  auto states = make("DecoderLayers", {size}, x.dtype(), s, std::move(inputs), eval);
  return {states, hand_out("CacheWritten", states, buffers, caches, s)};
}

// finish_layer() of the last one, an op of its own: nobody asks for it while a prompt is prefilled.
// inputs: states, keys, values.
mx::array finish_last(const std::shared_ptr<const Layer>& layer, const Arrays& inputs, int shift,
                      const mx::Shape& shape, const SharedBatch& batch, const mx::Stream& s) {
  auto eval = [=](const Arrays& in, mx::array& out, const mx::Stream& s) {
    allocate(out);
    KvCaches caches;
    if (layer->attends()) caches = {kv_rows(in[1], *batch, shift), kv_rows(in[2], *batch, shift)};
    dispatch(s, [=, states = in[0].data<char>(), y = out.data<char>(),
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
  // The first with keys and values, or the first where none has.
  const Layer& attention() const {
    auto found = std::find_if(layers.begin(), layers.end(), [](auto& l) { return l->attends(); });
    return found == layers.end() ? first() : **found;
  }

  // An embedding's dtype may be narrower: the norm makes it float32.
  bool takes(const mx::array& x) const {
    return is_float(x.dtype()) && (first().type == Type::f32 || type_of(x) == first().type);
  }

  // Whether a buffer of `rows` texts has room for a text's new rows from row `place` on.
  bool fits(const mx::array& a, int rows, const Segment& part, int place) const {
    auto& l = attention();
    return a.ndim() == 4 && a.shape(0) == rows && a.shape(1) == l.kv_heads && a.shape(3) == l.D && place >= 0 &&
           part.offset >= place && part.length <= a.shape(2) - place;
  }

  void check_dtype(const mx::array& keys, const mx::array& values, const mx::array& x) const {
    auto dtype = keys.dtype();
    refuse(dtype != x.dtype() && dtype != kv_dtype(first().type), "dtype of the caches.");
    refuse(dtype != values.dtype(), "keys and values of two dtypes.");
  }

  // What a mixer keeps, as its op gives it; zeros at the beginning.
  void add_state(const Mixer& mixer, const OptionalArray& before, const OptionalArray& states, const mx::array& x,
                 Arrays& all, const mx::Stream& s) const {
    auto kept = kept_shape(mixer, x.shape(0)), state = states_shape(mixer, x.shape(0));
    refuse(mixer.heads && before.has_value() != states.has_value(), "half of a mixer's state.");
    refuse((before && before->shape() != kept) || (states && states->shape() != state), "a state of another shape.");
    all.push_back(before ? mx::astype(*before, x.dtype(), s) : mx::zeros(kept, x.dtype(), s));
    if (mixer.heads) {
      all.push_back(states ? mx::astype(*states, mx::float32, s) : mx::zeros(state, mx::float32, s));
    } else {
      all.push_back(shaped(state, mx::float32));
      allocate(all.back());
      all.back().set_status(mx::array::Status::available);
    }
  }

  mx::array checked_input(const mx::array& x, const mx::Stream& s) const {
    refuse(!ours(s) || !takes(x), "x is not of the layers' dtype.");
    refuse(!x.size() || x.shape(-1) != first().width(), "x is not of the layers' width.");
    return first().type == Type::f32 ? mx::astype(x, mx::float32, s) : x;
  }

  std::tuple<mx::array, Arrays, Arrays> run(const mx::array& given, const std::vector<OptionalArray>& keys,
                                            const std::vector<OptionalArray>& values, int offset, bool causal,
                                            const std::vector<int>& places) const {
    auto s = mx::to_stream({});
    auto x = checked_input(given, s);
    auto slots = slots_of(layers);
    refuse(x.ndim() != 3 || keys.size() != slots.size() || values.size() != slots.size(), "a cache of every layer.");
    auto batch = equal_texts(x.shape(0), x.shape(1), offset, causal);
    refuse(!places.empty() && places.size() != slots.size(), "a place in every layer's cache.");
    Arrays caches;
    std::vector<int> shifts(slots.size());
    for (size_t i = 0; i < keys.size(); i++) {
      if (slots[i]) {
        add_state(*slots[i], keys[i], values[i], x, caches, s);
        continue;
      }
      refuse(!keys[i] || !values[i], "a cache of every layer.");
      check_dtype(*keys[i], *values[i], x);
      int place = places.empty() ? offset : places[i];
      for (auto& a : {*keys[i], *values[i]}) {
        refuse(!fits(a, x.shape(0), batch->segments[0], place), "shapes do not fit.");
        caches.push_back(a);
      }
      refuse(place < offset && x.shape(1) > 1, "a ring takes one row at a time.");
      shifts[i] = offset - place;
    }
    auto [states, written] = run_to_last_attention(layers, x, caches, shifts, batch, s);
    auto y = finish_last(layers.back(), {states, written[written.size() - 2], written.back()}, shifts.back(), x.shape(),
                         batch, s);
    Arrays new_keys, new_values;
    for (size_t i = 0; i < written.size(); i++) (i % 2 ? new_values : new_keys).push_back(written[i]);
    return {y, new_keys, new_values};
  }

  // The caches of every layer in turn, of each text: what they write into is theirs alone, and there already.
  std::vector<LayerCache> in_place(const Arrays& keys, const Arrays& values, const RaggedBatch& batch) const {
    size_t texts = batch.segments.size();
    refuse(std::any_of(layers.begin(), layers.end(), [](auto& l) { return (bool)l->mixer; }), "mixers take no batch.");
    refuse(keys.size() != layers.size() * texts || values.size() != keys.size(), "a cache of every layer and text.");
    std::vector<LayerCache> at(layers.size());
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
    for (size_t i = 0; i < keys.size(); i++) check_dtype(keys[i], values[i], x);
    int size = batch->rows * states_width(layers);
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
  auto& attention = all.attention();
  for (auto& l : all.layers) {
    refuse(l->type != all.first().type || l->width() != all.first().width(), "layers differ.");
    refuse(l->attends() && (l->heads != attention.heads || l->kv_heads != attention.kv_heads || l->D != attention.D),
           "layers differ.");
  }
  return all;
}

using LinearTuple = std::tuple<mx::array, mx::array, mx::array, int, int>;

using NormTuples = std::vector<std::optional<std::pair<mx::array, float>>>;

// One layer as Python gives it.
DecoderLayers single(const std::vector<LinearTuple>& linears, LayerArrays rest) {
  for (auto& [w, scales, biases, group, bits] : linears) rest.linears.push_back({w, scales, biases, group, bits});
  return {{make_layer(std::move(rest))}};
}

// Rotates nothing.
Rope no_rope() { return {0, false, 1, std::make_shared<const std::vector<float>>()}; }

}  // namespace

void bind_layer(nb::module_& m) {
  nb::class_<DecoderLayers>(m, "DecoderLayers", "Llama's decoder layers with quantised weights (MLX's affine form).")
      .def(
          "__init__",
          [](DecoderLayers* self, const std::vector<LinearTuple>& linears, const NormTuples& norms,
             const std::optional<Rope>& rope, int heads, int kv_heads, float scale,
             const std::vector<std::optional<Update>>& updates, const std::vector<OptionalArray>& biases,
             const std::string& activation, const std::optional<ExpertsTuple>& experts, bool gated,
             const MixerOp* mixer, float residual) {
            new (self) DecoderLayers(single(linears, {{},
                                                      updates,
                                                      norms,
                                                      rope ? *rope : no_rope(),
                                                      heads,
                                                      kv_heads,
                                                      scale,
                                                      biases,
                                                      activation_named(activation),
                                                      experts,
                                                      gated,
                                                      mixer,
                                                      residual}));
          },
          nb::kw_only(), "linears"_a, "norms"_a, "rope"_a = nb::none(), "heads"_a = 0, "kv_heads"_a = 0,
          "scale"_a = 0.f, "updates"_a = std::vector<std::optional<Update>>{},
          "biases"_a = std::vector<OptionalArray>{}, "activation"_a = "silu", "experts"_a = nb::none(),
          "gated"_a = false, "mixer"_a = nb::none(), "residual"_a = 1.f,
          "One layer. linears: (weight, scales, biases, group_size, bits) of q, k, v, o, gate, up, down;\n"
          "norms: (weight, eps) before attention, before the feed-forward block, and each may be None: of\n"
          "q's heads, of k's (each head's, or all at once), before both residuals; updates: an adapter's of\n"
          "each linear layer, (a, b, scale) or None, or none at all; biases: of each, or None, or none at\n"
          "all; activation: silu or gelu_approx. experts, where gate, up and down are stacks of matrices:\n"
          "((weight, scales, biases, group_size, bits) of the router, without scales where it is float; how\n"
          "many see a row; what they are weighed by: their part of the softmax over 'all', the same\n"
          "'normed' to one, or of that over those 'used'; whether they are the least of what is negated;\n"
          "and none, or gate, up, down and a router of one row of an expert that every row sees). gated: q\n"
          "gives a gate beside each head's queries. mixer: beside attention, or in its place where there\n"
          "are no heads; its projections and what follows it stand before q or gate. residual: what is\n"
          "added to x is scaled by.")
      .def_static("stack", &stack, "parts"_a, "Layers one after the other; ValueError when their shapes differ.")
      .def("takes", &DecoderLayers::takes, "x"_a)
      .def("__call__", &DecoderLayers::run, "x"_a, "keys"_a, "values"_a, "offset"_a, nb::kw_only(), "causal"_a = true,
           "places"_a = std::vector<int>{},
           "x (B, L, D), the new rows of B texts that are equally far; keys, values: caches (B, heads,\n"
           "capacity, d) of every layer, which hold `offset` rows -> y like x, keys, values. places: the row\n"
           "of each layer's caches where the new ones begin; before `offset` in a ring, which takes one row\n"
           "at a time and sees all that it holds. A layer's mixer stands before its attention: in keys'\n"
           "place what was convolved (B, taps - 1, channels), in values' its states (B, heads, dv, dk), or\n"
           "None.")
      .def("write", &DecoderLayers::write, "x"_a, "keys"_a, "values"_a, "lengths"_a,
           "x (1, L, D), the new rows of texts one after the other; lengths: each text's (new rows, rows so\n"
           "far); keys, values: its caches (1, heads, capacity, d), of all texts for every layer in turn ->\n"
           "states, y like x. Computing states writes into the caches, which must be computed and nobody\n"
           "else's; compute it before they are used.")
      .def_prop_ro(
          "mixtures",
          [](const DecoderLayers& l) {
            return std::count_if(l.layers.begin(), l.layers.end(), [](auto& one) { return one->experts.count > 0; });
          },
          "how many of them have experts")
      .def_prop_ro("kv_heads", [](const DecoderLayers& l) { return l.attention().kv_heads; })
      .def_prop_ro("head_dims", [](const DecoderLayers& l) { return l.attention().D; })
      .def_prop_ro(
          "kv_dtype", [](const DecoderLayers& l) { return kv_dtype(l.first().type); },
          "dtype for new caches, beside x's own");
}

}  // namespace toast
