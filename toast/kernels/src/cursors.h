// How a tile goes through a panel's weights along k: from the file's rows, from a copy of some of them, or from bytes
// that were unpacked before. Included once per variant.
#pragma once
#include "unpack.h"
#include "weights.h"

namespace toast::TOAST_VARIANT {

constexpr int ROWS = tuning::QUANTIZED_ROWS;

// Four bytes in every lane.
static inline vi four(const void* x) {
  int v;
  memcpy(&v, x, 4);
  return every(v);
}

// Where a panel's codes are read, from the file's rows: take(step, f) calls f(rows, at) for the codes of a step.
template <int BITS, bool WHOLE>
struct InPlace {
  Rows<WHOLE> rows;
  template <class F>
  TOAST_INLINE void take(size_t step, F f) const {
    f(rows, step * ROW_BYTES<BITS>);
  }
};

// The same of rows that push each other out of the first cache, for they lie in the same sets: STEPS steps of each are
// copied to one piece, a part of them at every step before. Begins at 0.
template <int BITS>
struct Copied {
  static constexpr int STEPS = tuning::NEAR_STEPS;
  static constexpr size_t SIZE = STEPS * ROW_BYTES<BITS>, ALL = 2 * COLUMNS * SIZE;
  Rows<true> rows;
  uint8_t* near;  // [ALL]

  template <class F>
  TOAST_INLINE void take(size_t step, F f) const {
    constexpr int PART = COLUMNS / STEPS;
    const size_t piece = step / STEPS, at = step % STEPS;
    if (!step) copy(0, 0, COLUMNS);
    if ((piece + 1) * SIZE < rows.stride) copy(piece + 1, at * PART, PART);
    f(Near{place(piece)}, at * ROW_BYTES<BITS>);
  }

 private:
  struct Near {
    static constexpr size_t stride = SIZE;
    const uint8_t* first;
    inline const uint8_t* operator()(int c) const { return first + c * SIZE; }
    inline Near from(int c) const { return {(*this)(c)}; }
  };
  inline uint8_t* place(size_t piece) const { return near + piece % 2 * COLUMNS * SIZE; }
  inline void copy(size_t piece, int first, int count) const {
    for (int c = first; c < first + count; c++) memcpy(place(piece) + c * SIZE, rows(c) + piece * SIZE, SIZE);
  }
};

// A cursor over a panel's weights along k, in two forms: multiply() adds products with the int8 groups of the next 32 k
// to `dot`; code() gives the codes of one k from there on. Fresh: unpack in registers and use at once, for 1 to 4 rows.
template <int BITS, class Source>
struct FreshCursor {
  static constexpr int MOST = ROWS;
  Source source;
  size_t step;
  Ahead ahead;

  template <int MR>
  TOAST_INLINE void multiply(const Block* const* x, Dot<BITS> (&dot)[MR][PANEL]) {
    constexpr int PUTS = 8 * PANEL, LINES = Ahead::lines(BITS), EVERY = PUTS / LINES;
    const size_t now = step++;
    ahead.ask_scales(now);
    source.take(now, [&](const auto& rows, size_t at) {
      unpack_step<BITS>(rows, at, [&](int j, int p, vi b) {
        int put = 8 * p + j;
        if (put % EVERY == 0 && put / EVERY < LINES) ahead.ask_codes(now, put / EVERY);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++) dot[m][p].add(b, four(x[m]->q + 4 * j));
      });
    });
  }
  inline void code(int k, vf* to) const {
    float codes[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) codes[c] = code_at(source.rows(c), step * STEP + k, BITS);
    for (int n = 0; n < PANEL; n++) to[n] = load(codes + n * W);
  }
};

#ifdef TOAST_ALONG_K
// The same for one row of activations, STEPS steps at a time; begins at a multiple of them. Rows that share sets would
// wait for every line.
static_assert(tuning::CHUNK / STEP % TOAST_ALONG_K == 0);
template <int BITS>
struct AlongCursor {
  static constexpr int MOST = 1;  // rows of activations
  static constexpr int STEPS = TOAST_ALONG_K;
  Rows<true> rows;
  size_t step;
  Ahead ahead;
  vi sums[PANEL][STEPS];

  AlongCursor(const Rows<true>& rows, size_t step, const Ahead& ahead) : rows(rows), step(step), ahead(ahead) {}

  TOAST_INLINE void multiply(const Block* const* x, Dot<BITS> (&dot)[1][PANEL]) {
    if (step % STEPS == 0) sum_up(*x);
    ahead.ask_scales(step);
    for (int p = 0; p < PANEL; p++) dot[0][p].sum = sums[p][step % STEPS];
    step++;
  }
  TOAST_INLINE void sum_up(const Block* x) {
    constexpr int LINES = STEPS * Ahead::lines(BITS);  // to ask for, while the columns are summed up
    const size_t at = step * ROW_BYTES<BITS>, left = (rows.stride - at) / ROW_BYTES<BITS>;
    const int count = left < STEPS ? left : STEPS;
    const int8_t* q[STEPS];
    for (int g = 0; g < STEPS; g++) q[g] = g < count ? x[g].q : nullptr;
    vi activations[2];
    load_activations<BITS>(q, activations);
#pragma GCC unroll 2
    for (int p = 0; p < PANEL; p++)
      sum_along(
          [&](int c) {
            const int column = p * W + c;
            for (int line = column * LINES / COLUMNS; line < (column + 1) * LINES / COLUMNS; line++)
              ahead.ask_codes(step + line % STEPS, line / STEPS);
            return dot_along<BITS>(rows(column) + at, count, activations);
          },
          sums[p]);
  }
  inline void code(int k, vf* to) const {
    return FreshCursor<BITS, InPlace<BITS, true>>{{rows}, step, ahead}.code(k, to);
  }
};
#endif

// Packed: the panel was unpacked once to memory, for more rows.
template <int BITS>
struct PackedCursor {
  static constexpr int MOST = ROWS;
  const uint8_t* at;  // [steps][8][PANEL][W] dwords

  template <int AS, int MR>
  TOAST_INLINE void multiply(const Block* const* x, Dot<AS> (&dot)[MR][PANEL]) {
#pragma GCC unroll 8
    for (int j = 0; j < STEP / 4; j++) {
      vi b[PANEL];
      for (int n = 0; n < PANEL; n++) b[n] = load_vi(at + (j * PANEL + n) * W * 4);
#pragma GCC unroll 4
      for (int m = 0; m < MR; m++) {
        vi four_k = four(x[m]->q + 4 * j);
        for (int n = 0; n < PANEL; n++) dot[m][n].add(b[n], four_k);
      }
    }
    at += STEP_BYTES;
  }
  inline void code(int k, vf* to) const {
    int p = order_of(k, BITS);
    for (int n = 0; n < PANEL; n++) to[n] = byte(load_vi(at + (p / 4 * PANEL + n) * W * 4), p % 4);
  }
};

}  // namespace toast::TOAST_VARIANT
