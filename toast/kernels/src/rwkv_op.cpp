// RWKV-7's layers as one op: arrays, shapes and streams. What they compute is in rwkv_work.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "matmul.h"
#include "mlx/transforms.h"
#include "quantized_work.h"
#include "rwkv_work.h"
#include "states_op.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace toast {
namespace {

constexpr Refuse refuse{"[RwkvLayers] "};

// As Python gives them: w[N, K], scales, biases, group, bits, bias[N], of a dense one without scales; weight, bias,
// eps.
using LinearTuple = std::tuple<mx::array, OptionalArray, OptionalArray, int, int, OptionalArray>;
using NormTuple = std::tuple<mx::array, mx::array, float>;

// What a layer points into, made ready once.
struct Owned {
  RwkvLayer layer{};
  Arrays arrays{};

  // As it is where it is in one piece: MLX's contiguous() copies weights that are mapped.
  const mx::array& keep(mx::array x) {
    mx::eval(x);
    if (!x.flags().row_contiguous) mx::eval(x = mx::contiguous(x));
    arrays.push_back(x);
    return arrays.back();
  }

  const float* numbers(const mx::array& x, size_t n) {
    refuse(x.size() != n || !is_float(x.dtype()), "numbers that fit.");
    return keep(mx::astype(x, mx::float32)).data<float>();
  }

  // x w' of K columns to N; `type` is what products of it stay.
  Linear linear(const LinearTuple& given, int N, int K, mx::Dtype type) {
    auto& [w, scales, biases, group, bits, bias] = given;
    refuse(w.ndim() != 2 || w.shape(0) != N || N < 1, "matrices that fit.");
    refuse(mx::promote_types((scales ? *scales : w).dtype(), type) != type, "a dtype that products keep.");
    Linear to;
    if (scales) {
      refuse(!biases || !is_supported(shaped({1, K}, type), {w, *scales, *biases, group, bits}), "affine weights.");
      to.quantized = Affine{keep(w), keep(*scales), keep(*biases), group, bits}.matrix();
      if (is_centred(to.quantized)) to.quantized.biases = nullptr;
    } else {
      refuse(!is_float(w.dtype()) || w.shape(1) != K, "matrices that fit.");
      auto& kept = keep(w);
      to.dense = {kept.data<char>(), type_of(kept), 1, K, K, N};
    }
    if (bias) to.bias = numbers(*bias, N);
    return to;
  }

  Norm norm(const NormTuple& given, size_t n) {
    auto& [weight, bias, eps] = given;
    return {numbers(weight, n), numbers(bias, n), eps};
  }
};

struct Layers {
  RwkvLayers layers;
  mx::Dtype type;

  int width() const { return layers[0]->width(); }
  int heads() const { return layers[0]->heads; }

  bool takes(const mx::array& x) const { return x.dtype() == type && x.ndim() == 3 && x.shape(2) == width(); }

  // Of each layer: the last row that its time mix got, its state, and the same row of its channel mix.
  mx::Shape kept(int i, int B) const {
    int D = width() / heads();
    return i % 3 == 1 ? mx::Shape{B, heads(), D, D} : mx::Shape{B, 1, width()};
  }

  RwkvState take(const Arrays& in, size_t i, Kept& kept, const mx::Stream& s) const {
    RwkvState state{};
    for (int j : {0, 1}) {
      size_t at = 3 * i + 2 * j;
      kept[at] = shaped(in[at + 1].shape(), mx::float32);
      allocate(*kept[at]);
      state.before[j] = contiguous(in[at + 1], s).data<float>(), state.after[j] = kept[at]->data<float>();
    }
    kept[3 * i + 1] = take_states(&in[3 * i + 2], in[3 * i + 2].shape(), s);
    state.states = kept[3 * i + 1]->data<float>();
    return state;
  }

