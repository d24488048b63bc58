// What the quantised and the float matmul ops share. Knows arrays and shapes.
#pragma once
#include "op.h"

namespace toast {

// The batch axes (all but the last two) of a and b, broadcast together, before each one's matrix.
std::pair<mx::array, mx::array> broadcast_batches(const mx::array& a, const mx::array& b, const mx::Stream& s);

// x[.., M, K] times w[.., K, N] quantised along N: MLX's transpose=False. In float, nothing rounded.
mx::array multiply_untransposed(const mx::array& x, const mx::array& w, const mx::array& scales,
                                const mx::array& biases, int group, int bits, const mx::Stream& s);

}  // namespace toast
