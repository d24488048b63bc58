// Tiles of steps and channels: a tile's window begins with the rows before it, so that no task waits for another.
#include "short_conv_work.h"

#include <algorithm>
#include <cstring>

#include "threads.h"

namespace toast {
namespace {

// n channels from `first` on of rows from t on, of one text.
struct Tile {
  const ShortConvolution& c;
  const Projected& p;
  const MixerState& state;
  size_t b, t, rows, first, n;

  size_t keep() const { return c.taps - 1; }
  size_t bytes() const { return n * size_of(p.type); }
  // Of row i < taps - 1 of what a call keeps.
  size_t kept(size_t i) const { return ((b * keep() + i) * c.channels + first) * size_of(p.type); }

  // Row t of what is convolved, one of those before the first where t < 0.
  void row(int64_t t, char* to) const {
    if (t < 0 && !state.before)
      std::memset(to, 0, bytes());
    else if (t < 0)
      std::memcpy(to, state.before + kept(keep() + t), bytes());
    else if (c.times < 0)
      std::memcpy(to, p.at(b, t, c.x + first), bytes());
    else
      kernels().activate(Activation::none, p.at(b, t, c.times + first), p.at(b, t, c.x + first), to, p.type, n);
  }

  // -> y, rows y_row apart; window: of rows + taps - 1 rows
  void run(char* window, char* y, size_t y_row, bool last) const {
    for (size_t i = 0; i < rows + keep(); i++) row((int64_t)(t + i) - (int64_t)keep(), window + i * bytes());
    size_t w = first * size_of(c.w_type);
    kernels().convolution({window, y, p.type, c.w + w, c.bias ? c.bias + w : nullptr, c.w_type, n, y_row, c.taps, rows,
                           n, c.activation, c.channels});
    for (size_t i = 0; c.gate >= 0 && i < rows; i++) {
      char* one = y + i * y_row * size_of(p.type);
      kernels().activate(Activation::none, p.at(b, t + i, c.gate + first), one, one, p.type, n);
    }
    for (size_t i = 0; last && i < keep(); i++)
      std::memcpy(state.after + kept(i), window + (rows + i) * bytes(), bytes());
  }
};

}  // namespace

void run(const ShortConvolution& c, size_t B, size_t T, const Projected& projected, const MixerState& state, char* y) {
  size_t size = size_of(projected.type), most = std::min(c.channels, tuning::CONVOLVED_CHANNELS);
  size_t steps = std::min(T, tuning::RECURRENCE_STEPS);
  size_t parts = (c.channels + most - 1) / most, tiles = (T + steps - 1) / steps;
  parallel((int)(B * tiles * parts), [&](int i) {
    size_t b = i / (tiles * parts), t = i / parts % tiles * steps, first = i % parts * most;
    Tile tile{c, projected, state, b, t, std::min(steps, T - t), first, std::min(most, c.channels - first)};
    Scratch window((tile.rows + tile.keep()) * tile.bytes());
    tile.run(window.bytes(), y + ((b * T + t) * c.channels + first) * size, c.channels, t + tile.rows == T);
  });
}

}  // namespace toast
