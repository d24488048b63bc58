// Quantised matmul with vectors: lanes are columns of the output, 4 k to a dword.
// A panel (PANEL vectors of columns, a chunk of k) is unpacked to bytes in the cache, then each
// tile of rows runs over it. Every row takes the same steps in the same order whatever the tile.
#include "cursors.h"
#include "epilogue.h"

namespace toast::TOAST_VARIANT {

constexpr int CHUNK = tuning::CHUNK;

struct Scales {
  const float *scales, *biases;  // [groups][COLUMNS]; no biases: `middle` times the scales
  float middle;
  int group, first, count;  // groups of k: size, first of the row, how many
  int of_row;               // groups in a row
};

// acc[MR][COLUMNS] += rows of x, in their units, times the panel: the biases, then STEPS steps at a time. The first
// chunk begins at 0.
template <int BITS, int STEPS, int MR, class Cursor>
[[gnu::noinline]] static void tile(Cursor w, const Scales& p, const QuantRows& x, const int* rows, float* acc) {
  const Block* block[MR];
  const float* sum[MR];
  vf a[MR][PANEL];
  for (int m = 0; m < MR; m++) {
    block[m] = x.blocks + ((size_t)rows[m] * x.K + (size_t)p.first * p.group) / STEP;
    sum[m] = x.sum + (size_t)rows[m] * p.of_row + p.first;  // no division here: four cost a twelfth of a tile
    for (int n = 0; n < PANEL; n++) a[m][n] = p.first ? load(acc + m * COLUMNS + n * W) : set1(0);
  }
  auto add_biases = [&](const float* biases, float by) {
    for (int g = 0; g < p.count; g++)
      for (int n = 0; n < PANEL; n++) {
        vf b = load(biases + g * COLUMNS + n * W);
#pragma GCC unroll 4
        for (int m = 0; m < MR; m++) a[m][n] = fma(b, set1(by * sum[m][g]), a[m][n]);
      }
  };
  if (p.biases)
    add_biases(p.biases, 1);
  else
    add_biases(p.scales, p.middle);  // a power of two: the same bits
  const float *s = p.scales, *end = s + p.count * COLUMNS;
  int left = p.group;
  while (s < end) {
    Total total[MR][PANEL];
#pragma GCC unroll 2
    for (int i = 0; i < STEPS; i++) {
      Dot<BITS> dot[MR][PANEL];
      for (int m = 0; m < MR; m++)
        for (int n = 0; n < PANEL; n++) dot[m][n].start(four(&block[m]->sum));
      w.multiply(block, dot);
      for (int m = 0; m < MR; m++) {
        vi scales = four(block[m]->scale);
        for (int n = 0; n < PANEL; n++)
          total[m][n] = i ? dot[m][n].times(scales, total[m][n]) : dot[m][n].times(scales);
        block[m]++;
      }
    }
    for (int m = 0; m < MR; m++)
      for (int n = 0; n < PANEL; n++) a[m][n] = fma(floats(total[m][n]), load(s + n * W), a[m][n]);
    if ((left -= STEPS * STEP) > 0) continue;
    left = p.group;
    s += COLUMNS;
  }
  for (int m = 0; m < MR; m++)
    for (int n = 0; n < PANEL; n++) store(acc + m * COLUMNS + n * W, a[m][n]);
}

template <int BITS, int STEPS, class Cursor>
static void tiles(const Cursor& w, const Scales& p, const QuantRows& x, const int* rows, int M, float* acc) {
  int m = 0;
  if constexpr (Cursor::MOST > 1) {
    for (; m + ROWS <= M; m += ROWS) tile<BITS, STEPS, ROWS>(w, p, x, rows + m, acc + m * COLUMNS);
    if (M - m == 3) tile<BITS, STEPS, 3>(w, p, x, rows + m, acc + m * COLUMNS);
    if (M - m == 2) tile<BITS, STEPS, 2>(w, p, x, rows + m, acc + m * COLUMNS);
  }
  if (M - m == 1) tile<BITS, STEPS, 1>(w, p, x, rows + m, acc + m * COLUMNS);
}

template <int BITS, class Cursor>
static void tiles(const Cursor& w, const Scales& p, const QuantRows& x, const int* rows, int M, float* acc) {
  if (p.group < SPAN)
    tiles<BITS, 1>(w, p, x, rows, M, acc);
  else
    tiles<BITS, SPAN / STEP>(w, p, x, rows, M, acc);
}

// `steps` steps of `from` to memory; whether all are codes of SMALL bits.
template <int BITS, class Source>
static bool pack(const FreshCursor<BITS, Source>& from, size_t steps, uint8_t* to) {
  vi all{};
  for (size_t step = from.step; step < from.step + steps; step++, to += STEP_BYTES) {
    from.ahead.ask_scales(step);
    for (int part = 0; part < Ahead::lines(BITS); part++) from.ahead.ask_codes(step, part);
    from.source.take(step, [&](const auto& rows, size_t at) {
      unpack_step<BITS>(rows, at, [&](int j, int p, vi w) {
        store_vi(to + (j * PANEL + p) * W * 4, w);
        if (BITS == 8 && SMALL < 8) all |= w;
      });
    });
  }
  return BITS == 8 && SMALL < 8 && small(all);
}

// The outliers of a task's rows, in their units, chunk after chunk of k.
struct Outliers {
  struct Entry {
    int row, k, group;  // of acc, and of the chunk
    float x;
  };
  const Entry* entries;
  const int* end;  // of each chunk's

