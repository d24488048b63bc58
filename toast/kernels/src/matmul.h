// What the quantised and the float matmul ops share. Knows arrays and shapes.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "op.h"

namespace toast {

// The batch axes (all but the last two) of a and b, broadcast together, before each one's matrix.
std::pair<mx::array, mx::array> broadcast_batches(const mx::array& a, const mx::array& b, const mx::Stream& s);

using Maybe = std::optional<mx::array>;

// Is w[.., N, K * bits / 32] (untransposed: [.., K, N * bits / 32]) something our kernels read?
bool readable(const mx::array& x, const mx::array& w, const mx::array& scales, const Maybe& biases, bool transpose,
              int group, int bits, const std::string& mode);

// The weights of matrix `i` of a contiguous stack w[.., N, ..].
QuantWeights matrix(const mx::array& w, const mx::array& scales, const mx::array& biases, size_t i, int K, int group,
                    int bits);

mx::array counting(int n);  // 0, 1, .. n - 1

// What a linear layer does besides the product: y = f(x w' + bias) + residual.
struct Extras {
  std::optional<mx::array> bias, residual;  // [N]; of the result's shape
  Activation activation = Activation::none;
};

Activation activation_named(const std::string& name);  // as Python has it, "" for none; throws

// Extras travel as an op's last inputs, float32: with_extras() adds them, and the function it returns
// makes the epilogue of them when the op runs.
std::function<Epilogue(const std::vector<mx::array>& in, const mx::Stream& s)> with_extras(
    std::vector<mx::array>& inputs, const Extras& extras, int N, const mx::Stream& s);

// x[.., K] times w[N, K]' in float.
mx::array multiply_dense(const mx::array& x, const mx::array& w, const Extras& extras, const mx::Stream& s);

// x[.., M, K] times w[.., K, N] quantised along N: MLX's transpose=False. In float, nothing rounded.
mx::array multiply_untransposed(const mx::array& x, const mx::array& w, const mx::array& scales,
                                const mx::array& biases, int group, int bits, const mx::Stream& s);

}  // namespace toast
