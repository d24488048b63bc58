// Tiles of steps: what a recurrence needs is made for so many at once, and stays in the second cache.
#include "recurrence_work.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads.h"

namespace toast {
namespace {

// What a layer's recurrence is, and what its steps are made from.
struct Form {
  bool delta = false, g_alike = true, two_terms = false;
  size_t taps = 0;
};

// A tile's memory.
struct Tile {
  float *q, *k, *u, *y, *g, *beta, *a, *b, *window, *scratch;
  size_t floats = 0;

  Tile(const Form& form, const Recurrence& r, size_t steps, float* base) {
    auto piece = [&](size_t n) {
      float* at = base + floats;
      floats += (n + 15) / 16 * 16;
      return at;
    };
    q = piece(steps * r.dk), k = piece(steps * r.dk), u = piece(steps * r.dv), y = piece(steps * r.dv);
    g = piece(r.g_alike ? steps : steps * r.dk), beta = piece(steps);
    a = piece(form.two_terms ? steps * r.dk : 0), b = piece(form.two_terms ? steps * r.dk : 0);
    window = piece(form.taps ? (steps + form.taps - 1) * std::max(r.dk, r.dv) : 0);
    scratch = piece(kernels().recurrence_scratch(r));
  }

  void give(Recurrence& r, bool two_terms) const {
    r.q = q, r.k = k, r.g = g, r.u = u, r.beta = beta, r.y = y;
    if (two_terms) r.a = a, r.b = b;
  }
};

// n steps of a head of a text, from step t on.
struct Place {
  size_t b, h, t, n;
};

// Every head through all steps: load(place, tile) makes what the rule needs of some of them, and gives what of u goes
// to y directly; emit(place, y) takes what comes out.
template <class Load, class Emit>
void each_head(const States& s, const Form& form, Load load, Emit emit) {
  size_t most = std::min(s.T, tuning::RECURRENCE_STEPS);
  Recurrence r{};
  r.dk = s.dk, r.dv = s.dv, r.delta = form.delta, r.g_alike = form.g_alike;
  parallel((int)(s.B * s.heads), [&](int task) {
    Scratch memory(Tile(form, r, most, nullptr).floats * sizeof(float));
    Tile tile(form, r, most, memory.floats());
    Recurrence one = r;
    one.s = s.data + task * s.dk * s.dv;
    tile.give(one, form.two_terms);
    for (size_t t = 0; t < s.T; t += one.steps) {
      one.steps = std::min(most, s.T - t);
      Place place{task / s.heads, task % s.heads, t, one.steps};
      one.direct = load(place, tile);
      kernels().recurrence(one, tile.scratch);
      emit(place, tile.y);
    }
  });
}

// x at a place, of its heads or of those that `share` share -> y[n, D]
void widen(const Heads& x, const Place& p, float* y, size_t share = 1) {
  for (size_t i = 0; i < p.n; i++) kernels().to_f32(x.at(p.b, p.t + i, p.h / share), x.type, y + i * x.D, x.D);
}

char* y_of(const States& s, const Place& p) {
  return s.y + size_of(s.type) * ((p.b * s.T + p.t) * s.heads + p.h) * s.dv;
}

// emit() that only rounds.
auto rounded(const States& s) {
  return [&s](const Place& p, const float* y) {
    size_t row = size_of(s.type) * s.heads * s.dv;
    for (size_t i = 0; i < p.n; i++) kernels().from_f32(y + i * s.dv, y_of(s, p) + i * row, s.type, s.dv);
  };
}

float softplus(float x) { return std::max(x, 0.f) + std::log1p(std::exp(-std::fabs(x))); }

// One of q, k, v before the convolution: its heads, and the first of its channels among all.
struct Channels {
  const DeltaNet& net;
  const MixerState& state;
  const Heads& x;
  size_t T, first;

  // Row t of a head, one of those before the first where t < 0; null: zeros.
  const char* row(size_t b, int64_t t, size_t h) const {
    if (t >= 0) return x.at(b, t, h);
    size_t keep = net.taps - 1;
    if (!state.before) return nullptr;
    return state.before + size_of(x.type) * ((b * keep + keep + t) * net.channels() + first + h * x.D);
  }

  // x at a place, of the head that `share` share, convolved -> y[n, D]
  void convolve(const Place& p, size_t share, float* window, float* y) const {
    size_t taps = net.taps, h = p.h / share;
    for (size_t i = 0; i < p.n + taps - 1; i++) {
      float* to = window + i * x.D;
      if (auto from = row(p.b, (int64_t)(p.t + i) - (int64_t)(taps - 1), h))
        kernels().to_f32(from, x.type, to, x.D);
      else
        std::memset(to, 0, x.D * sizeof(float));
    }
    auto w = net.conv + size_of(net.conv_type) * (first + h * x.D);
    kernels().convolution(
        {window, y, Type::f32, w, nullptr, net.conv_type, x.D, x.D, taps, p.n, x.D, Activation::silu, net.channels()});
  }