  // x (B, T, width), and what the layers keep, one after the other; None: nothing yet.
  std::pair<mx::array, Arrays> run(const mx::array& x, const std::vector<OptionalArray>& states) const {
    auto s = mx::to_stream({});
    refuse(!ours(s) || !takes(x) || !x.size(), "x of the layers' dtype and width.");
    refuse(states.size() != 3 * layers.size(), "three arrays of each layer.");
    refuse(!layers[0]->is_first(), "the first layer's values are what others mix with theirs.");
    int B = x.shape(0);
    Arrays inputs{x}, like;
    for (size_t i = 0; i < states.size(); i++) {
      like.push_back(shaped(kept(i, B), mx::float32));
      refuse(states[i] && states[i]->shape() != like[i].shape(), "a state of another shape.");
      inputs.push_back(states[i] ? mx::astype(*states[i], mx::float32, s) : mx::zeros(like[i].shape(), mx::float32, s));
    }
    auto eval = [all = *this](const Arrays& in, mx::array& y, Kept& kept, const mx::Stream& s) {
      auto x = contiguous(in[0], s);
      std::vector<RwkvState> states;
      for (size_t i = 0; i < all.layers.size(); i++) states.push_back(all.take(in, i, kept, s));
      allocate(y);
      size_t B = y.shape(0), T = y.shape(1), n = y.size();
      auto wide = (float*)temporary(n * sizeof(float), s);
      dispatch(s, [=, layers = all.layers, states = std::move(states), type = type_of(y), from = x.data<char>(),
                   to = y.data<char>(), memory = temporary(run_bytes(all.layers, B * T), s)] {
        kernels().to_f32(from, type, wide, n);
        toast::run(layers, wide, B, T, states, memory);
        kernels().from_f32(wide, to, type, n);
      });
    };
    return make_keeping("RwkvLayers", shaped(x.shape(), type), like, s, std::move(inputs), eval);
  }
};

Layers single(const std::vector<LinearTuple>& linears, const Arrays& numbers, const std::vector<NormTuple>& norms,
              int heads) {
  using R = RwkvLayer;
  size_t pairs = (linears.size() - 6) / 2;
  refuse(linears.size() < 6 || linears.size() % 2 || pairs < R::RESIDUAL || pairs > R::RANKS, "matrices of a layer.");
  refuse(numbers.size() != 5 || norms.size() != 3 || numbers[2].ndim() != 2, "numbers of a layer.");
  auto owned = std::make_shared<Owned>();
  auto& l = owned->layer;
  auto type = std::get<0>(norms[0]).dtype();
  int width = numbers[2].size(), wide = std::get<0>(linears[4]).shape(0);
  refuse(!is_float(type) || heads < 1 || width % heads, "a dtype that is ours, and heads.");
  Linear* square[] = {&l.r, &l.k, &l.v, &l.o};
  for (int i = 0; i < 4; i++) *square[i] = owned->linear(linears[i], width, width, type);
  l.key = owned->linear(linears[4], wide, width, type), l.value = owned->linear(linears[5], width, wide, type);
  for (size_t i = 0; i < pairs; i++) {
    int rank = std::get<0>(linears[6 + 2 * i]).shape(0);
    l.down[i] = owned->linear(linears[6 + 2 * i], rank, width, type);
    l.up[i] = owned->linear(linears[7 + 2 * i], width, rank, type);
  }
  l.time_mix = owned->numbers(numbers[0], R::SHIFTED * width), l.channel_mix = owned->numbers(numbers[1], width);
  l.k_k = owned->numbers(numbers[2], width), l.k_a = owned->numbers(numbers[3], width);
  l.r_k = owned->numbers(numbers[4], width), l.heads = heads;
  l.before = owned->norm(norms[0], width), l.after = owned->norm(norms[1], width);
  l.of_heads = owned->norm(norms[2], width);
  return {{{owned, &owned->layer}}, type};
}

Layers stack(const std::vector<const Layers*>& parts) {
  refuse(parts.empty(), "needs a layer.");
  Layers all{{}, parts[0]->type};
  for (auto part : parts) {
    refuse(part->type != all.type || part->width() != parts[0]->width() || part->heads() != parts[0]->heads(),
           "layers differ.");
    all.layers.insert(all.layers.end(), part->layers.begin(), part->layers.end());
  }
  for (size_t i = 0; i < all.layers.size(); i++) refuse(all.layers[i]->is_first() != !i, "one first layer.");
  return all;
}

}  // namespace

void bind_rwkv(nb::module_& m) {
  nb::class_<Layers>(m, "RwkvLayers", "RWKV-7's layers, quantised or not.")
      .def(
          "__init__",
          [](Layers* self, const std::vector<LinearTuple>& linears, const Arrays& numbers,
             const std::vector<NormTuple>& norms,
             int heads) { new (self) Layers(single(linears, numbers, norms, heads)); },
          nb::kw_only(), "linears"_a, "numbers"_a, "norms"_a, "heads"_a,
          "One layer. linears: (weight, scales, biases, group_size, bits, bias) of r, k, v, o, key, value,\n"
          "and both of low rank of g, w, a and, but for the first layer, v; scales and biases None: dense.\n"
          "numbers: how much of the row before r, k, v, w, a, g get (6, width), and the channel mix; k_k,\n"
          "k_a, r_k (heads, D). norms: (weight, bias, eps) before both mixes, of heads.")
      .def_static("stack", &stack, "parts"_a, "Layers that follow each other, the first one of a model included.")
      .def("takes", &Layers::takes, "x"_a)
      .def("__call__", &Layers::run, "x"_a, "states"_a,
           "x (B, T, width), and of each layer in turn the last row of its time mix (B, 1, width), its state\n"
           "(B, heads, D, D) and the last row of its channel mix, or None -> y as x, and all of those.");
}

}  // namespace toast
