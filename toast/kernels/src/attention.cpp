// Attention of one key/value head: softmax(q k' scale + mask) v for a tile of queries, every key at once.
// A row's maximum is exact and its sums run over the keys in order, so its bits depend neither on the
// tile, on the batch, on hidden keys before or after it, nor on how a prompt was cut.
#include <float.h>

#include "lanes.h"

namespace toast::TOAST_VARIANT {
namespace {

constexpr int ROWS = tuning::ATTENTION_ROWS;                // queries in a tile of registers
constexpr int COLS = tuning::attention_columns(REGISTERS);  // vectors beside them
constexpr size_t KEYS = COLS * W;                           // keys packed at a time for the scores
constexpr size_t VALUES = tuning::ATTENTION_VALUES;         // values mixed at a time

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
size_t least(size_t a, size_t b) { return a < b ? a : b; }

template <int N>
struct Count {
  static constexpr int n = N;
};

// f(Count<n>) for n in 1..COLS (or ROWS, which is never less).
template <class F>
inline void counted(size_t n, F f) {
  if (n == 1)
    f(Count<1>{});
  else if (n == 2)
    f(Count<2>{});
  else if (n == 3)
    f(Count<3>{});
  else
    f(Count<4>{});
}

// q[R, d] kt[d, KEYS] -> s[R, C * W]: each score is one chain of fma over d.
template <int R, int C>
void scores(const float* q, const float* kt, size_t d, float* s, size_t s_row) {
  vf a[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) a[r][c] = set1(0);
  for (size_t i = 0; i < d; i++, kt += KEYS) {
    vf k[C];
    for (int c = 0; c < C; c++) k[c] = load(kt + c * W);
    for (int r = 0; r < R; r++) {
      vf x = set1(q[r * d + i]);
      for (int c = 0; c < C; c++) a[r][c] = fma(x, k[c], a[r][c]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(s + r * s_row + c * W, a[r][c]);
}

// y[R, C * W] += p[R, n] v[n, C * W], and sums[R] += the rows of p: one chain over the n keys.
template <int R, int C, bool Sums, class V>
void mix(const float* p, size_t p_row, const V* v, int64_t v_row, size_t n, float* y, size_t y_row, float* sums) {
  vf a[R][C], total[R];
  for (int r = 0; r < R; r++) {
    total[r] = set1(Sums ? sums[r] : 0);
    for (int c = 0; c < C; c++) a[r][c] = load(y + r * y_row + c * W);
  }
  for (size_t j = 0; j < n; j++, v += v_row) {
    vf x[C];
    for (int c = 0; c < C; c++) x[c] = load(v + c * W);
    for (int r = 0; r < R; r++) {
      vf w = set1(p[r * p_row + j]);
      if (Sums) total[r] = total[r] + w;
      for (int c = 0; c < C; c++) a[r][c] = fma(w, x[c], a[r][c]);
    }
  }
  for (int r = 0; r < R; r++) {
    if (Sums) store(sums + r, total[r], 1);
    for (int c = 0; c < C; c++) store(y + r * y_row + c * W, a[r][c]);
  }
}

// k[rows, cols] -> kt[cols, W], at most W x W; rows that are not there become zeros. The same place in the next KEYS
// rows is prefetched: 16 rows at a time are no pattern that the hardware's prefetcher knows.
template <class T>
inline void transpose_keys(const T* k, int64_t k_row, int rows, int cols, float* kt) {
  vf square[W];
  if (rows == W && cols == W)
    for (int r = 0; r < W; r++, k += k_row) {
      __builtin_prefetch(k + KEYS * k_row, 0, 2);
      square[r] = load(k);
    }
  else
    for (int r = 0; r < W; r++, k += k_row) square[r] = r < rows ? load_some(k, cols) : set1(0);
  transpose(square);
  for (int c = 0; c < cols; c++) store(kt + c * KEYS, square[c]);
}

// k[n <= KEYS rows, d] -> kt[d, KEYS]
template <class T>
void pack(const T* k, int64_t k_row, size_t n, size_t d, float* kt) {
  for (size_t j = 0; j < n; j += W)
    vectors(d, [&](size_t i, int m) {
      transpose_keys(k + (int64_t)j * k_row + i, k_row, (int)least(W, n - j), m, kt + i * KEYS + j);
    });
}

bool hidden(uint8_t m) { return !m; }
bool hidden(float m) { return m == -INFINITY; }
bool hidden(f16 m) { return m.bits == 0xfc00; }
bool hidden(bf16 m) { return m.bits == 0xff80; }

void apply(const uint8_t* m, float* s, size_t n) {
  for (size_t j = 0; j < n; j++) s[j] = m[j] ? s[j] : -FLT_MAX;
}
template <class T>
void apply(const T* m, float* s, size_t n) {
  vectors(n, [&](size_t j, int w) { store_some(s + j, load_some(s + j, w) + load_some(m + j, w), w); });
}

template <class T>
float first_of(const T* x) {
  float t[W];
  store(t, load(x, 1));
  return t[0];
}

// T: of queries and what comes out; KV: of keys and values.
template <class T, class KV>
class Tile {
 public:
  Tile(const Attention& a, float* scratch) : a(a), rows(a.group * a.queries), width(round_up(a.dv, W)) {
    if (a.mask == Mask::boolean)
      range<uint8_t>();
    else if (a.mask == Mask::additive)
      range<T>();
    else if (a.mask == Mask::causal && a.visible > 0)
      end = least(a.keys, a.visible + a.queries - 1);
    else
      end = a.keys;
    stride = round_up(end - begin, KEYS);
    q = scratch;
    s = q + rows * a.dk;
    y = s + rows * stride;
    sums = y + rows * width;
    packed = sums + rows;  // the packed keys, then the widened values
  }

  void run() {
    load_queries();
    score();
    each_tile([&](size_t r, size_t n) {
      for (size_t i = r; i < r + n; i++) weigh(i, stop(r, n));
    });
    memset(y, 0, rows * width * sizeof(float));
    add_values();
    write();
  }

 private:
  const Attention& a;
  size_t rows, width, stride;  // rows: head by head, query by query
  size_t begin = 0, end = 0;   // keys outside are hidden from every row
  float *q, *s, *y, *sums, *packed;

  // How many keys row r sees under the causal mask; a row that sees none averages them all, as in MLX.
  int64_t seen(size_t r) const { return a.visible + (int64_t)(r % a.queries); }
  size_t limit(size_t r) const { return a.mask == Mask::causal && seen(r) > 0 ? least(end, seen(r)) : end; }
  size_t stop(size_t r, size_t n) const {
    size_t most = 0;
    for (size_t i = r; i < r + n; i++) most = limit(i) > most ? limit(i) : most;
    return most;
  }

  template <class F>
  void each_tile(F f) {
    for (size_t r = 0; r < rows; r += ROWS) f(r, least(ROWS, rows - r));
  }

  template <class M>
  const M* mask_row(size_t r) const {
    return (const M*)a.m + r / a.queries * a.m_head + r % a.queries * a.m_row;
  }

  template <class M>
  void range() {
    begin = a.keys;
    for (size_t r = 0; r < rows; r++) {
      const M* m = mask_row<M>(r);
      size_t first = 0, last = a.keys;
      while (first < a.keys && hidden(m[first])) first++;
      while (last > end && last > first && hidden(m[last - 1])) last--;
      if (first == a.keys) {
        begin = 0, end = a.keys;
        return;
      }
      begin = least(begin, first);
      if (last > end) end = last;
    }
  }

  void load_queries() {
    for (size_t r = 0; r < rows; r++) {
      const T* x = (const T*)a.q + (int64_t)(r / a.queries) * a.q_head + (int64_t)(r % a.queries) * a.q_row;
      vectors(a.dk, [&](size_t i, int m) { store_some(q + r * a.dk + i, load_some(x + i, m) * set1(a.scale), m); });
    }
  }

  void score() {
    for (size_t j = begin; j < end; j += KEYS) {
      size_t n = least(KEYS, end - j);
      pack((const KV*)a.k + (int64_t)j * a.k_row, a.k_row, n, a.dk, packed);
      each_tile([&](size_t r, size_t m) {
        if (stop(r, m) <= j) return;
        counted(m, [&](auto R) {
          counted((n + W - 1) / W, [&](auto C) {
            if constexpr (C.n <= COLS) scores<R.n, C.n>(q + r * a.dk, packed, a.dk, s + r * stride + j - begin, stride);
          });
        });
      });
    }
  }

  // Scores of row r -> weights exp(s - max), zero from the row's limit to `stop`; sums[r] holds the sink's.
  void weigh(size_t r, size_t stop) {
    float* x = s + r * stride;
    size_t n = limit(r) - begin, padded = round_up(stop - begin, W);
    if (a.mask == Mask::boolean) apply(mask_row<uint8_t>(r) + begin, x, n);
    if (a.mask == Mask::additive) apply(mask_row<T>(r) + begin, x, n);
    if (a.mask == Mask::causal && seen(r) <= 0)
      for (size_t j = 0; j < n; j++) x[j] = -FLT_MAX;
    for (size_t j = n; j < padded; j++) x[j] = -INFINITY;
    vf top = a.sinks ? set1(first_of((const T*)a.sinks + r / a.queries)) : set1(-INFINITY);
    vf sink = top;
    for (size_t j = 0; j < padded; j += W) top = vmax(load(x + j), top);
    top = set1(largest(top));
    for (size_t j = 0; j < padded; j += W) store(x + j, exp_below(load(x + j) - top));
    store(sums + r, a.sinks ? exp_below(sink - top) : set1(0), 1);
  }

  // In place where every value is read once, else widened for all blocks of rows.
  void add_values() {
    bool in_place = width == a.dv && (rows <= ROWS || sizeof(KV) == sizeof(float));
    for (size_t j = begin; j < end; j += VALUES) {
      size_t n = least(VALUES, end - j);
      const KV* v = (const KV*)a.v + (int64_t)j * a.v_row;
      if (in_place)
        mix_all(j, n, v, a.v_row);
      else
        mix_all(j, n, widened(v, n), width);
    }
  }

  // y += weights of keys [j, j + n) times v[n, width]
  template <class V>
  void mix_all(size_t j, size_t n, const V* v, int64_t v_row) {
    each_tile([&](size_t r, size_t m) {
      size_t most = stop(r, m);
      if (most <= j) return;
      const float* p = s + r * stride + j - begin;
      for (size_t d = 0; d < width; d += COLS * W)
        counted(m, [&](auto R) {
          counted(least(COLS, (width - d) / W), [&](auto C) {
            if constexpr (C.n <= COLS) {
              auto f = d ? mix<R.n, C.n, false, V> : mix<R.n, C.n, true, V>;
              f(p, stride, v + d, v_row, least(n, most - j), y + r * width + d, width, sums + r);
            }
          });
        });
    });
  }

  // v[n, dv] as whole vectors of float32: packed[n, width]
  const float* widened(const KV* v, size_t n) {
    for (size_t i = 0; i < n; i++)
      vectors(a.dv,
              [&](size_t d, int m) { store(packed + i * width + d, load_some(v + (int64_t)i * a.v_row + d, m)); });
    return packed;
  }

  void write() {
    for (size_t r = 0; r < rows; r++) {
      T* to = (T*)a.y + (int64_t)(r / a.queries) * a.y_head + (int64_t)(r % a.queries) * a.y_row;
      vf scale = set1(1.f / sums[r]);
      vectors(a.dv, [&](size_t d, int m) { store_some(to + d, load(y + r * width + d) * scale, m); });
    }
  }
};

size_t attention_scratch(const Attention& a) {
  size_t rows = a.group * a.queries, width = round_up(a.dv, W);
  size_t packed = a.dk * KEYS > VALUES * width ? a.dk * KEYS : VALUES * width;
  return rows * (a.dk + round_up(a.keys, KEYS) + width + 1) + packed;
}

void attention(const Attention& a, float* scratch) {
  if (a.type == Type::f32 && a.kv_type == Type::f16) return Tile<float, f16>(a, scratch).run();
  with_type(a.type, [&](auto t) { Tile<decltype(t), decltype(t)>(a, scratch).run(); });
}

}  // namespace

void fill_attention(Kernels& k) {
  k.attention_scratch = attention_scratch;
  k.attention = attention;
}

}  // namespace toast::TOAST_VARIANT
