// A head's state through time: the gated delta rule, Mamba-2 and RWKV-7 (see Recurrence in kernels.h).
// One pass over the state a step: it is brought up to date, read, and met by the next step's `a` while it is in the
// registers. Lanes are columns of the state, which never meet, so nothing is summed across lanes.
// Knows nothing of threads or arrays.
#include "lanes.h"

namespace toast::TOAST_VARIANT {
namespace {

constexpr int PANEL = 4;            // vectors of columns: twice as many sums, enough to hide an fma's latency
constexpr size_t COPIED_STEPS = 8;  // worth a copy of the panel in one piece, whose lines do not push each other out

// Up to `n` lanes of each of P vectors; n < W only where P == 1.
template <int P>
struct Columns {
  vf v[P];
  static Columns zero() {
    Columns c;
    for (int p = 0; p < P; p++) c.v[p] = set1(0);
    return c;
  }
  static Columns at(const float* x, int n) {
    Columns c;
    for (int p = 0; p < P; p++) c.v[p] = load_some(x + p * W, n);
    return c;
  }
  void to(float* x, int n) const {
    for (int p = 0; p < P; p++) store_some(x + p * W, v[p], n);
  }
};

enum class Rule { add, delta, two_terms };
// What of the next step meets the new state: delta: k, times g where that differs from row to row; two_terms: a.
template <Rule RULE, bool ALIKE>
struct Next {
  const float *x, *g;
  Next(const Recurrence& r, size_t t)
      : x(RULE == Rule::delta ? r.k + t * r.dk : r.a + t * r.dk), g(r.g + (ALIKE ? t : t * r.dk)) {}
  vf operator[](size_t i) const { return set1(RULE == Rule::delta && !ALIKE ? x[i] * g[i] : x[i]); }
};

// sum of s[i] x[i]
template <int P, class X>
Columns<P> met(const float* s, size_t row, X x, size_t dk, int n) {
  auto sum = Columns<P>::zero();
  for (size_t i = 0; i < dk; i++)
    for (int p = 0; p < P; p++) sum.v[p] = fma(x[i], load_some(s + i * row + p * W, n), sum.v[p]);
  return sum;
}

// What step t adds to the state along k: `met` is the old state's meeting with it.
template <int P, Rule RULE, bool ALIKE>
Columns<P> added(const Recurrence& r, size_t t, const Columns<P>& u, const Columns<P>& met) {
  Columns<P> w;
  vf beta = set1(r.beta[t]), minus_g = set1(ALIKE ? -r.g[t] : -1);
  for (int p = 0; p < P; p++) w.v[p] = beta * (RULE == Rule::delta ? fma(minus_g, met.v[p], u.v[p]) : u.v[p]);
  return w;
}

// One step: s[dk] along k by w -> y, which begins as the direct part; met: by this step's a, then by the next one's.
template <int P, Rule RULE, bool ALIKE, bool LAST>
void step(const Recurrence& r, size_t t, float* s, size_t row, const Columns<P>& w, Columns<P>& met, Columns<P>& y,
          int n) {
  constexpr bool TWO = RULE == Rule::two_terms, NEXT = RULE != Rule::add && !LAST;
  size_t dk = r.dk;
  const float *q = r.q + t * dk, *k = r.k + t * dk, *b = TWO ? r.b + t * dk : nullptr;
  const float* g = r.g + (ALIKE ? t : t * dk);
  Next<RULE, ALIKE> a(r, LAST ? t : t + 1);
  auto next = Columns<P>::zero();
  for (size_t i = 0; i < dk; i++) {
    vf gi = set1(ALIKE ? *g : g[i]), ki = set1(k[i]), qi = set1(q[i]), bi = set1(TWO ? b[i] : 0);
    vf ai = NEXT ? a[i] : qi;
    float* si = s + i * row;
    for (int p = 0; p < P; p++) {
      vf x = fma(ki, w.v[p], gi * load_some(si + p * W, n));
      if (TWO) x = fma(bi, met.v[p], x);
      store_some(si + p * W, x, n);
      y.v[p] = fma(qi, x, y.v[p]);
      if (NEXT) next.v[p] = fma(ai, x, next.v[p]);
    }
  }
  if (NEXT) met = next;
}

// All steps of P vectors of columns of s, from column c on.
template <int P, Rule RULE, bool ALIKE>
void columns(const Recurrence& r, float* s, size_t row, size_t c, int n) {
  auto met_by = Columns<P>::zero();
  if (RULE != Rule::add) met_by = met<P>(s, row, Next<RULE, ALIKE>(r, 0), r.dk, n);
  vf direct = set1(r.direct);
  for (size_t t = 0; t < r.steps; t++) {
    auto y = Columns<P>::at(r.u + t * r.dv + c, n);
    auto w = added<P, RULE, ALIKE>(r, t, y, met_by);
    for (int p = 0; p < P; p++) y.v[p] = direct * y.v[p];
    if (t + 1 < r.steps)
      step<P, RULE, ALIKE, false>(r, t, s, row, w, met_by, y, n);
    else
      step<P, RULE, ALIKE, true>(r, t, s, row, w, met_by, y, n);
    y.to(r.y + t * r.dv + c, n);
  }
}

void copy(const float* x, size_t x_row, float* y, size_t y_row, size_t rows, size_t n) {
  for (size_t i = 0; i < rows; i++) memcpy(y + i * y_row, x + i * x_row, n * sizeof(float));
}

template <int P, Rule RULE, bool ALIKE>
void panel(const Recurrence& r, size_t c, size_t n, float* scratch) {
  if (r.steps < COPIED_STEPS) return columns<P, RULE, ALIKE>(r, r.s + c, r.dv, c, (int)(P > 1 ? W : n));
  copy(r.s + c, r.dv, scratch, P * W, r.dk, n);
  columns<P, RULE, ALIKE>(r, scratch, P * W, c, (int)(P > 1 ? W : n));
  copy(scratch, P * W, r.s + c, r.dv, r.dk, n);
}

template <Rule RULE, bool ALIKE>
void all_columns(const Recurrence& r, float* scratch) {
  size_t c = 0;
  for (; c + PANEL * W <= r.dv; c += PANEL * W) panel<PANEL, RULE, ALIKE>(r, c, PANEL * W, scratch);
  for (; c < r.dv; c += W) panel<1, RULE, ALIKE>(r, c, r.dv - c < W ? r.dv - c : W, scratch);
}

template <Rule RULE>
void by_rule(const Recurrence& r, float* scratch) {
  r.g_alike ? all_columns<RULE, true>(r, scratch) : all_columns<RULE, false>(r, scratch);
}

void recurrence(const Recurrence& r, float* scratch) {
  auto run = r.delta ? by_rule<Rule::delta> : r.b ? by_rule<Rule::two_terms> : by_rule<Rule::add>;
  run(r, scratch);
}

size_t recurrence_scratch(const Recurrence& r) { return r.dk * PANEL * W; }

}  // namespace

void fill_recurrence(Kernels& k) {
  k.recurrence = recurrence;
  k.recurrence_scratch = recurrence_scratch;
}

}  // namespace toast::TOAST_VARIANT
