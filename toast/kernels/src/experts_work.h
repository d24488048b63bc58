// A mixture of experts on raw memory: a router, and of all experts those that it gives a row most.
// The steps and roundings of MLX-LM's code, op by op: the bits are its own. Knows the kernels and the pool; knows
// nothing of MLX.
#pragma once
#include <atomic>
#include <memory>

#include "kernels.h"

namespace toast {

// Matrices of one shape, one after the other, each an expert's.
struct ExpertWeights {
  QuantWeights first{};
  std::shared_ptr<std::atomic<char>[]> forms;  // of each: whether its biases need not be read, once it was used

  QuantWeights at(int expert) const;
};

// What an expert's output is weighed by: its part of the softmax over all experts, the same made to sum to one over
// those used, or of the softmax over those alone.
enum class Shares { of_all, normed, of_used };

struct Experts {
  int count = 0, used = 0;  // none, where a layer has a plain feed-forward block
  Shares shares = Shares::of_all;
  QuantWeights router{};  // [count, width], or
  Matrix float_router{};  // [width, count]
  ExpertWeights gate, up, down;
};

// x[rows, width] of `type` -> y[rows, width]: the weighed sum of down(f(gate x) up x) of each row's experts.
// memory: mix_bytes().
void mix(const Experts& e, Activation f, const char* x, Type type, int rows, char* y, char* memory);
size_t mix_bytes(const Experts& e, Type type, int rows);

}  // namespace toast