  // The rows that the next call begins with.
  void keep(size_t b, size_t h) const {
    size_t keep = net.taps - 1, bytes = x.D * size_of(x.type);
    for (size_t i = 0; i < keep; i++) {
      char* to = state.after + size_of(x.type) * ((b * keep + i) * net.channels() + first + h * x.D);
      if (auto from = row(b, (int64_t)(T + i) - (int64_t)keep, h))
        std::memcpy(to, from, bytes);
      else
        std::memset(to, 0, bytes);
    }
  }
};

}  // namespace

float Numbers::operator[](size_t i) const {
  float x;
  kernels().to_f32(data + i * size_of(type), type, &x, 1);
  return x;
}

void run(const DeltaRule& rule) {
  auto& s = rule.states;
  auto load = [&](const Place& p, const Tile& to) {
    widen(rule.q, p, to.q, s.share);
    widen(rule.k, p, to.k, s.share);
    widen(rule.v, p, to.u);
    widen(rule.g, p, to.g);
    widen(rule.beta, p, to.beta);
    return 0.f;
  };
  each_head(s, {.delta = true, .g_alike = rule.g.D == 1}, load, rounded(s));
}

void run(const StateSpace& ssm) {
  auto& s = ssm.states;
  auto load = [&](const Place& p, const Tile& to) {
    widen(ssm.C, p, to.q, s.share);
    widen(ssm.B, p, to.k, s.share);
    widen(ssm.x, p, to.u);
    widen(ssm.dt, p, to.beta);
    float A = -std::exp(ssm.A_log[p.h]), bias = ssm.dt_bias[p.h];
    for (size_t i = 0; i < p.n; i++) {
      to.beta[i] = std::min(std::max(softplus(to.beta[i] + bias), ssm.least), ssm.most);
      to.g[i] = std::exp(to.beta[i] * A);
    }
    return ssm.D[p.h];
  };
  each_head(s, {}, load, rounded(s));
}

void run(const Wkv& wkv) {
  auto& s = wkv.states;
  auto load = [&](const Place& p, const Tile& to) {
    widen(wkv.r, p, to.q);
    widen(wkv.w, p, to.g);
    widen(wkv.k, p, to.k);
    widen(wkv.v, p, to.u);
    widen(wkv.a, p, to.a);
    widen(wkv.b, p, to.b);
    std::fill_n(to.beta, p.n, 1.f);
    return 0.f;
  };
  each_head(s, {.g_alike = false, .two_terms = true}, load, rounded(s));
}

void run(const DeltaNet& net, size_t B, size_t T, const std::vector<Projected>& projected, const MixerState& state,
         char* out) {
  auto heads = [&](int i) {
    auto& part = net.parts[i];
    auto& x = projected[part.which];
    return Heads{x.data + part.first * size_of(x.type), x.type, x.text, x.row, (int64_t)part.group, part.each, part.D};
  };
  Heads each[] = {heads(0), heads(1), heads(2)}, z = heads(3), a = heads(4), b = heads(5);
  States s{B, T, net.heads, net.share, net.dk, net.dv, state.states, out, z.type};
  size_t keys = net.heads / net.share * net.dk;
  Channels q{net, state, each[0], T, 0}, k{net, state, each[1], T, keys}, v{net, state, each[2], T, 2 * keys};
  auto load = [&](const Place& p, const Tile& to) {
    q.convolve(p, s.share, to.window, to.q);
    k.convolve(p, s.share, to.window, to.k);
    v.convolve(p, 1, to.window, to.u);
    kernels().unit_length(to.q, to.q, p.n, s.dk, 1e-6f, 1 / std::sqrt((float)s.dk));
    kernels().unit_length(to.k, to.k, p.n, s.dk, 1e-6f, 1);
    widen(a, p, to.g);
    widen(b, p, to.beta);
    float A = -std::exp(net.A_log[p.h]), dt = net.dt_bias[p.h];
    for (size_t i = 0; i < p.n; i++) {
      to.g[i] = std::exp(A * softplus(to.g[i] + dt));
      to.beta[i] = 1 / (1 + std::exp(-to.beta[i]));
    }
    return 0.f;
  };
  each_head(s, {.delta = true, .taps = net.taps}, load, [&](const Place& p, const float* y) {
    kernels().gated_norm({y, z.at(p.b, p.t, p.h), net.norm, y_of(s, p), s.type, net.norm_type, (size_t)z.row,
                          s.heads * s.dv, p.n, s.dv, net.norm_eps, true});
    if (p.t + p.n < s.T) return;
    v.keep(p.b, p.h);
    if (p.h % s.share == 0) q.keep(p.b, p.h / s.share), k.keep(p.b, p.h / s.share);
  });
}

void convolve_all(const Convolution& first, size_t B, size_t text) {
  size_t size = size_of(first.type), n = first.n;
  size_t step = tuning::CONVOLVED_CHANNELS, parts = (n + step - 1) / step;
  size_t rows = std::max<size_t>(1, tuning::TASK_ELEMENTS / step), tiles = (first.rows + rows - 1) / rows;
  parallel((int)(B * tiles * parts), [&](int i) {
    size_t b = i / (tiles * parts), t = i / parts % tiles * rows, at = i % parts * step;
    Convolution c = first;
    c.x = (const char*)first.x + size * (b * text + t * first.x_row + at);
    c.y = (char*)first.y + size * ((b * first.rows + t) * first.y_row + at);
    c.w = (const char*)first.w + size_of(first.w_type) * at * first.taps;
    if (first.bias) c.bias = (const char*)first.bias + size_of(first.w_type) * at;
    c.rows = std::min(rows, first.rows - t), c.n = std::min(step, n - at);
    kernels().convolution(c);
  });
}

}  // namespace toast
