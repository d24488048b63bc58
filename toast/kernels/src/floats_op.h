// What the float ops share: rows in pieces for the threads, and rope for attention to use.
// Knows MLX's arrays and streams; knows no kernel.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "op.h"
#include "threads.h"

namespace toast {

using Optional = std::optional<mx::array>;
using Arrays = std::vector<mx::array>;

constexpr size_t kPiece = 1 << 14;  // elements worth waking a thread for

// f(first, count) over `rows` rows of n elements, in pieces.
template <class F>
void each_rows(size_t rows, size_t n, F f) {
  size_t step = std::max<size_t>(1, kPiece / std::max<size_t>(n, 1));
  parallel((rows + step - 1) / step, [&](int i) { f(i * step, std::min(step, rows - i * step)); });
}

// `a` itself when its last dimension is contiguous, else a contiguous copy.
inline mx::array rows_contiguous(const mx::array& a, const mx::Stream& s) {
  return a.shape(-1) == 1 || a.strides(-1) == 1 ? a : contiguous(a, s);
}

struct Rope {
  int dims;
  bool traditional;
  float scale;
  int offset;  // of the first position, when no array says it
  std::shared_ptr<const std::vector<float>> inverse;  // 1 / frequency, when no array says them
};

// base^(-i / half) for i < half, rounded once; computed once for each model.
std::shared_ptr<const std::vector<float>> inverse_frequencies(float base, int half);

// x (B, N, T, D) turned into y, which has its memory already; rows contiguous in both.
void turn(const Rope& r, const mx::array& x, const mx::array& y, const Optional& offsets, const Optional& freqs,
          const mx::Stream& s);

// Queries of one call of the attention kernel, for `group` heads that share a key/value head.
size_t attention_tile(size_t group, size_t queries, size_t keys);

// Attention cut into pieces of one thread's work: run(i) for i < count, in any order.
struct Attending {
  int count;
  size_t work;  // multiply-adds in all
  std::function<void(int)> run;
};

// in: q (B, H, L, dk), k (B, G, S, dk), v (B, G, S, dv), [mask (B, H, L, S)], [sinks (H)] -> y (B, H, L, dv), which
// has its memory already; rows contiguous in y. Copies that are needed first are made on the stream.
Attending attending(Mask mask, bool has_sinks, float scale, const Arrays& in, mx::array& y, const mx::Stream& s);

// Several of them, with nothing to do between them, on the stream.
void attend(std::vector<Attending> all, const mx::Stream& s);

}  // namespace toast