  static size_t bytes(const QuantWeights& w, int M) {  // at most
    return ((w.K + CHUNK - 1) / CHUNK) * sizeof(int) + (size_t)M * (w.K / ACTIVATION_GROUP) * sizeof(Entry);
  }
  Outliers(const QuantRows& x, const int* rows, int M, char* memory) {
    int* next = (int*)memory;
    int chunks = (x.K + CHUNK - 1) / CHUNK;
    Entry* to = (Entry*)(next + chunks);
    memset(next, 0, chunks * sizeof(int));
    each(x, rows, M, [&](int, const Outlier& o) { next[o.k / CHUNK]++; });
    for (int c = 0, before = 0; c < chunks; c++) {
      int n = next[c];
      next[c] = before;
      before += n;
    }
    each(x, rows, M, [&](int m, const Outlier& o) {
      int k = o.k % CHUNK;
      to[next[o.k / CHUNK]++] = {m, k, k / x.group, o.x};
    });
    entries = to;
    end = next;
  }

  static int count(const QuantRows& x, int row) { return x.count[row] > 0 ? x.count[row] : 0; }

  template <class F>
  static void each(const QuantRows& x, const int* rows, int M, F f) {
    for (int m = 0; m < M; m++) {
      const Outlier* o = x.outliers + (size_t)rows[m] * (x.K / ACTIVATION_GROUP);
      for (int i = 0; i < count(x, rows[m]); i++) f(m, o[i]);
    }
  }
};

// acc[row] += x times the weights of k, for the outliers of chunk c.
template <class Cursor>
static void add_outliers(const Cursor& w, const float* scales, const Outliers& o, int c, float* acc) {
  for (int i = c ? o.end[c - 1] : 0; i < o.end[c]; i++) {
    const Outliers::Entry& e = o.entries[i];
    const float* s = scales + e.group * COLUMNS;
    float* to = acc + e.row * COLUMNS;
    vf code[PANEL], x = set1(e.x);
    w.code(e.k, code);
    for (int n = 0; n < PANEL; n++, to += W, s += W) store(to, fma(code[n], x * load(s), load(to)));
  }
}

// A chunk of a panel in memory: whether all codes are of SMALL bits, scales and biases [groups][COLUMNS], the codes as
// PackedCursor has them.
struct Chunk {
  bool* small;
  float *scales, *biases;
  uint8_t* codes;

