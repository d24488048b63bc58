// Who compares which vectors. Sums are whole numbers and the rest is done in doubles: the same pairs on every CPU.
#include "near_work.h"

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "threads.h"

namespace toast {
namespace {

// codes[count, n] in 16 bits, and the squares of their lengths.
void widen(const int8_t* codes, size_t count, size_t n, int16_t* to, double* squares) {
  for (size_t r = 0; r < count; r++) {
    int64_t square = 0;
    for (size_t i = 0; i < n; i++) {
      int x = codes[r * n + i];
      to[r * n + i] = (int16_t)x;
      square += x * x;
    }
    squares[r] = (double)square;
  }
}

size_t bytes_of(size_t rows, size_t n) { return (rows * n * sizeof(int16_t) + 63) / 64 * 64; }

// A block of vectors beside those of one task, [first, first + count).
struct Rows {
  const Near& near;
  size_t start, stop;
  const int16_t* codes;
  const double* squares;

  void compare(size_t first, size_t count, std::vector<Pair>& found) const {
    size_t block = stop - start, n = near.n;
    Scratch scratch(bytes_of(count, n) + count * sizeof(double) + block * count * sizeof(int32_t));
    int16_t* others = (int16_t*)scratch.bytes();
    double* lengths = (double*)(scratch.bytes() + bytes_of(count, n));
    int32_t* products = (int32_t*)(lengths + count);
    widen(near.codes + first * n, count, n, others, lengths);
    kernels().int8_products(codes, block, others, count, n, products);
    std::vector<uint32_t> met;  // groups that have a pair with this vector
    for (size_t i = 0; i < block; i++) {
      met.assign(1, near.groups[start + i]);
      for (size_t j = 0; j < count && first + j < start + i; j++) {
        double dot = products[i * count + j], square = squares[i] * lengths[j];
        uint32_t group = near.groups[first + j];
        if (!(square > 0 && dot >= near.threshold * std::sqrt(square))) continue;
        if (std::find(met.begin(), met.end(), group) != met.end()) continue;
        met.push_back(group);
        found.push_back({(uint32_t)(start + i), (uint32_t)(first + j)});
      }
    }
  }
};

}  // namespace

std::vector<Pair> near_pairs(const Near& near, size_t start, size_t stop) {
  size_t n = near.n, some = tuning::NEAR_ROWS, tasks = (stop + some - 1) / some;
  std::vector<Pair> all;
  if (start >= stop) return all;
  Scratch scratch(bytes_of(stop - start, n) + (stop - start) * sizeof(double));
  double* squares = (double*)(scratch.bytes() + bytes_of(stop - start, n));
  widen(near.codes + start * n, stop - start, n, (int16_t*)scratch.bytes(), squares);
  Rows block{near, start, stop, (const int16_t*)scratch.bytes(), squares};
  std::vector<std::vector<Pair>> found(tasks);
  parallel((int)tasks, [&](int task) {
    size_t first = task * some;
    block.compare(first, std::min(some, stop - first), found[task]);
  });
  for (auto& part : found) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace toast
