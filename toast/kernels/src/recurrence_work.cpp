// Tiles of steps: what a recurrence needs is made for so many at once, and stays in the second cache.
#include "recurrence_work.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads.h"

namespace toast {
namespace {

// A tile's memory.
struct Tile {
  float *q, *k, *u, *y, *g, *beta, *window, *scratch;
  size_t floats = 0;

  Tile(const Recurrence& r, size_t steps, size_t taps, float* base) {
    auto piece = [&](size_t n) {
      float* at = base + floats;
      floats += (n + 15) / 16 * 16;
      return at;
    };
    q = piece(steps * r.dk), k = piece(steps * r.dk), u = piece(steps * r.dv), y = piece(steps * r.dv);
    g = piece(r.g_alike ? steps : steps * r.dk), beta = piece(steps);
    window = piece(taps ? (steps + taps - 1) * std::max(r.dk, r.dv) : 0);
    scratch = piece(kernels().recurrence_scratch(r));
  }
};

// Every head through all steps: load(b, h, t, n, tile) makes what the rule needs of n steps, emit(b, h, t, n, y) takes
// what comes out.
template <class Load, class Emit>
void each_head(const States& s, Recurrence r, size_t taps, Load load, Emit emit) {
  size_t most = std::min(s.T, tuning::RECURRENCE_STEPS);
  r.dk = s.dk, r.dv = s.dv;
  parallel((int)(s.B * s.heads), [&](int task) {
    size_t b = task / s.heads, h = task % s.heads;
    Scratch memory(Tile(r, most, taps, nullptr).floats * sizeof(float));
    Tile tile(r, most, taps, memory.floats());
    Recurrence one = r;
    one.s = s.data + task * s.dk * s.dv;
    one.q = tile.q, one.k = tile.k, one.g = tile.g, one.u = tile.u, one.beta = tile.beta, one.y = tile.y;
    for (size_t t = 0; t < s.T; t += one.steps) {
      one.steps = std::min(most, s.T - t);
      load(b, h, t, one.steps, tile);
      kernels().recurrence(one, tile.scratch);
      emit(b, h, t, one.steps, tile.y);
    }
  });
}

// n steps of a head -> y[n, D]
void widen(const Heads& x, size_t b, size_t t, size_t h, size_t n, float* y) {
  for (size_t i = 0; i < n; i++) kernels().to_f32(x.at(b, t + i, h), x.type, y + i * x.D, x.D);
}

char* y_of(const States& s, size_t b, size_t t, size_t h) {
  return s.y + size_of(s.type) * ((b * s.T + t) * s.heads + h) * s.dv;
}

float softplus(float x) { return std::max(x, 0.f) + std::log1p(std::exp(-std::fabs(x))); }

// One of q, k, v before the convolution: its heads, and the first of its channels among all.
struct Channels {
  const DeltaNet& net;
  const Heads& x;
  size_t first, all;

  // Row t of a head, one of those before the first where t < 0; null: zeros.
  const char* row(size_t b, int64_t t, size_t h) const {
    if (t >= 0) return x.at(b, t, h);
    size_t keep = net.taps - 1;
    if (!net.before) return nullptr;
    return net.before + size_of(x.type) * ((b * keep + keep + t) * all + first + h * x.D);
  }

  // n steps of a head, convolved -> y[n, D]
  void convolve(size_t b, size_t t, size_t h, size_t n, float* window, float* y) const {
    for (size_t i = 0; i < n + net.taps - 1; i++) {
      float* to = window + i * x.D;
      if (auto from = row(b, (int64_t)(t + i) - (int64_t)(net.taps - 1), h))
        kernels().to_f32(from, x.type, to, x.D);
      else
        std::memset(to, 0, x.D * sizeof(float));
    }
    Convolution c{window,    y,
                  Type::f32, net.conv + size_of(net.conv_type) * (first + h * x.D) * net.taps,
                  nullptr,   net.conv_type,
                  x.D,       x.D,
                  net.taps,  n,
                  x.D,       Activation::silu};
    kernels().convolution(c);
  }

  // The rows that the next call begins with.
  void keep(size_t b, size_t h) const {
    size_t keep = net.taps - 1, bytes = x.D * size_of(x.type);
    for (size_t i = 0; i < keep; i++) {
      char* to = net.after + size_of(x.type) * ((b * keep + i) * all + first + h * x.D);
      if (auto from = row(b, (int64_t)(net.states.T + i) - (int64_t)keep, h))
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
  Recurrence r{};
  r.delta = true, r.g_alike = rule.g.D == 1;
  auto load = [&](size_t b, size_t h, size_t t, size_t n, const Tile& to) {
    widen(rule.q, b, t, h / s.share, n, to.q);
    widen(rule.k, b, t, h / s.share, n, to.k);
    widen(rule.v, b, t, h, n, to.u);
    widen(rule.g, b, t, h, n, to.g);
    widen(rule.beta, b, t, h, n, to.beta);
  };
  each_head(s, r, 0, load, [&](size_t b, size_t h, size_t t, size_t n, const float* y) {
    for (size_t i = 0; i < n; i++) kernels().from_f32(y + i * s.dv, y_of(s, b, t + i, h), s.type, s.dv);
  });
}

void run(const DeltaNet& net) {
  auto& s = net.states;
  size_t keys = s.heads / s.share * s.dk, all = 2 * keys + s.heads * s.dv;
  Channels q{net, net.q, 0, all}, k{net, net.k, keys, all}, v{net, net.v, 2 * keys, all};
  Recurrence r{};
  r.delta = r.g_alike = true;
  auto load = [&](size_t b, size_t h, size_t t, size_t n, const Tile& to) {
    q.convolve(b, t, h / s.share, n, to.window, to.q);
    k.convolve(b, t, h / s.share, n, to.window, to.k);
    v.convolve(b, t, h, n, to.window, to.u);
    kernels().unit_length(to.q, to.q, n, s.dk, 1e-6f, 1 / std::sqrt((float)s.dk));
    kernels().unit_length(to.k, to.k, n, s.dk, 1e-6f, 1);
    widen(net.a, b, t, h, n, to.g);
    widen(net.b, b, t, h, n, to.beta);
    float A = -std::exp(net.A_log[h]), dt = net.dt_bias[h];
    for (size_t i = 0; i < n; i++) {
      to.g[i] = std::exp(A * softplus(to.g[i] + dt));
      to.beta[i] = 1 / (1 + std::exp(-to.beta[i]));
    }
  };
  each_head(s, r, net.taps, load, [&](size_t b, size_t h, size_t t, size_t n, const float* y) {
    GatedNorm g{y,
                net.z.at(b, t, h),
                net.norm,
                y_of(s, b, t, h),
                s.type,
                net.norm_type,
                (size_t)net.z.row,
                s.heads * s.dv,
                n,
                s.dv,
                net.norm_eps,
                true};
    kernels().gated_norm(g);
    if (t + n < s.T) return;
    v.keep(b, h);
    if (h % s.share == 0) q.keep(b, h / s.share), k.keep(b, h / s.share);
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