  Chunk(void* memory, const QuantWeights& w) {
    small = (bool*)memory;
    scales = (float*)((char*)memory + 64);
    biases = scales + size(w) / w.group * COLUMNS;
    codes = (uint8_t*)(biases + size(w) / w.group * COLUMNS);
  }
  static size_t size(const QuantWeights& w) { return w.K < CHUNK ? w.K : CHUNK; }
  static size_t bytes(const QuantWeights& w) {
    return 64 + size(w) * COLUMNS + size(w) / w.group * COLUMNS * 2 * sizeof(float);
  }
  static size_t bytes_of_panel(const QuantWeights& w) { return (w.K + CHUNK - 1) / CHUNK * bytes(w); }
};
static_assert(CHUNK % 128 == 0);  // whole groups

// One panel, which begins at column n0, a chunk of k after the other.
template <int BITS, bool WHOLE>
struct Panel {
  const QuantWeights& w;
  int n0;
  Rows<WHOLE> columns{w.w + n0 * ((size_t)w.K * BITS / 8), (size_t)w.K * BITS / 8, w.N - n0};
  int groups = w.K / w.group, chunk = CHUNK / w.group;
  using Near = uint8_t[Copied<BITS>::ALL];

  int first(int c) const { return c * chunk; }  // group of chunk c
  int count(int c) const { return groups - first(c) < chunk ? groups - first(c) : chunk; }
  // f(cursor) from chunk c on. near keeps what it has from chunk to chunk
  template <class F>
  auto fresh(int c, const Ahead& ahead, uint8_t* near, F f) const {
    size_t step = (size_t)first(c) * w.group / STEP;
    if constexpr (WHOLE && (BITS == 4 || BITS == 8))
      if (are_crowded()) return f(FreshCursor<BITS, Copied<BITS>>{{columns, near}, step, ahead});
    return f(FreshCursor<BITS, InPlace<BITS, WHOLE>>{{columns}, step, ahead});
  }
  bool are_crowded() const {
    size_t apart = columns.stride & -columns.stride;  // the largest power of two that divides it
    if (apart > tuning::CACHE_WAY) apart = tuning::CACHE_WAY;
    return COLUMNS * apart > tuning::CACHE_WAYS * tuning::CACHE_WAY;  // COLUMNS / (WAY / apart) rows in a set
  }
  Scales scales(int c, const Chunk& in) const {
    return {in.scales, w.biases ? in.biases : nullptr, middle(w), w.group, first(c), count(c), groups};
  }

  void unpack_scales(int c, const Chunk& to) const {
    toast::TOAST_VARIANT::unpack_scales<WHOLE>(w.scales, w, n0, first(c), count(c), to.scales);
    if (w.biases) toast::TOAST_VARIANT::unpack_scales<WHOLE>(w.biases, w, n0, first(c), count(c), to.biases);
  }
  void unpack(int c, const Chunk& to, uint8_t* near) const {
    unpack_scales(c, to);
    size_t steps = (size_t)count(c) * w.group / STEP;
    *to.small = fresh(c, {w, n0 + COLUMNS}, near, [&](auto from) { return pack(from, steps, to.codes); });
  }

