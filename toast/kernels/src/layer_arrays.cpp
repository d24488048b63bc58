// Which layers are ours: every shape and dtype is looked at once, when a layer is made.
#include "layer_arrays.h"

#include "mlx/transforms.h"
#include "quantized_work.h"

namespace toast {
namespace {

constexpr Refuse refuse{"[DecoderLayers] "};

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
  refuse(l.linears.size() != l.gate() + 3, "needs a mixer's, q, k, v and o, and gate, up and down.");
  bool plain = l.biases.empty() && l.updates.empty();
  refuse((l.mixer && !plain) || (l.residual != 1 && (l.experts || !plain)), "a mixer has matrices and no more.");
  refuse(l.norms.size() != 6 || !l.norms[0] || !l.norms[1], "needs two norms, and those that may be none.");
  refuse(!l.biases.empty() && l.biases.size() != l.linears.size(), "a bias or none for each linear layer.");
  refuse(!l.heads && !l.mixer, "neither attention nor a mixer.");
  refuse(l.heads && (l.heads < 1 || l.kv_heads < 1 || l.heads % l.kv_heads), "heads.");
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
    refuse(a.w.ndim() != (l.experts && i >= l.gate() ? 3 : 2) ||
               !is_supported(mx::array({1, a.bits ? a.width() : 0}, dtype, nullptr, {}), a),
           "affine weights of 2 to 6 or 8 bits.");
    refuse(mx::promote_types(a.scales.dtype(), dtype) != dtype, "a dtype that products keep.");
    all.insert(all.end(), {a.w, a.scales, a.biases});
  }
  if (l.mixer) all.insert(all.end(), l.mixer->arrays.begin(), l.mixer->arrays.end());
  mx::eval(all);
  for (auto& a : all) refuse(!a.flags().row_contiguous, "contiguous weights.");
  add_updates(l, dtype, all);
  return all;
}

bool is(const QuantWeights& w, int N, int K) { return w.N == N && w.K == K; }

void check_attention(const Layer& l) {
  int hidden = l.width(), queries = l.heads * l.D;
  refuse(!is(l.q, queries * (l.gated ? 2 : 1), hidden) || !is(l.k, l.kv_heads * l.D, hidden) ||
             !is(l.v, l.k.N, hidden) || !is(l.o, hidden, queries),
         "shapes of attention.");
  refuse(l.rope.dims > l.D, "rope.");
}

void check_mixer(const Layer& l, const MixerOp& mixer, mx::Dtype dtype) {
  std::vector<int> widths;
  for (auto& w : l.in) {
    refuse(w.K != l.width(), "projections of a mixer.");
    widths.push_back(w.N);
  }
  mixer.check(widths, dtype);
  refuse(!is(l.out, l.width(), l.mixer.width), "what a mixer gives.");
}

void check_shapes(const Layer& l, const LayerArrays& arrays) {
  int hidden = l.width();
  int widths[] = {hidden, hidden, l.whole ? l.heads * l.D : l.D, l.whole ? l.k.N : l.D, hidden, hidden};
  for (int i = 0; i < 6; i++) refuse(arrays.norms[i] && arrays.norm(i).shape() != mx::Shape{widths[i]}, "norms.");
  if (l.mixer) check_mixer(l, *arrays.mixer, arrays.norm(0).dtype());
  if (l.attends()) check_attention(l);
  refuse(!is(l.gate, l.gate.N, hidden) || !is(l.up, l.gate.N, hidden) || !is(l.down, hidden, l.gate.N), "shapes.");
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

}  // namespace

std::shared_ptr<const Layer> make_layer(LayerArrays arrays) {
  using Owned = std::pair<Layer, Arrays>;  // and what it points into
  auto all = checked(arrays);
  size_t q = arrays.q(), gate = arrays.gate();
  auto w = [&](size_t i) {
    auto matrix = arrays.linears[i].matrix();
    if (!(arrays.experts && i >= gate) && is_centred(matrix)) matrix.biases = nullptr;
    return matrix;
  };
  auto norm = [&](int i) {
    return arrays.norms[i] ? Norm{arrays.norm(i).data<char>(), nullptr, arrays.norms[i]->second} : Norm{};
  };
  Layer l{};
  l.gate = w(gate), l.up = w(gate + 1), l.down = w(gate + 2), l.type = type_of(arrays.norm(0));
  l.before = norm(0), l.after = norm(1), l.q_norm = norm(2), l.k_norm = norm(3);
  l.after_attention = norm(4), l.after_feed_forward = norm(5), l.activation = arrays.activation;
  l.residual = arrays.residual;
  if (arrays.mixer) {
    for (size_t i = 0; i + 1 < q; i++) l.in.push_back(w(i));
    l.mixer = arrays.mixer->work, l.out = w(q - 1);
  }
  if (arrays.heads) {
    l.q = w(q), l.k = w(q + 1), l.v = w(q + 2), l.o = w(q + 3), l.heads = arrays.heads, l.kv_heads = arrays.kv_heads;
    l.D = l.k.N / l.kv_heads, l.scale = arrays.scale, l.rope = arrays.rope, l.gated = arrays.gated;
    l.whole = arrays.norms[2] && arrays.norm(2).size() != (size_t)l.D;
  }
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

}  // namespace toast
