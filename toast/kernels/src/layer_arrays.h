// A decoder layer as Python gives it, and what it becomes. Knows arrays and shapes; knows no cache.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "experts_op.h"
#include "layer_work.h"
#include "matmul.h"
#include "mixer_op.h"

namespace toast {

using Update = std::tuple<mx::array, mx::array, float>;  // a (K, rank), b (rank, N), scale

// A layer's parts as arrays.
struct LayerArrays {
  // a mixer's projections and out; q, k, v, o where there is attention; gate, up, down, these of all experts
  std::vector<Affine> linears;
  std::vector<std::optional<Update>> updates;  // of each, or none at all
  // weight and eps: before and after attention; of q and k, or none; after attention's and the other block's end
  std::vector<std::optional<std::pair<mx::array, float>>> norms;
  Rope rope;
  int heads, kv_heads;
  float scale;
  std::vector<OptionalArray> biases;  // of each linear layer, or none at all
  Activation activation;
  std::optional<ExpertsTuple> experts;
  bool gated = false;
  const MixerOp* mixer = nullptr;
  float residual = 1;

  // Where attention's and the feed-forward block's matrices begin.
  size_t q() const { return mixer ? mixer->work.projections.size() + 1 : 0; }
  size_t gate() const { return q() + (heads ? 4 : 0); }
  const mx::array& norm(int i) const { return norms[i]->first; }
};

// Throws where this is no layer that we can do: the caller's own code does it then.
std::shared_ptr<const Layer> make_layer(LayerArrays arrays);

}  // namespace toast
