// A mixture of experts on raw memory: a router, of all experts those that it gives a row most, and perhaps one that
// every row sees. The steps and roundings of MLX-LM's code, op by op: the bits are its own. Knows the kernels and the
// pool; knows nothing of MLX.
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

// What says of a row how much it is for each of `count`.
struct Router {
  QuantWeights quantized{};  // [count, width], or
  Matrix dense{};            // [width, count]
};

// An expert of its own width that every row sees, weighed by the logistic function of what its router says.
struct SharedExpert {
  QuantWeights gate{}, up{}, down{};  // no rows: there is none
  Router router{};
};

struct Experts {
  int count = 0, used = 0;  // none, where a layer has a plain feed-forward block
  Shares shares = Shares::of_all;
  bool least = false;  // MLX-LM asks for the least of what is negated: the order, and who wins a tie, are others
  Router router{};
  ExpertWeights gate, up, down;
  SharedExpert shared{};
};

// x[rows, width] of `type` -> y[rows, width]: the weighed sum of down(f(gate x) up x) of each row's experts, and of the
// shared one. memory: mix_bytes().
void mix(const Experts& e, Activation f, const char* x, Type type, int rows, char* y, char* memory);
size_t mix_bytes(const Experts& e, Type type, int rows);

}  // namespace toast
