// Pairs of int8 vectors that are near each other, by all threads. Knows the kernel and the pool; knows nothing of
// Python.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace toast {

// codes[rows, n], groups[rows]: the group that each vector is in so far.
struct Near {
  const int8_t* codes;
  const uint32_t* groups;
  size_t rows, n;
  double threshold;  // of the cosine of two vectors' codes
};
struct Pair {
  uint32_t later, earlier;
};

// The pairs of a vector in [start, stop) and an earlier one whose cosine is the threshold or more, as far as they are
// in two groups: for each vector one pair a group and task at most. In an order that depends on nothing but the input.
std::vector<Pair> near_pairs(const Near& near, size_t start, size_t stop);

}  // namespace toast
