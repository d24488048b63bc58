// A mixture of experts as MLX arrays, as decoder layers use it. What it computes is in experts_work.cpp.
#pragma once
#include <string>
#include <tuple>
#include <vector>

#include "experts_work.h"
#include "matmul.h"

namespace toast {

// As Python gives it: the router's (weight, scales, biases, group_size, bits), without scales where it is float; how
// many experts see a row; what they are weighed by; whether they are the least of what is negated; and none, or the
// shared expert's gate, up, down and router.
using MatrixTuple = std::tuple<mx::array, OptionalArray, OptionalArray, int, int>;
using ExpertsTuple = std::tuple<MatrixTuple, int, std::string, bool, std::vector<MatrixTuple>>;

// The last three linears: gate, up, down of all experts, evaluated and contiguous [count, N, K]. `all` gets the other
// arrays, too, which keep what is pointed into. Throws where this is no mixture that we can do.
Experts make_experts(const ExpertsTuple& given, const std::vector<Affine>& linears, mx::Dtype dtype, Arrays& all);

}  // namespace toast