  // acc[M][COLUMNS]: in every chunk biases, products, outliers. chunk_memory: Chunk::bytes(w)
  void multiply(const QuantTask& t, const Outliers& outliers, char* chunk_memory, float* acc) const {
    char* unpacked = w.unpacked ? (char*)w.unpacked + n0 / COLUMNS * Chunk::bytes_of_panel(w) : nullptr;
    Ahead ahead(w, n0 + COLUMNS);
    alignas(64) Near near;
    for (int c = 0; first(c) < groups; c++) {
      Chunk in(unpacked ? unpacked + c * Chunk::bytes(w) : chunk_memory, w);
      if (WHOLE && t.M <= ROWS && !unpacked) {  // a short panel is unpacked even so: one instance of many less
        unpack_scales(c, in);
        fresh(c, ahead, near, [&](auto from) { multiply_fresh(from, c, in, t, outliers, acc); });
        continue;
      }
      if (!unpacked) unpack(c, in, near);
      PackedCursor<BITS> codes{in.codes};
      if (*in.small)
        multiply<BITS == 8 ? SMALL : BITS>(codes, c, in, t, outliers, acc);
      else
        multiply<BITS>(codes, c, in, t, outliers, acc);
    }
  }
  template <class Source>
  void multiply_fresh(const FreshCursor<BITS, Source>& from, int c, const Chunk& in, const QuantTask& t,
                      const Outliers& outliers, float* acc) const {
    multiply<BITS>(from, c, in, t, outliers, acc);
  }
#ifdef TOAST_ALONG_K
  void multiply_fresh(const FreshCursor<BITS, InPlace<BITS, true>>& from, int c, const Chunk& in, const QuantTask& t,
                      const Outliers& outliers, float* acc) const {
    if constexpr (is_along(BITS))
      if (t.M == 1)
        return multiply<BITS>(AlongCursor<BITS>(from.source.rows, from.step, from.ahead), c, in, t, outliers, acc);
    multiply<BITS>(from, c, in, t, outliers, acc);
  }
#endif
  template <int AS, class Cursor>
  void multiply(const Cursor& weights, int c, const Chunk& in, const QuantTask& t, const Outliers& outliers,
                float* acc) const {
    tiles<AS>(weights, scales(c, in), t.x, t.rows, t.M, acc);
    add_outliers(weights, in.scales, outliers, c, acc);
  }
};

template <int N>
struct Bits {
  static constexpr int value = N;
};

// f(panel) for each of columns [n0, n1).
template <class F>
static void panels(const QuantWeights& w, int n0, int n1, F f) {
  for (; n0 < n1; n0 += COLUMNS) {
    auto panel = [&](auto bits) {
      if (n0 + COLUMNS <= w.N)
        f(Panel<decltype(bits)::value, true>{w, n0});
      else
        f(Panel<decltype(bits)::value, false>{w, n0});
    };
    switch (w.bits) {
      case 2:
        panel(Bits<2>{});
        break;
      case 3:
        panel(Bits<3>{});
        break;
      case 4:
        panel(Bits<4>{});
        break;
      case 5:
        panel(Bits<5>{});
        break;
      case 6:
        panel(Bits<6>{});
        break;
      default:
        panel(Bits<8>{});
    }
  }
}

static size_t unpacked_bytes(const QuantWeights& w) { return (w.N + COLUMNS - 1) / COLUMNS * Chunk::bytes_of_panel(w); }

static void unpack(const QuantWeights& w, int n0, int n1, void* to) {
  panels(w, n0, n1, [&](const auto& panel) {
    char* at = (char*)to + panel.n0 / COLUMNS * Chunk::bytes_of_panel(w);
    alignas(64) typename std::decay_t<decltype(panel)>::Near near;
    for (int c = 0; panel.first(c) < panel.groups; c++, at += Chunk::bytes(w)) panel.unpack(c, {at, w}, near);
  });
}

// The parts of quantized_matmul()'s scratch, each on a line of the cache of its own.
struct Parts {
  size_t acc, chunk, outliers;
  Parts(const QuantWeights& w, int M)
      : acc(lines((size_t)M * (COLUMNS + 1) * sizeof(float))),
        chunk(lines(Chunk::bytes(w))),
        outliers(Outliers::bytes(w, M)) {}
  static size_t lines(size_t bytes) { return (bytes + 63) / 64 * 64; }
};

static size_t quantized_scratch(const QuantWeights& w, int M) {
  Parts parts(w, M);
  return parts.acc + parts.chunk + parts.outliers;
}

static void quantized_matmul(const QuantTask& t, char* scratch) {
  if (t.M <= ROWS && !t.w.unpacked) prefetch_panel(t.w, t.n0);
  Parts parts(t.w, t.M);
  char* chunk = scratch + parts.acc;
  Outliers outliers(t.x, t.rows, t.M, chunk + parts.chunk);
  float *acc = (float*)scratch, *units = acc + (size_t)t.M * COLUMNS;
  for (int m = 0; m < t.M; m++) units[m] = t.x.unit[t.rows[m]];
  panels(t.w, t.n0, t.n1, [&](const auto& panel) {
    panel.multiply(t, outliers, chunk, acc);
    int n = t.n1 - panel.n0 < COLUMNS ? t.n1 - panel.n0 : COLUMNS;
    finish({acc, COLUMNS, units, t.to, t.M, t.w.N, panel.n0, n}, t.out);
  });
}

void fill_quantized(Kernels& k) {
  k.quantized_matmul = quantized_matmul;
  k.quantized_scratch = quantized_scratch;
  k.unpacked_bytes = unpacked_bytes;
  k.unpack = unpack;
  k.quantized_panel = COLUMNS;
}

}  // namespace toast::TOAST_VARIANT
