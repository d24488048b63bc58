// What the quantised and the float matmul ops share. Knows arrays and shapes.
#pragma once
#include <functional>
#include <string>

#include "op.h"

namespace toast {

// The batch axes (all but the last two) of a and b, broadcast together, before each one's matrix.
std::pair<mx::array, mx::array> broadcast_batches(const mx::array& a, const mx::array& b, const mx::Stream& s);

// Quantised weights in MLX's affine form: w[.., N, K * bits / 32], scales and biases [.., N, K / group].
struct Affine {
  mx::array w, scales, biases;
  int group, bits;

  int width() const { return w.shape(-1) * 32 / bits; }  // of a row that is packed: K, or N of untransposed weights
  QuantWeights matrix(size_t i = 0) const;               // of a contiguous stack
};

// Whether our kernels multiply x[.., K] by these weights, transposed (as above) or not ([.., K, N * bits / 32]).
bool is_supported(const mx::array& x, const Affine& a, bool transposed = true);

// What a linear layer does besides the product: y = f(x w' + bias) + residual.
struct Extras {
  OptionalArray bias, residual;  // [N]; of the result's shape
  Activation activation = Activation::none;
};

Activation activation_named(const std::string& name);  // as Python has it, "" for none; throws

// Extras travel as an op's last inputs, float32: with_extras() adds them, and the function it returns
// makes the epilogue of them when the op runs.
std::function<Epilogue(const Arrays& in, const mx::Stream& s)> with_extras(Arrays& inputs, const Extras& extras, int N,
                                                                           const mx::Stream& s);

// x[.., K] times w[N, K]' in float.
mx::array multiply_dense(const mx::array& x, const mx::array& w, const Extras& extras, const mx::Stream& s);

// x[.., M, K] times w[.., K, N] quantised along N: MLX's transpose=False. In float, nothing rounded.
mx::array multiply_untransposed(const mx::array& x, const Affine& a, const mx::Stream& s);

}  // namespace toast
